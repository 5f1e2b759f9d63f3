"""Inference requests as HTTP messages, built once and sent many times.

Source: KServe v2 over HTTP with the binary tensor data extension: a JSON head that lists the
tensors, then their packed values in the same order; ``Inference-Header-Content-Length`` says
where the head ends.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from trimton.perf.load.infer_request import InferRequest, RequestTensor, SharedSlice, infer_request
from trimton.perf.targets.tensors import Array, TensorSpec

Headers = Sequence[tuple[str, str]]

# A generator that prepares more than this would compete with the server for memory.
MAX_PREPARED_BYTES = 256 * 2**20


def encode_body(inputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> tuple[bytes, int]:
    """The body of an inference request with binary outputs, and the length of its JSON head."""
    return body_of(infer_request("", inputs, specs))


def body_of(request: InferRequest) -> tuple[bytes, int]:
    """The body of ``request``, and the length of its JSON head."""
    head: dict[str, Any] = {"inputs": [_tensor(tensor) for tensor in request.inputs]}
    if request.outputs:
        head["outputs"] = [
            {"name": name, "parameters": slot.parameters()}
            for name, slot in request.outputs.items()
        ]
    head["parameters"] = {"binary_data_output": True, **request.parameters}
    text = json.dumps(head, separators=(",", ":")).encode()
    payloads = [tensor.content for tensor in request.inputs if isinstance(tensor.content, bytes)]
    return b"".join((text, *payloads)), len(text)


def infer_path(model: str, version: str | None = None) -> str:
    """The path of the inference resource of ``model``."""
    base = f"/v2/models/{quote(model, safe='')}"
    return f"{base}/versions/{version}/infer" if version else f"{base}/infer"


def encode_message(
    request: InferRequest,
    host: str,
    headers: Headers = (),
    *,
    compressed: bool = False,
    version: str | None = None,
) -> bytes:
    """``request`` as a whole HTTP/1.1 message, head and body, ready for the socket.

    ``headers`` are sent besides; ``compressed`` packs the body with gzip. Without ``version`` the
    server chooses it.
    """
    body, head_length = body_of(request)
    extra = list(headers)
    if compressed:
        body = gzip.compress(body, mtime=0)
        extra.append(("Content-Encoding", "gzip"))
    fields = "".join(f"{name}: {value}\r\n" for name, value in extra)
    head = (
        f"POST {infer_path(request.model, version)} HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        "Content-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {head_length}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"{fields}\r\n"
    )
    return head.encode("latin-1") + body


def encode_request(
    host: str, model: str, inputs: Mapping[str, Array], specs: Sequence[TensorSpec]
) -> bytes:
    """The request for ``inputs`` as a whole HTTP/1.1 message."""
    return encode_message(infer_request(model, inputs, specs), host)


def prepare_requests(
    host: str,
    model: str,
    feeds: Iterable[Mapping[str, Array]],
    specs: Sequence[TensorSpec],
    *,
    max_bytes: int = MAX_PREPARED_BYTES,
) -> tuple[bytes, ...]:
    """One request for each of ``feeds`` (inputs by name), at least one; see within_memory."""
    return within_memory((encode_request(host, model, feed, specs) for feed in feeds), max_bytes)


def within_memory(
    messages: Iterable[bytes], max_bytes: int = MAX_PREPARED_BYTES
) -> tuple[bytes, ...]:
    """At least the first of ``messages``, and more while their total size allows it.

    So large samples do not fill the memory that the server needs.
    """
    kept: list[bytes] = []
    total = 0
    for message in messages:
        total += len(message)
        if kept and total > max_bytes:
            break
        kept.append(message)
    return tuple(kept)


def _tensor(tensor: RequestTensor) -> dict[str, Any]:
    content = tensor.content
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
        "parameters": content.parameters()
        if isinstance(content, SharedSlice)
        else {"binary_data_size": len(content)},
    }

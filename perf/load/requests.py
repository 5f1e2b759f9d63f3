"""Inference requests as bytes, built once and sent many times.

Source: KServe v2 over HTTP with the binary tensor data extension: a JSON head that lists the
tensors, then their packed values in the same order; ``Inference-Header-Content-Length`` says
where the head ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from trimton.core.errors import InputError
from trimton.perf.targets.tensors import Array, TensorSpec, pack

# A generator that prepares more than this would compete with the server for memory.
_MAX_PREPARED_BYTES = 256 * 2**20


def encode_body(inputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> tuple[bytes, int]:
    """The body of an inference request with binary outputs, and the length of its JSON head."""
    by_name = {spec.name: spec for spec in specs}
    tensors = []
    payloads = []
    for name, array in inputs.items():
        if name not in by_name:
            raise InputError(
                f"{name!r} is no input of the model (inputs: {', '.join(sorted(by_name))})."
            )
        payload = pack(array, by_name[name].datatype)
        payloads.append(payload)
        tensors.append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": by_name[name].datatype,
                "parameters": {"binary_data_size": len(payload)},
            }
        )
    head = json.dumps(
        {"inputs": tensors, "parameters": {"binary_data_output": True}}, separators=(",", ":")
    ).encode()
    return b"".join((head, *payloads)), len(head)


def infer_path(model: str, version: str | None = None) -> str:
    """The path of the inference resource of ``model``."""
    base = f"/v2/models/{quote(model, safe='')}"
    return f"{base}/versions/{version}/infer" if version else f"{base}/infer"


def encode_request(
    host: str, model: str, inputs: Mapping[str, Array], specs: Sequence[TensorSpec]
) -> bytes:
    """A whole HTTP/1.1 request, head and body, ready for the socket."""
    body, head_length = encode_body(inputs, specs)
    head = (
        f"POST {infer_path(model)} HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        "Content-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {head_length}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    )
    return head.encode("ascii") + body


def prepare_requests(
    host: str,
    model: str,
    feeds: Iterable[Mapping[str, Array]],
    specs: Sequence[TensorSpec],
    *,
    max_bytes: int = _MAX_PREPARED_BYTES,
) -> tuple[bytes, ...]:
    """One request for each of ``feeds`` (inputs by name), at least one.

    Stops before their total size exceeds ``max_bytes``, so that large samples do not fill
    the memory that the server needs.
    """
    requests: list[bytes] = []
    total = 0
    for feed in feeds:
        request = encode_request(host, model, feed, specs)
        total += len(request)
        if requests and total > max_bytes:
            break
        requests.append(request)
    return tuple(requests)

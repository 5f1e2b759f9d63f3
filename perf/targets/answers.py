"""The outputs in an answer to an inference request, as arrays.

Source: KServe v2 over HTTP with the binary tensor data extension (a JSON head that lists the
outputs, then their packed values in the same order), and ``ModelInferResponse`` over gRPC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trimton.core.errors import InfrastructureError
from trimton.perf.targets.tensors import Array, unpack


def outputs_of_body(body: bytes, head_length: int | None) -> dict[str, Array]:
    """The outputs in the body of an HTTP answer, whose head has ``head_length`` bytes.

    Without that length the head is the whole body. Raises InfrastructureError where it holds no
    binary tensors.
    """
    length = len(body) if head_length is None else head_length
    try:
        return listed_outputs(json.loads(body[:length]), memoryview(body)[length:])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InfrastructureError("the server's answer has no head that lists outputs.") from error


def listed_outputs(head: Mapping[str, Any], data: memoryview) -> dict[str, Array]:
    """The outputs that ``head`` lists and ``data`` holds; raises as outputs_of_body does."""
    outputs = {}
    offset = 0
    for item in head.get("outputs", ()):
        size = item.get("parameters", {}).get("binary_data_size")
        if size is None:
            raise InfrastructureError(
                "the server does not answer with binary tensors; it lacks the binary tensor data "
                "extension of KServe v2."
            )
        payload = data[offset : offset + size]
        outputs[str(item["name"])] = unpack(payload, item["datatype"], tuple(item["shape"]))
        offset += size
    return outputs


def outputs_of_message(message: Any) -> dict[str, Array]:
    """The outputs in a ModelInferResponse; InfrastructureError where these are no raw tensors."""
    if len(message.raw_output_contents) != len(message.outputs):
        raise InfrastructureError("the server does not answer with raw tensors.")
    return {
        output.name: unpack(memoryview(content), output.datatype, tuple(output.shape))
        for output, content in zip(message.outputs, message.raw_output_contents, strict=True)
    }

"""Inference requests as gRPC messages, serialised once and sent many times; their answers.

Source: KServe v2 over gRPC (``grpc_service.proto``); a message on the wire is a flag for
compression, its length and its bytes (grpc/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from struct import pack
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from trimton.core.errors import InfrastructureError
from trimton.perf.load.infer_request import InferRequest, Parameter, SharedSlice
from trimton.perf.targets.answers import outputs_of_message
from trimton.perf.targets.tensors import Array

# A flag for compression and four bytes of length.
PREFIX_BYTES = 5

# The field of an InferParameter for each type; bool before int, which it is one of.
_PARAMETER_FIELDS: Mapping[type, str] = {
    bool: "bool_param",
    int: "int64_param",
    str: "string_param",
}


def encode_grpc_message(request: InferRequest, *, compressed: bool = False) -> bytes:
    """``request`` as a length-prefixed ModelInferRequest; ``compressed`` packs it with gzip.

    Compressed messages need the metadata ``grpc-encoding: gzip`` on their call.
    """
    return prefixed(infer_message(request).SerializeToString(), compressed=compressed)


def prefixed(content: bytes, *, compressed: bool = False) -> bytes:
    """A message as it stands on the wire."""
    if compressed:
        content = gzip.compress(content, mtime=0)
    return pack(">BL", compressed, len(content)) + content


def outputs_of_grpc_message(message: bytes) -> dict[str, Array]:
    """The outputs in a length-prefixed ModelInferResponse.

    Raises InfrastructureError where it is none, or holds no raw tensors.
    """
    try:
        answer = service_pb2.ModelInferResponse.FromString(message[PREFIX_BYTES:])
    except DecodeError as error:
        raise InfrastructureError("the server's answer is no ModelInferResponse.") from error
    return outputs_of_message(answer)


def infer_message(request: InferRequest) -> Any:
    """``request`` as a ModelInferRequest; tensors travel as raw contents."""
    message = service_pb2.ModelInferRequest(model_name=request.model)
    for tensor in request.inputs:
        put = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if isinstance(tensor.content, SharedSlice):
            _put_parameters(put.parameters, tensor.content.parameters())
        else:
            message.raw_input_contents.append(tensor.content)
    for name, slot in request.outputs.items():
        _put_parameters(message.outputs.add(name=name).parameters, slot.parameters())
    _put_parameters(message.parameters, request.parameters)
    return message


def _put_parameters(target: Any, parameters: Mapping[str, Parameter]) -> None:
    for name, value in parameters.items():
        setattr(target[name], _PARAMETER_FIELDS[type(value)], value)

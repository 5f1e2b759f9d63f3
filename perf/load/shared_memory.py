"""Inputs and outputs in system shared memory: requests carry references instead of tensors.

For a server on the same machine. One region holds the inputs of all requests, another a slot for
the outputs of each. Both are registered with the server, and forgotten and removed at the end,
also after errors and Ctrl-C; after a kill, Python's resource tracker removes them.

Source: Triton's system shared memory extension of KServe v2.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from math import prod
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.infer_request import InferRequest, RequestTensor, SharedSlice
from trimton.perf.load.requests import MAX_PREPARED_BYTES
from trimton.perf.targets.model_endpoint import ModelEndpoint
from trimton.perf.targets.tensors import Array, TensorSpec, pack

_FOLDER = Path("/dev/shm")
# Slots begin at cache lines, so that no two requests write to the same one.
_ALIGNMENT_BYTES = 64


@contextmanager
def in_shared_memory(
    endpoint: ModelEndpoint,
    requests: Sequence[InferRequest],
    output_bytes: Mapping[str, int],
    *,
    in_flight: int,
    max_bytes: int = MAX_PREPARED_BYTES,
) -> Iterator[tuple[InferRequest, ...]]:
    """``requests`` with their tensors moved into shared memory, until the block ends.

    ``output_bytes`` is the size of each output of one request (see sizes_of_outputs). At least
    ``in_flight`` requests come back, repeated with other slots if need be, so that no two in
    flight write their outputs to the same place; and not more than ``max_bytes`` hold.

    Raises InputError where the server refuses the regions (it runs on another machine), and
    InfrastructureError where there is not enough shared memory.
    """
    inputs = Layout()
    placed = [_placed(inputs, request) for request in _within(requests, max_bytes)]
    outputs = Layout()
    rounds = -(-in_flight // len(placed))
    slots = [
        {name: outputs.reserve(size) for name, size in output_bytes.items()}
        for _ in range(rounds * len(placed))
    ]
    with ExitStack() as stack:
        input_region = stack.enter_context(_registered(endpoint, "inputs", inputs.size_bytes))
        output_region = stack.enter_context(_registered(endpoint, "outputs", outputs.size_bytes))
        for request, offsets in zip(requests, placed, strict=False):
            for tensor, (offset, size) in zip(request.inputs, offsets, strict=True):
                assert input_region.buf is not None, "the region is open"
                input_region.buf[offset : offset + size] = _content(tensor)
        yield tuple(
            replace(
                requests[index % len(placed)],
                inputs=tuple(
                    replace(tensor, content=SharedSlice(input_region.name, offset, size))
                    for tensor, (offset, size) in zip(
                        requests[index % len(placed)].inputs,
                        placed[index % len(placed)],
                        strict=True,
                    )
                ),
                outputs={
                    name: SharedSlice(output_region.name, offset, size)
                    for name, (offset, size) in slot.items()
                },
            )
            for index, slot in enumerate(slots)
        )


def sizes_of_outputs(
    endpoint: ModelEndpoint, model: str, feeds: Sequence[Mapping[str, Array]], batch: int
) -> dict[str, int]:
    """The bytes that each output of ``model`` needs for a request of ``batch`` samples.

    From the shapes that the model declares; where these leave something open, from its answers
    to all of ``feeds``.
    """
    metadata = endpoint.model_metadata(model)
    declared = {spec.name: _declared_bytes(spec, batch) for spec in metadata.outputs}
    known = {name: size for name, size in declared.items() if size is not None}
    if len(known) == len(declared):
        return known
    types = {spec.name: spec.datatype for spec in metadata.outputs}
    for feed in feeds:
        for name, values in endpoint.infer(model, feed, metadata.inputs).items():
            if declared[name] is None:
                known[name] = max(known.get(name, 0), len(pack(values, types[name])))
    return known


class Layout:
    """Where slots lie in a region."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def reserve(self, size_bytes: int) -> tuple[int, int]:
        """Offset and size of a new slot."""
        offset = self.size_bytes
        self.size_bytes += -(-size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        return offset, size_bytes


def _placed(layout: Layout, request: InferRequest) -> tuple[tuple[int, int], ...]:
    return tuple(layout.reserve(len(_content(tensor))) for tensor in request.inputs)


def _content(tensor: RequestTensor) -> bytes:
    assert isinstance(tensor.content, bytes), "a tensor moves into shared memory once"
    return tensor.content


def _within(requests: Sequence[InferRequest], max_bytes: int) -> Sequence[InferRequest]:
    total = 0
    for count, request in enumerate(requests):
        total += sum(len(_content(tensor)) for tensor in request.inputs)
        if count and total > max_bytes:
            return requests[:count]
    return requests


def _declared_bytes(spec: TensorSpec, batch: int) -> int | None:
    shape = [batch if axis == 0 and n is None else n for axis, n in enumerate(spec.shape)]
    fixed = [n for n in shape if n is not None]
    if len(fixed) < len(shape) or spec.datatype == "BYTES":
        return None
    return prod(fixed) * (2 if spec.datatype == "BF16" else spec.dtype.itemsize)


@contextmanager
def _registered(endpoint: ModelEndpoint, purpose: str, size_bytes: int) -> Iterator[SharedMemory]:
    name = f"trimton-{os.getpid()}-{secrets.token_hex(4)}-{purpose}"
    free_bytes = shutil.disk_usage(_FOLDER).free
    # Writing beyond what the kernel can back would end the process with a bus error.
    if size_bytes > free_bytes:
        raise InfrastructureError(
            f"shared memory for the {purpose} needs {size_bytes / 2**20:.0f} MiB, but {_FOLDER} "
            f"has {free_bytes / 2**20:.0f} MiB left; free some, or give a container more "
            "(docker run --shm-size)."
        )
    region = SharedMemory(name, create=True, size=max(size_bytes, 1))
    try:
        try:
            endpoint.register_shared_memory(name, f"/{name}", region.size)
        except InputError as error:
            raise InputError(
                f"shared memory needs a server on this machine (in a container with its --ipc): "
                f"{error}"
            ) from error
        try:
            yield region
        finally:
            # A server that is gone has forgotten it.
            with suppress(InfrastructureError):
                endpoint.unregister_shared_memory(name)
    finally:
        region.close()
        region.unlink()

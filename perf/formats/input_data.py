"""perf_analyzer's input data: a JSON file, or a folder with one raw file for each input.

Source: its documentation "Input Data". In JSON ``{"data": [...]}`` holds steps, or streams that
are lists of steps; a step gives each input as a list of values, as ``{"content": [...],
"shape": [...]}``, or as ``{"b64": "...", "shape": [...]}`` with the packed bytes. A step is one
sample; a request of batch N takes N steps. Streams are read one after the other. The optional
``"validation_data"`` has the same form and gives the outputs that each step should have.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.feeds import Feed
from trimton.perf.targets.tensors import Array, TensorSpec, unpack

Shapes = Mapping[str, Sequence[int]]

# The lists of steps in a file, and what their steps give.
_KINDS = {"data": "input", "validation_data": "output"}


def read_input_data(
    path: Path, specs: Sequence[TensorSpec], *, batch: int, shapes: Shapes | None = None
) -> list[Feed]:
    """The requests that ``path`` (a JSON file or a folder) describes.

    ``shapes`` gives the dimensions after the first where neither the file nor the model fixes
    them. Raises InputError that names the file, the step and the input.
    """
    steps = (
        [_read_folder(path, specs, shapes or {})]
        if path.is_dir()
        else _read_steps(path, "data", specs, shapes or {})
    )
    return _requests(path, steps, specs, batch)


def read_validation_data(
    path: Path, specs: Sequence[TensorSpec], *, batch: int
) -> list[Feed] | None:
    """What ``path`` expects of the answers to the requests of read_input_data, in their order.

    ``specs`` are the outputs of the model; a step may leave some out. None for a file without
    validation data, and for a folder, which cannot have any. Raises InputError as
    read_input_data does, and where there are not as many steps as in ``data``.
    """
    if path.is_dir() or "validation_data" not in (document := _document(path)):
        return None
    outputs = [replace(spec, optional=True) for spec in specs]
    steps = _read_steps(path, "validation_data", outputs, None)
    count = len(list(_steps("data", document["data"])))
    if len(steps) != count:
        raise InputError(
            f"{path}: validation_data has {len(steps)} entries, but data has {count}; give the "
            "outputs of every step, in the same order."
        )
    return _requests(path, steps, outputs, batch)


def _requests(path: Path, steps: list[Feed], specs: Sequence[TensorSpec], batch: int) -> list[Feed]:
    """Steps of one sample each, joined to requests of ``batch`` where the model batches."""
    if all(spec.shape and spec.shape[0] is None for spec in specs):
        return [_batch(path, steps, start, batch) for start in _starts(len(steps), batch)]
    return steps


def _starts(steps: int, batch: int) -> range:
    return range(0, max(1, steps - batch + 1), batch)


def _batch(path: Path, steps: Sequence[Feed], start: int, batch: int) -> Feed:
    chosen = [steps[(start + index) % len(steps)] for index in range(batch)]
    try:
        return {name: np.concatenate([step[name] for step in chosen]) for name in chosen[0]}
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{path}: the steps from {start + 1} on differ in inputs or shapes, so they do not fit "
            f"into one request of {batch}; use -b 1."
        ) from error


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason}).") from error
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}).") from error
    return document if isinstance(document, dict) else {}


def _read_steps(
    path: Path, field: str, specs: Sequence[TensorSpec], shapes: Shapes | None
) -> list[Feed]:
    data = _document(path).get(field)
    if not isinstance(data, list) or not data:
        raise InputError(f'{path}: has no list "{field}" with one entry for each request.')
    kind = _KINDS[field]
    return [
        _step(f"{path}, {place}", step, specs, shapes, kind) for place, step in _steps(field, data)
    ]


def _steps(field: str, data: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for number, entry in enumerate(data, 1):
        if isinstance(entry, list):
            for step_number, step in enumerate(entry, 1):
                yield f"stream {number}, step {step_number}", step
        else:
            yield f"entry {number} of {field}", entry


def _step(
    place: str, step: Any, specs: Sequence[TensorSpec], shapes: Shapes | None, kind: str
) -> Feed:
    if not isinstance(step, dict):
        raise InputError(f"{place}: is no object with one field for each {kind}.")
    names = [spec.name for spec in specs]
    for name in step:
        if name not in names:
            raise InputError(f"{place}: the model has no {kind} {name!r} ({', '.join(names)}).")
    for spec in specs:
        if spec.name not in step and not spec.optional:
            raise InputError(f"{place}: gives no {spec.name!r}.")
    return {
        spec.name: _tensor(f"{place}, {spec.name}", step[spec.name], spec, shapes)
        for spec in specs
        if spec.name in step
    }


def _tensor(place: str, value: Any, spec: TensorSpec, shapes: Shapes | None) -> Array:
    fields = value if isinstance(value, dict) else {"content": value}
    shape = _shape(place, fields.get("shape"), spec, shapes)
    if "b64" in fields:
        try:
            data = base64.b64decode(fields["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InputError(f"{place}: b64 is not base64.") from None
        return _unpacked(place, data, spec, shape)
    if "content" not in fields:
        raise InputError(f"{place}: give a list of values, or an object with content or b64.")
    flat = list(_flat(fields["content"]))
    try:
        values = np.array(flat, spec.dtype)
        if spec.dtype.kind in "iu" and any(v != int(v) for v in flat):
            raise ValueError("a fraction")
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{place}: holds values that are no {spec.datatype}.") from None
    if values.size != prod(shape):
        raise InputError(
            f"{place}: has {values.size} values, but the shape {list(shape)} holds {prod(shape)}."
        )
    return values.reshape(shape)


def _flat(content: Any) -> Iterator[Any]:
    if isinstance(content, list):
        for item in content:
            yield from _flat(item)
    else:
        yield content


def _unpacked(place: str, data: bytes, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    try:
        return unpack(memoryview(data), spec.datatype, shape)
    except InfrastructureError:
        raise InputError(
            f"{place}: {len(data)} bytes do not fit {spec.datatype} of shape {list(shape)}."
        ) from None


def _shape(place: str, given: Any, spec: TensorSpec, shapes: Shapes | None) -> tuple[int, ...]:
    """The shape of one step with its batch axis, which steps leave out.

    ``shapes`` is None where no option gives dimensions.
    """
    free_batch = bool(spec.shape) and spec.shape[0] is None
    wanted = spec.shape[1:] if free_batch else spec.shape
    lead = (1,) if free_batch else ()
    if given is None:
        given = (shapes or {}).get(spec.name, wanted)
    elif isinstance(given, list) and free_batch and len(given) == len(spec.shape):
        lead, given = tuple(given[:1]), given[1:]
    fits = (
        isinstance(given, Sequence)
        and len(given) == len(wanted)
        and all(
            isinstance(have, int) and have >= 0 and want in (None, have)
            for want, have in zip(wanted, given, strict=True)
        )
    )
    if not fits:
        text = ", ".join("N" if n is None else str(n) for n in wanted)
        raise InputError(
            f"{place}: needs a shape that fits [{text}]; give it in the file"
            f"{'' if shapes is None else f', or with --shape {spec.name}:DIMS'}."
        )
    return (*lead, *given)


def _read_folder(path: Path, specs: Sequence[TensorSpec], shapes: Shapes) -> Feed:
    """Raw values in row-major order; strings stand one on each line."""
    feed: Feed = {}
    for spec in specs:
        file = path / spec.name
        if not file.is_file():
            if spec.optional:
                continue
            raise InputError(f"{path}: has no file {spec.name!r} for that input.")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}).") from error
        shape = _shape(str(file), None, spec, shapes)
        if spec.datatype == "BYTES":
            lines = data.decode("utf-8", "replace").splitlines()
            feed[spec.name] = _tensor(str(file), lines, spec, shapes)
        else:
            feed[spec.name] = _unpacked(str(file), data, spec, shape)
    return feed

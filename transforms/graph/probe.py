"""Probes: inputs on which two models are compared, and how far their outputs are apart.

A probe is a set of inputs together with what the original model answers. Random probes need no
knowledge of the model: sizes for its free dimensions and a range for its integers are tried
until ONNX Runtime can run it. They are a proof of equality, not of accuracy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.difference import relative_difference, smallest_scale
from trimton.transforms.graph.inputs import InputSpec, input_specs, is_native, tensor_type
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.session import (
    ORT_ERRORS,
    Array,
    custom_operators,
    open_session,
    run,
)
from trimton.transforms.graph.tensors import all_nodes

RANDOM_OPERATORS = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})

# Sizes for free dimensions: large enough for pooling to leave something, small enough to be
# quick; 256 and 512 for models that cut a signal into windows.
_SIZES = (64, 16, 2, 32, 224, 256, 512)
_BATCH_SIZES = (2, 1)
# Integers may be indices into tables of unknown length, so small ranges must do.
_INTEGER_RANGES = (8, 2, 1)
_MAX_ATTEMPTS = 400
_RANDOM_PROBES = 2
_MAX_GIVEN_SAMPLES = 32
_MAX_BATCH = 8


@dataclass(frozen=True)
class Probe:
    """Inputs by name, and the outputs by name that the original model gave for them."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Any]


@dataclass(frozen=True)
class OutputDifference:
    """How far one output moved: the largest |new - old| divided by the largest |old|."""

    name: str
    relative: float


def random_probes(model: ir.Model, *, seed: int = 0) -> tuple[Probe, ...]:
    """Probes with random inputs: normal floats, small integers, both truths, short texts.

    Raises UnsupportedModelError, saying why, where no random input can be run.
    """
    session = _open(model)
    specs = tuple(spec for spec in input_specs(model) if not spec.optional)
    rng = np.random.default_rng(seed)
    last_reason = "it has no inputs to try"
    for sizes, limit in itertools.islice(_attempts(model, specs), _MAX_ATTEMPTS):
        probes: list[Probe] = []
        try:
            for _ in range(_RANDOM_PROBES):
                feeds = {spec.name: _random(spec, sizes, limit, rng) for spec in specs}
                probes.append(Probe(feeds, run(session, feeds)))
        except ORT_ERRORS as error:
            last_reason = one_line(str(error))
            continue
        if silent := [name for name, value in probes[0].outputs.items() if _is_silent(value)]:
            last_reason = f"output {silent[0]!r} is empty or NaN"
            continue
        return (*probes, *_switched(model, session, probes[0]))
    raise UnsupportedModelError(f"no random input suits the model (last tried: {last_reason}).")


def given_probes(model: ir.Model, data: Mapping[str, Array]) -> tuple[Probe, ...]:
    """Probes from ``data``, arrays by input name, first axis = samples; at most 32 are used.

    Raises UnsupportedModelError where the model cannot be run here, InputError where it cannot
    be run on ``data``.
    """
    session = _open(model)
    specs = [spec for spec in input_specs(model) if spec.name in data]
    if not specs:
        raise InputError("the data given has no array for any input of the model.")
    fixed = {spec.shape[0] for spec in specs if spec.shape and spec.shape[0] is not None}
    batch = max((size for size in fixed if size is not None), default=_MAX_BATCH)
    count = min(len(data[spec.name]) for spec in specs)
    batch = batch if fixed else min(batch, count)
    probes: list[Probe] = []
    for start in range(0, min(count, _MAX_GIVEN_SAMPLES) - batch + 1, batch):
        feeds = {spec.name: data[spec.name][start : start + batch] for spec in specs}
        try:
            probes.append(Probe(feeds, run(session, feeds)))
        except ORT_ERRORS as error:
            raise InputError(
                f"the model cannot be run on the data given: {one_line(str(error))}."
            ) from error
    if not probes:
        raise InputError(f"the data given has {count} samples; the model takes {batch} at once.")
    return tuple(probes)


def request_probes(model: ir.Model, requests: Iterable[Mapping[str, Array]]) -> tuple[Probe, ...]:
    """Probes from ``requests``, inputs by name as the model takes them; at most 32 are used.

    Raises as given_probes does.
    """
    session, probes = _open(model), list[Probe]()
    for feeds in itertools.islice(requests, _MAX_GIVEN_SAMPLES):
        try:
            probes.append(Probe(feeds, run(session, feeds)))
        except ORT_ERRORS as error:
            raise InputError(
                f"the model cannot be run on the data given: {one_line(str(error))}."
            ) from error
    if not probes:
        raise InputError("no samples are given; give at least one.")
    return tuple(probes)


def compare_outputs(model: ir.Model, probes: Sequence[Probe]) -> tuple[OutputDifference, ...]:
    """How far the outputs of ``model`` are from those recorded in ``probes``, worst first.

    Raises one of session.ORT_ERRORS where the model cannot be run on them.
    """
    session = open_session(model)
    floors = {value.name: smallest_scale(value) for value in model.graph.outputs}
    worst: dict[str, float] = {}
    for probe in probes:
        outputs = run(session, probe.inputs)
        for name, old in probe.outputs.items():
            difference = relative_difference(old, outputs[name], floors[name])
            worst[name] = max(worst.get(name, 0.0), difference)
    ordered = sorted(worst.items(), key=lambda item: (-item[1], item[0]))
    return tuple(OutputDifference(name, relative) for name, relative in ordered)


def _is_silent(output: Any) -> bool:
    """Whether nothing can be seen in ``output``: it is empty, or no number."""
    if not isinstance(output, np.ndarray):
        return False
    return output.size == 0 or (output.dtype.kind == "f" and bool(np.isnan(output).all()))


def _switched(model: ir.Model, session: ort.InferenceSession, probe: Probe) -> Iterator[Probe]:
    """``probe`` with inputs set to what the model compares them with: it may branch there."""
    for value in model.graph.inputs:
        name = value.name or ""
        constants = {
            id(other): other.const_value
            for node, index in value.uses()
            if node.op_type in _COMPARISONS
            if (other := node.inputs[1 - index]) is not None
        }
        for tensor in constants.values():
            if tensor is None or tensor.size != 1 or name not in probe.inputs:
                continue
            switched = np.full_like(probe.inputs[name], tensor.numpy().reshape(())[()])
            feeds = {**probe.inputs, name: switched}
            try:
                yield Probe(feeds, run(session, feeds))
            except ORT_ERRORS:  # these sizes may not suit the other branch
                continue


def _open(model: ir.Model) -> ort.InferenceSession:
    if custom := custom_operators(model):
        raise UnsupportedModelError(
            f"the model cannot be run here: ONNX Runtime does not know {', '.join(custom)}."
        )
    for value in (*model.graph.inputs, *model.graph.outputs):
        dtype = tensor_type(value)
        if dtype is not None and not is_native(dtype):
            raise UnsupportedModelError(
                f"the model cannot be run here: {value.name!r} is {dtype}, which numpy lacks."
            )
    for node in all_nodes(model):
        if node.op_type in RANDOM_OPERATORS and not node.domain:
            raise UnsupportedModelError(
                f"two runs of the model differ anyway: {node.op_type} ({node.name}) is random."
            )
    try:
        return open_session(model)
    except ORT_ERRORS as error:
        raise UnsupportedModelError(
            f"the model cannot be run here: {one_line(str(error))}."
        ) from error


# A size for every free dimension: (input name, axis) -> size.
_Sizes = Mapping[tuple[str, int], int]


def _attempts(model: ir.Model, specs: Sequence[InputSpec]) -> Iterator[tuple[_Sizes, int]]:
    """Sizes and integer ranges to try: plain guesses first, then every combination."""
    groups = _tied_dimensions(model, specs)
    limits = _INTEGER_RANGES if any(spec.dtype.kind in "iu" for spec in specs) else (1,)
    plain: list[tuple[int, ...]] = [
        tuple(batch if any(axis == 0 for _, axis in group) else size for group in groups)
        for size, batch in itertools.product(_SIZES, _BATCH_SIZES)
    ]
    combined: Iterable[tuple[int, ...]] = itertools.product((1, *_SIZES), repeat=len(groups))
    for choice in itertools.chain(dict.fromkeys(plain), combined):
        sizes = {key: size for group, size in zip(groups, choice, strict=True) for key in group}
        for limit in limits:
            yield sizes, limit


def _tied_dimensions(
    model: ir.Model, specs: Sequence[InputSpec]
) -> tuple[tuple[tuple[str, int], ...], ...]:
    """The free dimensions of the inputs; those of one name are of one size, so they are tied."""
    wanted = {spec.name for spec in specs}
    groups: dict[object, list[tuple[str, int]]] = {}
    for value in model.graph.inputs:
        if value.name is None or value.name not in wanted or value.shape is None:
            continue
        for axis, dim in enumerate(value.shape):
            if not isinstance(dim, int):
                place = (value.name, axis)
                groups.setdefault(dim.value or place, []).append(place)
    return tuple(tuple(group) for group in groups.values())


def _random(spec: InputSpec, sizes: _Sizes, limit: int, rng: np.random.Generator) -> Array:
    shape = tuple(
        sizes[spec.name, axis] if dim is None else dim for axis, dim in enumerate(spec.shape)
    )
    kind = spec.dtype.kind
    if kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind == "O":
        words = np.array(["", "a", "Trimton", "zwei Wörter"], dtype=object)
        return np.asarray(words[rng.integers(0, len(words), shape)], dtype=object)
    if kind in "iu":
        return rng.integers(0, limit, shape).astype(spec.dtype)
    return rng.standard_normal(shape).astype(spec.dtype)

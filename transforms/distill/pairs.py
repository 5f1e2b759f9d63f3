"""Which values inside a student are to come close to which inside the teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import constant, only_consumer
from trimton.transforms.graph.shapes import bind_free_dims, static_shape

Pair = tuple[str, str]

_ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "Elu", "Gelu", "HardSwish", "Mish"}
)
_NORMALISATIONS = frozenset({"LayerNormalization", "RMSNormalization"})


def find_pairs(teacher: ir.Model, student: ir.Model) -> tuple[Pair, ...]:
    """Pairs (value of the teacher, value of the student) of one width or another, in graph order.

    Candidates are the ends of residual blocks: sums of two computed values, after the activation
    or normalisation that follows; where there is none, what activations make. Values of the same
    name belong together where no axis, or only that of the channels, has another size. Of those
    left, the values of one shape are paired in order, from the last one back, as a shallower
    student lacks some.
    """
    theirs, ours = _candidates(teacher), _candidates(student)
    named = [(n, n) for n, shape in ours.items() if n in theirs and _is_alike(theirs[n], shape)]
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    taken = {name for name, _ in named}
    for name, shape in theirs.items():
        if name not in taken:
            by_shape[shape].append(name)
    others = [
        (by_shape[shape].pop(), name)
        for name, shape in reversed(ours.items())
        if name not in taken and by_shape[shape]
    ]
    position = {name: index for index, name in enumerate(ours)}
    return tuple(sorted([*named, *others], key=lambda pair: position[pair[1]]))


def check_pairs(teacher: ir.Model, student: ir.Model, pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """``pairs`` as they are; raises InputError for a value that a model lacks, or other shapes."""
    theirs, ours = _shapes(teacher), _shapes(student)
    for pair in pairs:
        for name, shapes, model in zip(pair, (theirs, ours), ("teacher", "student"), strict=True):
            if name not in shapes:
                raise InputError(
                    f"features {pair[0]}={pair[1]}: the {model} has no value {name!r}."
                )
        old, new = theirs[pair[0]], ours[pair[1]]
        if old is not None and new is not None and not _is_alike(old, new):
            raise InputError(
                f"features {pair[0]}={pair[1]}: have the shapes {list(old)} and {list(new)}; "
                "choose values of one shape but for the channels."
            )
    return tuple(pairs)


def _is_alike(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether one axis behind the first has another size at most."""
    if len(old) != len(new) or old[:1] != new[:1]:
        return False
    return sum(a != b for a, b in zip(old, new, strict=True)) <= 1


def _candidates(model: ir.Model) -> dict[str, tuple[int, ...]]:
    work = _with_shapes(model)
    sums = [_end(node) for node in work.graph if _is_residual(node)]
    found = sums or [n.outputs[0] for n in work.graph if n.op_type in _ACTIVATIONS]
    shapes = {value.name or "": static_shape(value) for value in found}
    outputs = {value.name for value in work.graph.outputs}
    return {n: s for n, s in shapes.items() if s is not None and len(s) > 1 and n not in outputs}


def _is_residual(node: ir.Node) -> bool:
    computed = [v for v in node.inputs if v is not None and constant(v) is None]
    return node.op_type == "Add" and len(computed) == 2


def _end(node: ir.Node) -> ir.Value:
    value = node.outputs[0]
    user = only_consumer(value)
    ends = _ACTIVATIONS | _NORMALISATIONS
    return user.outputs[0] if user is not None and user.op_type in ends else value


def _shapes(model: ir.Model) -> Mapping[str, tuple[int, ...] | None]:
    work = _with_shapes(model)
    return {v.name or "": static_shape(v) for node in work.graph for v in node.outputs}


def _with_shapes(model: ir.Model) -> ir.Model:
    work = model.clone()
    bind_free_dims(work, {})
    return work

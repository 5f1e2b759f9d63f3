"""What must fit before a training begins: two models, samples and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.distill.kinds import CLASSES
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import OutputSpec, input_specs, output_specs


def check_models(teacher: ir.Model, student: ir.Model) -> None:
    """Raise InputError where ``student`` cannot stand for ``teacher``: other inputs or outputs."""
    theirs = {spec.name: spec for spec in output_specs(teacher)}
    ours = {spec.name: spec for spec in output_specs(student)}
    if theirs.keys() != ours.keys():
        raise InputError(
            f"the student's outputs ({_list(ours.values())}) are not those of the teacher "
            f"({_list(theirs.values())}); both must have the same names."
        )
    for name, spec in theirs.items():
        if not _fits(spec, ours[name]):
            raise InputError(
                f"output {name!r} is {_text(ours[name])} of the student, but {_text(spec)} of the "
                "teacher; type and shape must be the same."
            )
    known = {spec.name for spec in input_specs(teacher)}
    for given in input_specs(student):
        if given.name not in known and not given.optional:
            raise InputError(
                f"input {given.name!r} of the student is none of the teacher "
                f"(inputs: {', '.join(known)})."
            )
        if given.dtype.kind == "O":
            raise UnsupportedModelError(
                f"input {given.name!r} takes texts, through which nothing can be trained; take the "
                "part of the model behind its tokeniser."
            )


def check_samples(samples: Mapping[str, Array], labels: Array | None, fixed: int | None) -> int:
    """The number of samples; ``fixed`` is what a model takes at once.

    Raises InputError where there are too few, where inputs have different numbers of them, and
    where there are not as many labels.
    """
    lengths = {name: len(array) for name, array in samples.items()}
    if not lengths or min(lengths.values()) == 0:
        raise InputError("there are no samples to train on.")
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InputError(f"inputs have different numbers of samples ({text}).")
    count = min(lengths.values())
    if labels is not None and len(labels) != count:
        raise InputError(f"there are {len(labels)} labels for {count} samples; give one a sample.")
    if count < 2 * (fixed or 1):
        raise InputError(
            f"the samples given are {count}: too few to train on some and judge by others; give "
            f"at least {2 * (fixed or 1)}, and better thousands."
        )
    return count


def check_mixing(samples: Mapping[str, Array], mixing: float) -> None:
    """Raise InputError where nothing that ``samples`` hold can be mixed."""
    if mixing and not any(array.dtype.kind == "f" for array in samples.values()):
        raise InputError(
            f"mixing {mixing:g}: the model takes no input of floating point; set it to 0."
        )


def labelled_output(model: ir.Model, kinds: Mapping[str, str], labels: Array | None) -> str | None:
    """The output of ``model`` that ``labels`` are the classes of; None without labels.

    Raises InputError where no output, or more than one, holds classes, or too few of them.
    """
    if labels is None:
        return None
    shapes = {spec.name: spec.shape for spec in output_specs(model)}
    of_classes = [
        name for name, kind in kinds.items() if kind in CLASSES and len(shapes[name]) == 2
    ]
    if len(of_classes) != 1:
        found = ", ".join(of_classes) or "none"
        raise InputError(
            f"labels need one output of classes [samples, classes], but the model has {found}; "
            "leave the labels out, or say which it is (--loss OUTPUT=logits)."
        )
    classes = shapes[of_classes[0]][1]
    if labels.min(initial=0) < 0 or (classes is not None and labels.max(initial=0) >= classes):
        raise InputError(
            f"labels go from {labels.min()} to {labels.max()}, but output {of_classes[0]!r} has "
            f"{classes} classes, counted from 0."
        )
    return of_classes[0]


def _fits(theirs: OutputSpec, ours: OutputSpec) -> bool:
    pairs = zip(theirs.shape, ours.shape, strict=False)
    same = all(a is None or b is None or a == b for a, b in list(pairs)[1:])
    return theirs.dtype == ours.dtype and len(theirs.shape) == len(ours.shape) and same


def _text(spec: OutputSpec) -> str:
    return f"{spec.dtype}[{', '.join('?' if n is None else str(n) for n in spec.shape)}]"


def _list(specs: Iterable[OutputSpec]) -> str:
    return ", ".join(f"{spec.name} {_text(spec)}" for spec in specs)

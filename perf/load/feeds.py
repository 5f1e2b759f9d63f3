"""The inputs of requests: cut from samples, or made up where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trimton.core.errors import InputError
from trimton.perf.targets.tensors import Array, TensorSpec

Feed = dict[str, Array]


def resolve_batch(specs: Sequence[TensorSpec], batch: int | None) -> int:
    """The number of samples in a request: ``batch``, or what the model's fixed shapes ask for.

    Without ``batch`` it is 1 where the first axis of an input is free. Raises InputError for a
    batch that the model does not take.
    """
    if batch is not None and batch < 1:
        raise InputError(f"the batch size must be at least 1, not {batch}.")
    sizes = [spec.shape[0] for spec in specs if spec.shape]
    if not sizes or None in sizes:
        return batch or 1
    fixed = sizes[0] or 1
    if batch not in (None, fixed):
        raise InputError(
            f"the model takes exactly {fixed} samples in a request ({specs[0].name!r} has the "
            f"fixed first dimension {fixed}), not {batch}; leave the batch size out."
        )
    return fixed


def feeds_from_samples(inputs: Mapping[str, Array], batch: int) -> list[Feed]:
    """``inputs`` (first axis = samples) cut into whole batches.

    Samples left over at the end are not used; fewer samples than one batch are repeated.
    """
    count = min((len(array) for array in inputs.values()), default=0)
    if count == 0:
        raise InputError("there is no sample to build a request from.")
    if count < batch:
        rows = np.arange(batch) % count
        return [{name: array[rows] for name, array in inputs.items()}]
    return [
        {name: array[start : start + batch] for name, array in inputs.items()}
        for start in range(0, count - batch + 1, batch)
    ]


def random_feeds(
    specs: Sequence[TensorSpec],
    *,
    batch: int,
    count: int,
    seed: int,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> list[Feed]:
    """``count`` requests of random values for every input that is not optional.

    ``shapes`` gives the dimensions after the first of inputs where these are free. A fixed first
    dimension stays as it is. Real numbers are standard normal; integers are 0 or 1, which is
    valid for token identifiers, masks and flags alike; strings are digits.

    Raises InputError for a free dimension without a shape, and for a shape that does not fit.
    """
    generator = np.random.default_rng(seed)
    full = full_shapes(specs, batch, shapes)
    return [
        {
            spec.name: _values(generator, spec, full[spec.name])
            for spec in specs
            if spec.name in full
        }
        for _ in range(count)
    ]


def zero_feed(
    specs: Sequence[TensorSpec], *, batch: int, shapes: Mapping[str, Sequence[int]] | None = None
) -> Feed:
    """One request of zeros (empty strings) for every input that is not optional.

    Shapes and errors as for ``random_feeds``.
    """
    full = full_shapes(specs, batch, shapes)
    return {
        spec.name: np.full(full[spec.name], "" if spec.dtype.kind == "O" else 0, spec.dtype)
        for spec in specs
        if spec.name in full
    }


def full_shapes(
    specs: Sequence[TensorSpec], batch: int, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, tuple[int, ...]]:
    """The whole shape of every input that is not optional; see ``random_feeds``."""
    given = dict(shapes or {})
    unknown = given.keys() - {spec.name for spec in specs}
    if unknown:
        raise InputError(
            f"shape: the model has no input {min(unknown)!r} "
            f"(inputs: {', '.join(spec.name for spec in specs)})."
        )
    return {
        spec.name: _full_shape(spec, batch, given.get(spec.name))
        for spec in specs
        if not spec.optional
    }


def _full_shape(spec: TensorSpec, batch: int, given: Sequence[int] | None) -> tuple[int, ...]:
    if not spec.shape:
        return ()
    rest = spec.shape[1:]
    text = f"[{', '.join('N' if n is None else str(n) for n in spec.shape)}]"
    if given is not None:
        fits = len(given) == len(rest) and all(
            have > 0 and want in (None, have) for want, have in zip(rest, given, strict=True)
        )
        if not fits:
            raise InputError(
                f"shape {spec.name}:{','.join(map(str, given))} does not fit the input's {text}; "
                "give each dimension after the first."
            )
        rest = tuple(given)
    known = tuple(n for n in rest if n is not None)
    if len(known) < len(rest):
        example = ",".join("64" if n is None else str(n) for n in rest)
        raise InputError(
            f"input {spec.name!r} has free dimensions {text}; give them with "
            f"--shape {spec.name}:{example} (your values), or give --data."
        )
    return (batch if spec.shape[0] is None else spec.shape[0], *known)


def _values(generator: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    kind = spec.dtype.kind
    if kind == "f":
        return np.asarray(generator.standard_normal(shape), spec.dtype)
    values = generator.integers(0, 2, shape)
    if kind == "O":
        return np.asarray(np.vectorize(str)(values), dtype=object)
    return np.asarray(values, spec.dtype)

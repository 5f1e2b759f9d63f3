"""What a user's augmentation is, and how it is known by what it does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from trimton.core.errors import InputError
from trimton.transforms.graph.edit import Array

# Takes a batch (arrays by input name, first axis = samples) and the source of chance to use,
# and gives a batch of the same names, lengths and types.
Augmentation = Callable[[Mapping[str, Array], np.random.Generator], Mapping[str, Array]]

# What a function of a user's may raise, other than for the machine.
_ERRORS_OF_USERS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def augmented(
    inputs: Mapping[str, Array], augmentation: Augmentation, rng: np.random.Generator
) -> dict[str, Array]:
    """``inputs`` as ``augmentation`` changes them; raises InputError where they do not fit then."""
    try:
        changed = augmentation({name: array.copy() for name, array in inputs.items()}, rng)
    except _ERRORS_OF_USERS as error:
        raise InputError(f"the augmentation fails: {type(error).__name__}: {error}.") from error
    if not isinstance(changed, Mapping) or set(changed) != set(inputs):
        raise InputError(
            f"the augmentation must give arrays named {', '.join(inputs)}, as it was given."
        )
    result = {name: np.asarray(changed[name]) for name in inputs}
    for name, old in inputs.items():
        new = result[name]
        if new.shape != old.shape or new.dtype != old.dtype:
            raise InputError(
                f"the augmentation makes {name!r} {new.dtype} {new.shape} of {old.dtype} "
                f"{old.shape}; type and shape must stay."
            )
        if new.dtype.kind == "f" and not np.isfinite(new).all():
            raise InputError(f"the augmentation puts NaN or Inf into {name!r}.")
    return result


def inputs_digest(inputs: Mapping[str, Array], labels: Array | None = None) -> str:
    """SHA-256 of names, types, shapes and contents, as 64 hexadecimal digits."""
    state = hashlib.sha256()
    arrays = dict(inputs) if labels is None else {**inputs, "": labels}
    for name in sorted(arrays):
        array = arrays[name]
        state.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        is_text = array.dtype.kind == "O"
        state.update(repr(array.tolist()).encode() if is_text else np.ascontiguousarray(array).data)
    return state.hexdigest()

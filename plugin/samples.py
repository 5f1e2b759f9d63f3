"""Sample files: the inputs (and labels) that calibrate, check and load a model.

A sample file is an ``.npz`` whose arrays are named as the model's inputs, first axis =
samples, with an optional integer array ``labels``. An array stored in a smaller integer
type may be packed as the CF conventions describe: beside ``x`` stand the scalars
``x.scale_factor`` and ``x.add_offset``, and the value is ``x * scale_factor + add_offset``
in float32. ``package.module:function`` or ``file.py:function`` names a function that yields
dictionaries of arrays (one dictionary = one batch) instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from trimton.core.errors import InputError
from trimton.transforms.graph.inputs import InputSpec

Array = npt.NDArray[Any]
LABELS = "labels"
_PACKING = (".scale_factor", ".add_offset")


@dataclass(frozen=True)
class Samples:
    """Arrays by input name, first axis = samples, all of one length; labels int64 [N] or None."""

    source: str
    inputs: Mapping[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def first(self, count: int) -> Samples:
        """The first ``count`` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return Samples(self.source, {k: v[:count] for k, v in self.inputs.items()}, labels)


def load_samples(source: str | Path, specs: Sequence[InputSpec]) -> Samples:
    """Read ``source`` (an ``.npz`` or ``package.module:function``) and check it against ``specs``.

    Raises InputError, naming the file, the array and the mend, for a missing or unreadable
    file, a missing input, a wrong shape or type, NaN or Inf, or a wrong number of labels.
    """
    text = str(source)
    is_function = ":" in text and not text.endswith(".npz")
    arrays = _call(text) if is_function else _read(Path(source))
    return check_samples(text, arrays, specs)


def first_available(sources: Sequence[str], specs: Sequence[InputSpec]) -> Samples:
    """The samples of the first source whose data is there; the last one must be."""
    for source in sources[:-1]:
        try:
            return load_samples(source, specs)
        except DataNotInstalledError:
            continue
    return load_samples(sources[-1], specs)


def resolve_source(source: str, folder: Path) -> str:
    """``source`` with its file relative to ``folder``; PACKAGE.MODULE:FUNCTION stays as it is."""
    path, colon, function = source.rpartition(":")
    if colon and not source.endswith(".npz"):
        return f"{folder / path}:{function}" if path.endswith(".py") else source
    return str(folder / source)


class DataNotInstalledError(InputError):
    """A data function says that what it reads is not installed on this machine."""


def check_samples(source: str, arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> Samples:
    """Unpack ``arrays`` and check them against ``specs``; see load_samples for the errors."""
    known = {spec.name for spec in specs}
    inputs: dict[str, Array] = {}
    for spec in specs:
        if spec.name not in arrays:
            if spec.optional:
                continue
            have = ", ".join(sorted(n for n in arrays if not n.endswith(_PACKING))) or "none"
            raise InputError(
                f"{source}: has no array {spec.name!r}, which the model takes as input "
                f"(arrays in the file: {have})."
            )
        inputs[spec.name] = _unpack(source, spec, arrays)
    for name in arrays:
        if name not in known and name != LABELS and not name.endswith(_PACKING):
            raise InputError(
                f"{source}: array {name!r} is no input of the model "
                f"(inputs: {', '.join(sorted(known))}); rename or remove it."
            )
    if not inputs:
        raise InputError(f"{source}: holds no array for any input of the model.")
    lengths = {name: len(array) for name, array in inputs.items()}
    count = min(lengths.values())
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InputError(f"{source}: inputs have different numbers of samples ({text}).")
    if count == 0:
        raise InputError(f"{source}: holds no samples.")
    return Samples(source, inputs, _labels(source, arrays, count))


def _labels(source: str, arrays: Mapping[str, Array], count: int) -> Array | None:
    if LABELS not in arrays:
        return None
    labels = arrays[LABELS]
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise InputError(
            f"{source}: labels must be integers of shape ({count},), one a sample, "
            f"but are {labels.dtype} of shape {labels.shape}."
        )
    return labels.astype(np.int64)


def _unpack(source: str, spec: InputSpec, arrays: Mapping[str, Array]) -> Array:
    array = arrays[spec.name]
    scale_name, offset_name = (spec.name + suffix for suffix in _PACKING)
    if scale_name in arrays or offset_name in arrays:
        scale = np.float32(arrays.get(scale_name, np.float32(1)))
        offset = np.float32(arrays.get(offset_name, np.float32(0)))
        array = array.astype(np.float32) * scale + offset
    want = ["N" if n is None else str(n) for n in spec.shape]
    fits = array.ndim == len(spec.shape) and all(
        axis == 0 or n is None or n == have
        for axis, (n, have) in enumerate(zip(spec.shape, array.shape, strict=False))
    )
    if array.ndim == 0 or not fits:
        raise InputError(
            f"{source}: array {spec.name!r} has shape {array.shape}, but the model takes "
            f"[{', '.join(want)}]."
        )
    if array.dtype != spec.dtype:
        same_kind = array.dtype.kind == spec.dtype.kind and array.dtype.kind in "fiu"
        if spec.dtype.kind == "O" and array.dtype.kind in "SUO":
            array = array.astype(object)
        elif same_kind:
            array = _cast(source, spec, array)
        else:
            raise InputError(
                f"{source}: array {spec.name!r} is {array.dtype}, but the model takes "
                f"{spec.dtype}; store that type, or pack it with {scale_name!r}."
            )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
        raise InputError(f"{source}: array {spec.name!r} holds NaN or Inf (first in sample {bad}).")
    return np.ascontiguousarray(array)


def _cast(source: str, spec: InputSpec, array: Array) -> Array:
    cast_array = array.astype(spec.dtype)
    if array.dtype.kind in "iu" and not np.array_equal(cast_array, array):
        raise InputError(
            f"{source}: array {spec.name!r} is {array.dtype} and holds values that do not fit "
            f"the model's {spec.dtype}."
        )
    return cast_array


def _read(path: Path) -> dict[str, Array]:
    if not path.exists():
        raise InputError(f"{path}: no such file; give an .npz with one array for each input.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give an .npz with one array for each input.")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: is a single array; give an .npz (numpy.savez).")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read as .npz; write it with numpy.savez, without object arrays."
        ) from error


def _call(source: str) -> dict[str, Array]:
    function = import_function(source)
    try:
        batches = function()
        if not isinstance(batches, Iterable):
            raise InputError(f"{source}: must yield dictionaries of arrays.")
        parts: dict[str, list[Array]] = {}
        for batch in batches:
            if not isinstance(batch, Mapping):
                raise InputError(f"{source}: must yield dictionaries of arrays, not {type(batch)}.")
            for name, value in batch.items():
                parts.setdefault(str(name), []).append(np.asarray(value))
        return {name: np.concatenate(values) for name, values in parts.items()}
    except FileNotFoundError as error:
        raise DataNotInstalledError(f"{source}: its data is not there ({error}).") from error
    except ValueError as error:
        raise InputError(f"{source}: its batches do not fit together ({error}).") from error


def import_function(source: str) -> Callable[..., object]:
    """The function that ``source`` (PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION) names.

    Raises InputError where there is none.
    """
    module_name, _, function_name = source.rpartition(":")
    try:
        if module_name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
            if spec is None or spec.loader is None:
                raise ImportError("no Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(module_name)
        function = getattr(module, function_name)
    except (ImportError, AttributeError, ValueError, SyntaxError, FileNotFoundError) as error:
        raise InputError(
            f"{source}: cannot be imported ({error}); give PACKAGE.MODULE:FUNCTION or "
            "FILE.py:FUNCTION, or for samples an .npz file."
        ) from error
    if not callable(function):
        raise InputError(f"{source}: is no function.")
    return cast(Callable[..., object], function)

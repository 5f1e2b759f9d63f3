"""Requests and answers that a run recorded of a variant, to ask a server for the same again."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimton.core.errors import InputError
from trimton.core.files import replacing
from trimton.perf.targets.tensors import Array

SAMPLES_MAX = 64
BYTES_MAX = 32 << 20
_INPUT, _OUTPUT = "input/", "output/"


@dataclass(frozen=True)
class Recorded:
    """Inputs and the variant's outputs for them by name; the first axis of all is the samples.

    ``max_batch_size`` is that of the configuration they were recorded under, None where unknown.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    max_batch_size: int | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def part(self, start: int, end: int) -> Recorded:
        """Samples ``start`` to ``end``."""
        inputs = {name: array[start:end] for name, array in self.inputs.items()}
        return Recorded(inputs, {name: array[start:end] for name, array in self.outputs.items()})


def write_recorded(path: Path, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Write the first samples: SAMPLES_MAX of them, or as many as BYTES_MAX hold."""
    arrays = {_INPUT + name: array for name, array in inputs.items()}
    arrays |= {_OUTPUT + name: array for name, array in outputs.items()}
    samples = min(len(array) for array in arrays.values())
    sample_bytes = sum(array.nbytes for array in arrays.values()) / max(samples, 1)
    count = max(1, min(SAMPLES_MAX, samples, int(BYTES_MAX / max(sample_bytes, 1))))
    first = {name: array[:count] for name, array in arrays.items()}
    # Strings are arrays of objects, which only pickle would keep; as text they need none.
    plain = {n: as_text(a) if a.dtype == object else a for n, a in first.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, np.array(list(plain), dtype=str), *plain.values())


def as_text(strings: Array) -> Array:
    """An array of objects, text or UTF-8 bytes, as an array of text."""
    texts = [s.decode("utf-8", "replace") if isinstance(s, bytes) else str(s) for s in strings.flat]
    return np.array(texts, dtype=str).reshape(strings.shape)


def read_recorded(path: Path) -> Recorded:
    """What write_recorded wrote; InputError where it is not there or not whole."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [str(name) for name in archive["arr_0"]]
            arrays = {name: archive[f"arr_{number}"] for number, name in enumerate(names, 1)}
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; run the recipe again to record requests.") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: holds no recorded requests ({error}).") from error
    arrays = {n: a.astype(object) if a.dtype.kind == "U" else a for n, a in arrays.items()}
    inputs, outputs = (
        {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
        for kind in (_INPUT, _OUTPUT)
    )
    lengths = {array.shape[:1] for array in arrays.values()}
    if not inputs or not outputs or len(lengths) != 1 or lengths in ({()}, {(0,)}):
        raise InputError(f"{path}: holds no recorded requests; run the recipe again.")
    return Recorded(inputs, outputs)

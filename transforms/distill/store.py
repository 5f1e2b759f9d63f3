"""Arrays on disk that are written once, part by part, and read as if they were in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from trimton.core.files import replacing_folder
from trimton.transforms.graph.edit import Array

_INDEX = "arrays.json"


def write_stored(
    folder: Path,
    parts: Iterable[Mapping[str, Array]],
    count: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write ``parts`` (arrays by name, first axis = samples, ``count`` in all) to ``folder``.

    ``folder`` is there complete or not at all. ``progress`` hears how many samples of how many
    are written. Plain writes, no mapped ones: a full disk is an error then, not a signal.
    Raises InputError or InfrastructureError where the disk refuses.
    """
    with replacing_folder(folder) as temporary:
        files: dict[str, IO[bytes]] = {}
        done = 0
        try:
            for part in parts:
                for name, array in part.items():
                    if name not in files:
                        files[name] = (temporary / f"{len(files)}.npy").open("wb")
                        _write_header(files[name], array, count)
                    files[name].write(np.ascontiguousarray(array).data)
                done += len(next(iter(part.values())))
                progress(done, count)
        finally:
            for file in files.values():
                file.close()
        (temporary / _INDEX).write_text(json.dumps(list(files)), encoding="utf-8")


def open_stored(folder: Path) -> dict[str, Array] | None:
    """The arrays in ``folder`` by name, mapped into memory; None where there are none."""
    index = folder / _INDEX
    if not index.exists():
        return None
    names = json.loads(index.read_text(encoding="utf-8"))
    return {
        name: np.load(folder / f"{number}.npy", mmap_mode="r") for number, name in enumerate(names)
    }


def _write_header(file: IO[bytes], array: Array, count: int) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": (count, *array.shape[1:]),
    }
    np.lib.format.write_array_header_2_0(file, header)

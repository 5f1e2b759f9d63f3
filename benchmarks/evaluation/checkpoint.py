"""Reads the tensors of a PyTorch checkpoint of the format before 1.6, without PyTorch.

Such a file is a row of pickles: a magic number, a version, facts about the machine, the object,
the keys of its storages; then each storage as an int64 count and its bytes. Source:
``_legacy_load`` in torch/serialization.py. Nothing but the names below can be unpickled.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {"FloatStorage": np.dtype(np.float32), "LongStorage": np.dtype(np.int64)}


@dataclass(frozen=True)
class _View:
    """A tensor before the numbers of its storage are read; strides count elements."""

    storage: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, storages: dict[str, bytes]) -> Array:
        flat = np.frombuffer(storages[self.storage], self.dtype)[self.offset :]
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides).copy()


def read_checkpoint(path: Path) -> dict[str, Array]:
    """The tensors of a state dictionary by name.

    Raises ValueError for a file of another format, UnpicklingError for other objects in it.
    """
    sizes: dict[str, np.dtype[Any]] = {}
    with path.open("rb") as file:
        if _load(file, sizes) != _MAGIC:
            raise ValueError(f"{path}: no PyTorch checkpoint of the old format")
        _version, _machine = _load(file, sizes), _load(file, sizes)
        views: dict[str, _View] = _load(file, sizes)
        storages: dict[str, bytes] = {}
        for key in _load(file, sizes):
            count = int.from_bytes(file.read(8), "little")
            storages[key] = file.read(count * sizes[key].itemsize)
    return {name: view.of(storages) for name, view in views.items()}


def _load(file: BinaryIO, sizes: dict[str, np.dtype[Any]]) -> Any:
    return _Unpickler(file, sizes).load()


class _Unpickler(pickle.Unpickler):
    """Makes views of storages; ``sizes`` collects the element type of each storage."""

    def __init__(self, file: BinaryIO, sizes: dict[str, np.dtype[Any]]) -> None:
        super().__init__(_Unbuffered(file), encoding="utf-8")
        self._sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            **{("torch", storage): dtype for storage, dtype in _STORAGES.items()},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")
        return known[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        _kind, dtype, key = pid[:3]
        self._sizes[key] = dtype
        return key, dtype


class _Unbuffered(io.RawIOBase):
    """Keeps the unpickler from reading ahead: what follows a pickle is not its business."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readline(self, size: int | None = -1) -> bytes:
        return self._file.readline(-1 if size is None else size)


def _view(
    storage: tuple[str, np.dtype[Any]],
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],
    *_rest: object,
) -> _View:
    key, dtype = storage
    return _View(key, dtype, offset, tuple(shape), tuple(strides))

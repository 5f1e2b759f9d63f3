"""Files for magika, which names the type of a file: labelled by their suffix.

The files are those of the packages that the other evaluations read, of Python's standard library
and of the packages installed beside Trimton. Features as in the package: the first 1,024 bytes
without leading white space, the last 1,024 without trailing; 256 where there are none.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from real_models import PACKAGES, install

from evaluation.packages import cached, debian_files

Array = npt.NDArray[Any]

CALIBRATION, TEST = 128, 1024
_ENDS, _BLOCK, _PADDING, _LEAST = 1024, 4096, 256, 16
_MOST_PER_TYPE = 60
_PACKAGES = (
    *("asterisk-core-sounds-en-wav", "fonts-liberation", "mate-backgrounds", "opencv-doc"),
    "tuxpaint-stamps-default",
)
# Suffix -> magika's label; only those that mean one thing.
_LABELS = {
    ".c": "c",
    ".cfg": "ini",
    ".cpp": "cpp",
    ".css": "css",
    ".csv": "csv",
    ".gif": "gif",
    ".gz": "gzip",
    ".html": "html",
    ".ini": "ini",
    ".jpg": "jpeg",
    ".js": "javascript",
    ".json": "json",
    ".md": "markdown",
    ".npy": "npy",
    ".npz": "npz",
    ".ogg": "ogg",
    ".pdf": "pdf",
    ".png": "png",
    ".py": "python",
    ".pyc": "pythonbytecode",
    ".rst": "rst",
    ".sh": "shell",
    ".so": "elf",
    ".svg": "svg",
    ".toml": "toml",
    ".ttf": "ttf",
    ".wav": "wav",
    ".xml": "xml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".zip": "zip",
}


def files(config: Path) -> dict[str, Array]:
    """``calibration``, ``test``: int32 [count, 2048]; ``test_labels`` by ``config``'s order."""
    return cached("files-2", lambda: _read(config))


def _read(config: Path) -> Mapping[str, Array]:
    names: list[str] = json.loads(config.read_text())["target_labels_space"]
    found: dict[str, list[Path]] = {}
    for path in _paths():
        found.setdefault(_LABELS[path.suffix], []).append(path)
    rng = np.random.default_rng(0)
    chosen: list[tuple[Path, int]] = []
    for label, paths in sorted(found.items()):
        picked = rng.permutation(len(paths))[:_MOST_PER_TYPE]
        chosen += [(paths[i], names.index(label)) for i in picked]
    rng.shuffle(chosen)
    chosen = chosen[: CALIBRATION + TEST]
    features = np.stack([features_of(path.read_bytes()) for path, _ in chosen])
    labels = np.array([label for _, label in chosen])
    return {
        "calibration": features[:CALIBRATION],
        "test": features[CALIBRATION:],
        "test_labels": labels[CALIBRATION:],
    }


def features_of(content: bytes) -> Array:
    """The model's input for one file: int32 [2048]."""
    start = np.frombuffer(content[:_BLOCK].lstrip()[:_ENDS], np.uint8)
    end = np.frombuffer(content[-_BLOCK:].rstrip()[-_ENDS:], np.uint8)
    features = np.full(2 * _ENDS, _PADDING, np.int32)
    features[: len(start)] = start
    features[2 * _ENDS - len(end) :] = end
    return features


def _paths() -> Iterator[Path]:
    folders = [
        *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")),
        *(debian_files(name) for name in _PACKAGES),
        *(install(requirement) for requirement in PACKAGES),
    ]
    for folder in folders:
        for parent, _, names in sorted(os.walk(folder)):
            for path in (Path(parent) / name for name in sorted(names)):
                if path.suffix in _LABELS and path.is_file() and path.stat().st_size >= _LEAST:
                    yield path

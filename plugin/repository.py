"""A Triton model repository on disk: models, versions, ``config.pbtxt``, digests.

Layout: ``<repository>/<model>/[config.pbtxt]/<version>/model.onnx``; a model with external data
is a folder ``model.onnx/`` that holds ``model.onnx`` and its data files. The configuration is
read and written through Triton's protobuf, never by hand.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from trimton.core.errors import InputError
from trimton.core.files import write_text

CONFIG_NAME = "config.pbtxt"
DEFAULT_MODEL_FILENAME = "model.onnx"
CONFIG_BYTES_MAX = 4 * 1024 * 1024

ModelConfig = Any  # inference.ModelConfig: the generated protobuf module has no type hints


@dataclass(frozen=True)
class RepositoryModel:
    """One model folder. ``config`` is None without a ``config.pbtxt``; ``versions`` ascend."""

    name: str
    folder: Path
    config: ModelConfig | None
    versions: tuple[int, ...]

    def latest(self) -> int:
        """The highest version number."""
        return self.versions[-1]

    @property
    def filename(self) -> str:
        """The name of the model's file in each version."""
        configured = "" if self.config is None else str(self.config.default_model_filename)
        return configured or DEFAULT_MODEL_FILENAME

    def version_digest(self, version: int) -> str:
        """path_digest of a version as a run has it: the model's file called ``model.onnx``."""
        return path_digest(self.folder / str(version), {self.filename: DEFAULT_MODEL_FILENAME})

    def model_file(self, version: int | None = None) -> Path:
        """The ONNX file (or folder with external data) of ``version``, the latest by default."""
        chosen = self.latest() if version is None else version
        if chosen not in self.versions:
            have = ", ".join(str(v) for v in self.versions)
            raise InputError(f"{self.folder}: has no version {chosen} (versions: {have}).")
        if self.config is not None and self.config.ensemble_scheduling.step:
            parts = dict.fromkeys(step.model_name for step in self.config.ensemble_scheduling.step)
            raise InputError(
                f"{self.folder}: is an ensemble, which has no weights; choose one of its models "
                f"({', '.join(parts)})."
            )
        path = self.folder / str(chosen) / self.filename
        if not path.exists():
            raise InputError(f"{path}: no such file, though version {chosen} should hold it.")
        return path


@dataclass(frozen=True)
class Repository:
    """A folder of models; see open_repository."""

    path: Path

    def names(self) -> tuple[str, ...]:
        """Names of the folders that look like models (a configuration or a version), sorted."""
        with os.scandir(self.path) as entries:
            return tuple(sorted(e.name for e in entries if e.is_dir() and _is_model(e.path)))

    def model(self, name: str) -> RepositoryModel:
        """The model called ``name``.

        Raises InputError for a name that is no plain folder name, for an unknown model, and for
        a model without versions or with an unreadable configuration.
        """
        check_model_name(name)
        folder = self.path / name
        if not folder.is_dir():
            have = ", ".join(self.names()) or "none"
            raise InputError(f"{self.path}: has no model {name!r} (models: {have}).")
        if self.path.resolve() not in folder.resolve().parents:
            raise InputError(f"{folder}: is a link out of the repository; copy the model into it.")
        versions = _versions(folder)
        if not versions:
            raise InputError(f"{folder}: has no version; put the model at {folder}/1/model.onnx.")
        config_path = folder / CONFIG_NAME
        config = read_config(config_path) if config_path.exists() else None
        return RepositoryModel(name, folder, config, versions)

    def models(self) -> Iterator[RepositoryModel]:
        """Every model of names()."""
        for name in self.names():
            yield self.model(name)


def open_repository(path: Path) -> Repository:
    """The repository at ``path``; InputError if it is missing, no folder, or without models."""
    if not path.exists():
        raise InputError(f"{path}: no such model repository.")
    if not path.is_dir():
        raise InputError(f"{path}: is a file; a model repository is a folder of model folders.")
    repository = Repository(path)
    if not repository.names():
        raise InputError(
            f"{path}: holds no models; a model is a folder with {CONFIG_NAME} and 1/model.onnx."
        )
    return repository


def check_model_name(name: str) -> str:
    """``name`` itself if it is a plain folder name, else InputError."""
    if not name or name in (".", "..") or any(c in name for c in "/\\\0") or name.startswith("."):
        raise InputError(f"model name {name!r} is not allowed; use the name of a model's folder.")
    return name


def read_config(path: Path) -> ModelConfig:
    """Parse a ``config.pbtxt``; InputError names the line that is wrong."""
    return parse_config(read_config_text(path), path)


def parse_config(text: str, path: Path) -> ModelConfig:
    """The configuration in ``text``, which is or will be that of ``path``; see read_config."""
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        line, column = error.GetLine() or 1, error.GetColumn() or 1
        reason = str(error).split(" : ", 1)[-1].strip()
        raise InputError(f"{path}: line {line}, column {column}: {reason}") from error
    return config


def read_config_text(path: Path) -> str:
    """The text of a ``config.pbtxt``; InputError for what is no plain file of sensible size."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: is no plain file.")
        with path.open("rb") as stream:
            data = stream.read(CONFIG_BYTES_MAX + 1)
        if len(data) > CONFIG_BYTES_MAX:
            raise InputError(f"{path}: is over {CONFIG_BYTES_MAX} bytes; this is no configuration.")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason}).") from error


def config_digest(config: ModelConfig | None) -> str:
    """SHA-256 of what a configuration says besides its version policy; "" where there is none."""
    if config is None:
        return ""
    copy = type(config)()
    copy.CopyFrom(config)
    copy.ClearField("version_policy")
    return f"sha256:{hashlib.sha256(text_format.MessageToString(copy).encode()).hexdigest()}"


def write_config(path: Path, config: ModelConfig) -> None:
    """Write ``config`` as protobuf text, atomically."""
    write_text(path, text_format.MessageToString(config))


def config_from_json(document: dict[str, Any]) -> ModelConfig:
    """The configuration that a server returns from ``GET /v2/models/M/config``."""
    return json_format.ParseDict(
        document, model_config_pb2.ModelConfig(), ignore_unknown_fields=True
    )


def path_digest(path: Path, renamed: Mapping[str, str] = MappingProxyType({})) -> str:
    """SHA-256 of a file's bytes; of a folder: of its files' relative names and digests, sorted.

    ``renamed``: first parts of names in the folder that count as others.
    """
    if path.is_file():
        return f"sha256:{_file_digest(path)}"
    digests = {}
    for file in (p for p in path.rglob("*") if p.is_file()):
        first, *rest = file.relative_to(path).parts
        digests[PurePath(renamed.get(first, first), *rest)] = _file_digest(file)
    total = hashlib.sha256()
    for name in sorted(digests):
        total.update(f"{digests[name]}  {name}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _versions(folder: str | Path) -> tuple[int, ...]:
    """The version folders. As in Triton, a number with a leading zero is none."""
    with os.scandir(folder) as entries:
        return tuple(sorted(int(e.name) for e in entries if _is_number(e.name) and e.is_dir()))


def _is_model(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, CONFIG_NAME)) or bool(_versions(folder))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")

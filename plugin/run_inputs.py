"""What a run starts from: the recipe's model, configuration and samples, read and checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimton.plugin.recipe import Recipe
from trimton.plugin.repository import CONFIG_NAME, RepositoryModel, open_repository, path_digest
from trimton.plugin.samples import Samples, first_available, resolve_source
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model


@dataclass(frozen=True)
class RunInputs:
    """The checked inputs of a run; ``file`` is the baseline's, ``folder`` that of the recipe."""

    recipe: Recipe
    source: RepositoryModel
    file: Path
    model: ir.Model
    calibration: Samples | None
    training: Samples | None
    evaluation: Samples
    folder: Path

    def digests(self) -> dict[str, str]:
        """The content of everything that decides the outcome, by name."""
        config = self.source.folder / CONFIG_NAME
        return {
            "model": path_digest(self.file.parent),
            "config": path_digest(config) if config.exists() else "",
            "calibration": "" if self.calibration is None else samples_digest(self.calibration),
            "training": "" if self.training is None else samples_digest(self.training),
            "evaluation": samples_digest(self.evaluation),
        }


def read_inputs(recipe: Recipe, folder: Path) -> RunInputs:
    """Read what ``recipe``, which stands in ``folder``, names.

    Raises InputError for a missing repository, model, version or sample file, and for samples
    that do not fit the model. Writes nothing.
    """
    source = open_repository(folder / recipe.model.repository).model(recipe.model.name)
    file = source.model_file(recipe.model.version)
    model = load_model(file)
    specs = input_specs(model)
    data = recipe.data
    calibration, training = (
        None if given is None else first_available(_sources(given, folder), specs)
        for given in (data.calibration, data.training)
    )
    evaluation = first_available(_sources(data.evaluation, folder), specs)
    if data.evaluation_samples_max is not None:
        evaluation = evaluation.first(data.evaluation_samples_max)
    return RunInputs(recipe, source, file, model, calibration, training, evaluation, folder)


def samples_digest(samples: Samples) -> str:
    """SHA-256 of names, types, shapes and values."""
    total = hashlib.sha256()
    arrays = dict(samples.inputs)
    if samples.labels is not None:
        arrays["labels"] = samples.labels
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        if array.dtype == object:
            total.update("\0".join(map(repr, array.ravel())).encode())
        else:
            total.update(np.ascontiguousarray(array).data)
    return f"sha256:{total.hexdigest()}"


def _sources(given: str | list[str], folder: Path) -> list[str]:
    return [
        resolve_source(source, folder) for source in ([given] if isinstance(given, str) else given)
    ]

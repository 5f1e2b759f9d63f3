"""The staging repository: every variant as a model of its own, under one frozen configuration.

The configuration is the baseline's as the server resolved it, so that a variant cannot lose
batching, types or threads by what its own file says. The repository is valid as it is for any
Triton with the onnxruntime backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trimton.core.files import copy_folder, replacing_folder
from trimton.plugin.repository import CONFIG_NAME, ModelConfig, write_config

# Fields that a server derives, or that belong to the versions of the production model.
_DERIVED_FIELDS = ("default_model_filename", "platform", "version_policy", "model_warmup")


def served_name(model: str, variant: str) -> str:
    """The name under which a variant is served beside the others."""
    return f"{model}.{variant}"


def freeze_config(resolved: ModelConfig) -> ModelConfig:
    """The configuration for every variant, from the server's resolved one for the baseline."""
    frozen = type(resolved)()
    frozen.CopyFrom(resolved)
    frozen.backend = frozen.backend or "onnxruntime"
    for field in _DERIVED_FIELDS:
        frozen.ClearField(field)
    for group in frozen.instance_group:
        group.ClearField("name")  # the server named it after the baseline
    return frozen


def write_staging(
    folder: Path, model: str, variants: Mapping[str, Path], config: ModelConfig
) -> None:
    """Write the repository ``folder`` with one model for each variant (name -> version folder)."""
    with replacing_folder(folder) as temporary:
        for variant, source in variants.items():
            name = served_name(model, variant)
            copy_folder(source, temporary / name / "1")
            own = type(config)()
            own.CopyFrom(config)
            own.name = name
            write_config(temporary / name / CONFIG_NAME, own)

"""One transform of a recipe: its options, what it needs, and how it is applied.

Transforms are imported where they are applied, so that reading a recipe stays quick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trimton.plugin.settings import Settings

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.samples import Samples
    from trimton.transforms.report import TransformReport

    Transformed = tuple[ir.Model, TransformReport]


@dataclass(frozen=True)
class TransformContext:
    """What transforms may use besides the model.

    ``instruction_sets`` are those of this machine's CPU (see trimton.perf.hardware); they decide
    what ``target: auto`` means. ``training`` are the samples to train on, with ``seed``;
    ``recipe_folder`` is what files in steps are relative to, ``work_folder`` where a training
    keeps its state, and ``on_progress`` hears of its steps (done, all). ``original`` is the model
    before the first step, ``unquantised`` the last one without integers.
    """

    calibration: Samples | None
    instruction_sets: tuple[str, ...]
    training: Samples | None = None
    seed: int = 0
    recipe_folder: Path = Path()
    work_folder: Path = Path()
    on_progress: Callable[[int, int], None] = lambda done, steps: None
    original: ir.Model | None = None
    unquantised: ir.Model | None = None

    @property
    def calibration_inputs(self) -> Mapping[str, npt.NDArray[np.generic]] | None:
        """The arrays of the calibration samples, where there are any."""
        return None if self.calibration is None else self.calibration.inputs

    @property
    def required_inputs(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """The same for a step that needs them: a recipe is refused where they are missing."""
        assert self.calibration is not None, "a step that needs calibration comes without"
        return self.calibration.inputs


class Step(Settings, ABC):
    """One transform; ``step``, defined by each kind, is its name in a recipe."""

    if TYPE_CHECKING:
        step: Any

    @property
    def needs_calibration(self) -> bool:
        """Whether it cannot do without calibration samples."""
        return False

    @property
    def needs_training(self) -> bool:
        """Whether it needs samples to train on."""
        return False

    @abstractmethod
    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        """The transformed model and what was done; raises what the transform raises."""

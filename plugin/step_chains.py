"""The transforms of several variants: steps that more than one begins with are done once.

What such steps make is a stage of the run, under a key of its own, so that a killed run does not
repeat it either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from trimton.core.files import replacing_folder
from trimton.plugin.repository import DEFAULT_MODEL_FILENAME, path_digest
from trimton.plugin.stages import Json, StageStore, digest_of
from trimton.plugin.steps import AnyStep
from trimton.plugin.steps.step import TransformContext
from trimton.plugin.variants import apply_steps
from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model

Steps = tuple[AnyStep, ...]


@dataclass(frozen=True)
class StepChains:
    """The steps of each variant of a run, by its name, and what they are applied to.

    ``folder`` keeps what shared steps make. ``key`` gives all that the result of some steps
    depends on, ``context`` what they may use, by the name of the variant.
    """

    model: ir.Model
    steps: Mapping[str, Steps]
    store: StageStore
    folder: Path
    key: Callable[[Steps], Json]
    context: Callable[[str], TransformContext]

    def make(self, name: str) -> tuple[ir.Model, tuple[Json, ...]]:
        """The model of variant ``name``, and the reports of its steps.

        Raises whatever a step raises.
        """
        others = [steps for other, steps in self.steps.items() if other != name]
        return self._make(name, self.steps[name], others)

    def _make(
        self, name: str, steps: Steps, others: Sequence[Steps]
    ) -> tuple[ir.Model, tuple[Json, ...]]:
        shared = shared_length(steps, others)
        model, done = self._shared(name, steps[:shared]) if shared else (self.model, ())
        left = steps[shared:]
        model, reports = apply_steps(model, left, self.context(name), f"variant {name!r}")
        return model, (*done, *(report.to_json() for report in reports))

    def _shared(self, name: str, steps: Steps) -> tuple[ir.Model, tuple[Json, ...]]:
        key = self.key(steps)
        stage = f"shared-{digest_of(key)[:16]}"
        folder = self.folder / stage
        # Those that leave the chain before its end may share an earlier part of it.
        leaving = [other for other in self.steps.values() if other[: len(steps)] != steps]

        def work() -> Json:
            model, reports = self._make(name, steps, leaving)
            with replacing_folder(folder) as temporary:
                save_model(model, temporary / DEFAULT_MODEL_FILENAME)
            return {"digest": path_digest(folder), "transforms": reports}

        result = self.store.run(
            stage,
            key,
            work,
            still_valid=lambda kept: folder.exists() and path_digest(folder) == kept["digest"],
        )
        return load_model(folder / DEFAULT_MODEL_FILENAME), tuple(result["transforms"])


def shared_length(steps: Steps, others: Sequence[Steps]) -> int:
    """How many of ``steps``, from the first on, one of ``others`` begins with as well."""
    common = max((_common(steps, other) for other in others), default=0)
    return min(common, _with_float_model(steps))


def _with_float_model(steps: Steps) -> int:
    """How many of ``steps`` may be done before: tuning needs what its quantising started from."""
    names = [step.step for step in steps]
    return names.index("quantize") if {"quantize", "reconstruct"} <= set(names) else len(steps)


def _common(steps: Steps, other: Steps) -> int:
    is_same = [one == another for one, another in zip(steps, other, strict=False)]
    return (*is_same, False).index(False)

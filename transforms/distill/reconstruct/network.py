"""A quantised network while it is tuned, unit by unit from the input to the output.

What a unit reads comes from the quantised network as it is by then, what it is to give from the
float one: so each also makes up for what is wrong before it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.distill.reconstruct.account import TunedUnit
from trimton.transforms.distill.reconstruct.activations import activation_steps
from trimton.transforms.distill.reconstruct.evidence import Networks, gather
from trimton.transforms.distill.reconstruct.extract import unit_model
from trimton.transforms.distill.reconstruct.float_form import FloatForm
from trimton.transforms.distill.reconstruct.layers import array_of
from trimton.transforms.distill.reconstruct.parameters import (
    LayerParameters,
    StepParameters,
    UnitParameters,
)
from trimton.transforms.distill.reconstruct.settings import ReconstructSettings
from trimton.transforms.distill.reconstruct.tuning import held_out_error, tune
from trimton.transforms.distill.reconstruct.units import Unit
from trimton.transforms.graph.edit import Array
from trimton.transforms.report import Skipped

# Called with how many units of how many are done.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Network:
    """``model`` is tuned in place towards ``form``, on the first ``tuned`` of ``samples``.

    The others judge. ``folder`` holds what one unit reads and is to give.
    """

    model: ir.Model
    form: FloatForm
    samples: Mapping[str, Array]
    tuned: int
    settings: ReconstructSettings
    threads: int
    folder: Path

    def tune(
        self, units: Sequence[Unit], on_progress: Progress
    ) -> tuple[list[TunedUnit], list[Skipped]]:
        """Tune ``units`` in order; what came of each, and those that cannot be tuned and why."""
        made: list[TunedUnit] = []
        failed: list[Skipped] = []
        for number, unit in enumerate(units):
            on_progress(number, len(units))
            try:
                made.append(self._tuned(unit, number))
            except UnsupportedModelError as error:
                failed.append(Skipped(unit.name, str(error)))
        on_progress(len(units), len(units))
        return made, failed

    def _tuned(self, unit: Unit, number: int) -> TunedUnit:
        part = unit_model(self.model, unit)
        folder = self.folder / f"unit-{number}"
        evidence = gather(
            Networks(self.model, self.form.model),
            unit,
            [value.name or "" for value in part.graph.inputs],
            self.samples,
            self.tuned,
            folder,
            threads=self.threads,
            limit_bytes=self.settings.cache_limit_bytes,
        )
        before = held_out_error(part, evidence, self.threads)
        parameters = self._parameters(unit, part)
        tune(part, parameters, evidence, self.settings, number)
        constants = parameters.constants()
        old = {name: array_of(part, name) for name in constants}
        _put(part, constants)
        after = held_out_error(part, evidence, self.threads)
        is_kept = after < before
        if is_kept:
            _put(self.model, constants)
        shutil.rmtree(folder)
        return TunedUnit(
            name=unit.name,
            layers=tuple(layer.node for layer in unit.layers),
            before=before,
            after=after,
            is_kept=is_kept,
            turned=_turned(unit, old, constants),
            moved=parameters.moved(),
            samples=evidence.tuned,
        )

    def _parameters(self, unit: Unit, part: ir.Model) -> UnitParameters:
        learn_steps = self.settings.learn_steps
        nodes = {node.name: node for node in part.graph}
        layers = [
            LayerParameters(
                part,
                nodes[layer.node],
                layer,
                self.form.weights[layer.node],
                learn_steps=learn_steps,
            )
            for layer in unit.layers
        ]
        steps = activation_steps(self.model, part, unit.layers) if learn_steps else ()
        return UnitParameters(layers, [StepParameters(step) for step in steps])


def _put(model: ir.Model, constants: Mapping[str, Array]) -> None:
    """Replace constants by name; their types and shapes stay."""
    for name, array in constants.items():
        value = model.graph.initializers[name]
        old = value.const_value
        assert old is not None
        shaped = array.reshape(old.shape.numpy()).astype(old.dtype.numpy())
        value.const_value = ir.tensor(shaped, dtype=old.dtype, name=name)


def _turned(unit: Unit, old: Mapping[str, Array], new: Mapping[str, Array]) -> float:
    """The share of the weights of ``unit`` whose integers differ."""
    differs = [(old[x.integers] != new[x.integers]).ravel() for x in unit.layers]
    return float(np.concatenate(differs).mean())

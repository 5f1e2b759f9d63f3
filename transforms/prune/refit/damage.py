"""Damage: what an error of some layers does to the outputs of the whole model.

Equal errors are not equally harmful: one close to the input is partly averaged out on its way.
So layers get the weights that they would have without some channels, and the model is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.prune.activations import batches
from trimton.transforms.prune.constants import Shift, apply_shift
from trimton.transforms.prune.refit.features import as_weight
from trimton.transforms.prune.refit.taps import Taps
from trimton.transforms.prune.ties import Layer

_BATCHES = 8
_SMALLEST = 1e-12


class Damage:
    """Measures against the outputs of ``model`` on the first of ``samples``."""

    def __init__(self, model: ir.Model, samples: Mapping[str, Array]) -> None:
        self._model = model
        self._feeds = tuple(islice(batches(model, samples), _BATCHES))
        self._outputs = [value.name or "" for value in model.graph.outputs]
        self._expected = self._run(model)

    def of(
        self, layers: Sequence[Layer], weights: Sequence[Array], shifts: Sequence[Array]
    ) -> float:
        """The mean squared error of the outputs, as a share of their variance.

        ``weights`` [features, outputs] of each layer replace its own, ``shifts`` [outputs] are
        added to its bias. The mean over all outputs of floating point; 0 where there is none.
        """
        copy = self._model.clone()
        editor = Editor(copy)
        pairs = zip(self._model.graph, tuple(copy.graph), strict=True)
        twins = {id(node): twin for node, twin in pairs}
        for layer, matrix, shift in zip(layers, weights, shifts, strict=True):
            value = copy.graph.initializers[layer.weight.name or ""]
            value.const_value = ir.tensor(as_weight(layer, matrix), name=value.name)
            apply_shift(Shift(twins[id(layer.node)], shift), editor)
        made = self._run(copy)
        errors = [_error(self._expected[name], made[name]) for name in self._expected]
        return float(np.mean(errors)) if errors else 0.0

    def _run(self, model: ir.Model) -> dict[str, Array]:
        """The outputs of floating point on all feeds, flat: their shapes may differ by feed."""
        taps = Taps(model, self._outputs)
        runs = [taps(feed) for feed in self._feeds]
        return {
            name: np.concatenate([made[name].reshape(-1) for made in runs])
            for name in self._outputs
            if all(made[name].dtype.kind == "f" for made in runs)
        }


def _error(expected: Array, made: Array) -> float:
    if expected.shape != made.shape:
        return 1.0
    return float(((made - expected) ** 2).mean() / max(float(expected.var()), _SMALLEST))

"""Damage: what an error of some layers does to the outputs of the whole model.

Equal errors are not equally harmful: one close to the input is partly averaged out on its way, and
one that moves all logits alike changes no class. So layers get the weights that they would have
without some channels, the model is run, and its outputs are compared (see Divergence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.prune.constants import Shift, apply_shift
from trimton.transforms.prune.depth.divergence import Divergence
from trimton.transforms.prune.refit.features import as_weight
from trimton.transforms.prune.ties import Layer


class Damage:
    """Measures against the outputs of ``model`` on the first of ``samples``."""

    def __init__(self, model: ir.Model, samples: Mapping[str, Array]) -> None:
        self._model = model
        self._divergence = Divergence(model, samples)

    def of(
        self, layers: Sequence[Layer], weights: Sequence[Array], shifts: Sequence[Array]
    ) -> float:
        """The Divergence of the outputs: nats for classes, else a share of their variance.

        ``weights`` [features, outputs] of each layer replace its own, ``shifts`` [outputs] are
        added to its bias.
        """
        copy = self._model.clone()
        editor = Editor(copy)
        pairs = zip(self._model.graph, tuple(copy.graph), strict=True)
        twins = {id(node): twin for node, twin in pairs}
        for layer, matrix, shift in zip(layers, weights, shifts, strict=True):
            value = copy.graph.initializers[layer.weight.name or ""]
            value.const_value = ir.tensor(as_weight(layer, matrix), name=value.name)
            apply_shift(Shift(twins[id(layer.node)], shift), editor)
        return self._divergence.of(copy)

"""The linear layers of a quantised graph beside those of the float graph that it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array, constant_array
from trimton.transforms.linear.layers import LinearLayer, find_linear_layers
from trimton.transforms.quantize.bias_correction import Bias, bias_of
from trimton.transforms.quantize.sites import WeightSite


@dataclass(frozen=True)
class IntegerLayer:
    """A layer of the float graph (``linear``) and what stands for it in the quantised one.

    ``read`` names the value that it reads there, ``weight`` is the constant of its integers, and
    ``scale`` their scales [outputs]. ``is_paired`` says that no pair of weights may saturate.
    """

    linear: LinearLayer
    read: str
    weight: ir.Value
    scale: Array
    bias: Bias | None
    is_paired: bool

    @property
    def scales(self) -> Array:
        """The scales by group, [groups, outputs of a group]."""
        return self.scale.reshape(self.linear.groups, -1)

    @property
    def features(self) -> int:
        """How many numbers each output is a sum over."""
        return int(self.linear.matrices().shape[1])

    def integers(self) -> Array:
        """The weights as they are now, whole numbers in floats: [groups, features, outputs]."""
        layer, array = self.linear.layer, constant_array(self.weight)
        if array is None or layer.inputs is None:
            raise ValueError(f"{self.linear.name} has no constant weight")
        moved = np.moveaxis(array, (layer.inputs, layer.outputs), (0, -1)).astype(np.float64)
        flat = moved.reshape(-1, self.linear.groups, moved.shape[-1] // self.linear.groups)
        return np.moveaxis(flat, 1, 0)

    def change(self) -> Array:
        """What the integers add to the float weights: [groups, features, outputs]."""
        change: Array = self.integers() * self.scales[:, None, :] - self.linear.matrices()
        return change

    def set_integers(self, integers: Array) -> None:
        """The inverse of ``integers``, in place."""
        array = self.linear.as_weight(integers).astype(np.int8)
        self.weight.const_value = ir.tensor(array, name=self.weight.name)

    def kernel_order(self) -> Array:
        """The features in the order of the kernel's sums: places first, their channels within."""
        places = int(np.prod(self.linear.kernel))
        return np.arange(self.features).reshape(-1, places).T.ravel()


def integer_layers(
    original: ir.Model, quantised: ir.Model, sites: Sequence[WeightSite]
) -> tuple[IntegerLayer, ...]:
    """The layers of ``sites`` that both graphs have, in the order of the graph.

    A weight that several layers share is left out.
    """
    return tuple(_layers(original, quantised, sites))


def _layers(
    original: ir.Model, quantised: ir.Model, sites: Sequence[WeightSite]
) -> Iterator[IntegerLayer]:
    by_layer = {site.layer: site for site in sites}
    nodes = {node.name: node for node in quantised.graph}
    for linear in find_linear_layers(original).layers:
        site, node = by_layer.get(linear.name), nodes.get(linear.name)
        if site is None or node is None or node.inputs[0] is None or node.inputs[1] is None:
            continue
        source = node.inputs[1].producer()
        if source is None or source.op_type != "DequantizeLinear":
            continue
        weight, scale = source.inputs[0], constant_array(source.inputs[1])
        if weight is None or scale is None or len(tuple(weight.uses())) > 1:
            continue
        outputs = linear.matrices().shape[2] * linear.groups
        yield IntegerLayer(
            linear,
            node.inputs[0].name or "",
            weight,
            np.broadcast_to(scale.astype(np.float64), (outputs,)),
            bias_of(node, outputs),
            site.kernel is not None,
        )

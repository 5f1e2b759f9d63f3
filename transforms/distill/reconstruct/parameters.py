"""What is learnt of one unit: roundings, step sizes, zero points and biases.

Step sizes move by factors, as LSQ and GENIE do it: the integers between which a weight is rounded
stay, and the grid that they stand for stretches.

Source: Esser et al. 2020, "Learned Step Size Quantization", arXiv:1902.08153; Bhalgat et al. 2020,
"LSQ+", arXiv:2004.09576 (zero points); Jeon et al. 2023, "Genie", arXiv:2212.04780 (step sizes
beside roundings).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from trimton.transforms.distill.reconstruct.activations import ActivationStep
from trimton.transforms.distill.reconstruct.layers import (
    QuantisedLayer,
    along_channels,
    array_of,
    output_axis,
)
from trimton.transforms.distill.reconstruct.rounding import Rounding
from trimton.transforms.distill.reconstruct.saturation import without_new_saturation
from trimton.transforms.graph.edit import Array
from trimton.transforms.quantize.bounds import smallest_weight_scale
from trimton.transforms.quantize.encoding import Encoding
from trimton.transforms.quantize.kernels import KERNELS
from trimton.transforms.quantize.sites import WeightSite
from trimton.transforms.quantize.weights.rows import row_order

# How fast parameters move at first, in units of their own: shares of a step size, steps of a zero
# point, and biases in shares of what a layer with activations of that size would make.
_STEP_RATE, _ZERO_RATE, _BIAS_RATE = 1e-3, 2e-2, 1e-3
# Roundings are to reach either end within the steps that there are.
_ROUNDING_TRAVEL = 10.0
# The size of activations that a bias is measured by, in steps of theirs.
_TYPICAL_STEPS = 32.0
_INT32 = np.iinfo(np.int32)


class LayerParameters(nn.Module):
    """The roundings, steps and bias of ``layer``, the node ``node`` of ``model``.

    ``floats`` is its float weight; with ``learn_steps`` its step sizes move.
    """

    def __init__(
        self,
        model: ir.Model,
        node: ir.Node,
        layer: QuantisedLayer,
        floats: Array,
        *,
        learn_steps: bool,
    ) -> None:
        super().__init__()
        self.layer, self._node = layer, node
        self._integers = array_of(model, layer.integers)
        self._stored_scale = array_of(model, layer.scale)
        scale = along_channels(self._stored_scale, floats, node)
        zero = np.zeros(1, np.float32)
        if layer.zero_point is not None:
            zero = array_of(model, layer.zero_point).astype(np.float32)
        zero = along_channels(zero, floats, node)
        low, high = _range_in_use(self._integers, is_symmetric=not zero.any())
        self.rounding = Rounding(_tensor(floats / scale + zero), _tensor(self._integers), low, high)
        self._scale, self._zero = _tensor(scale), _tensor(zero)
        self._read_scale = np.ones((), np.float32)
        if layer.activation is not None:
            self._read_scale = array_of(model, layer.activation)
        moves = learn_steps and layer.owns_scale
        self.stretch = nn.Parameter(torch.zeros_like(self._scale), requires_grad=moves)
        bias = None if layer.bias is None else array_of(model, layer.bias.stored)
        self._bias_kind = None if bias is None else bias.dtype
        self._bias_shape = () if bias is None else bias.shape
        self._bias, self._bias_unit = _bias_of(model, layer, bias, self._magnitude(floats))
        self.shift = nn.Parameter(torch.zeros_like(self._bias), requires_grad=bias is not None)

    def replacements(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        """By name of a value what stands for it while the unit is tuned."""
        yield self.layer.weight, lambda _: self.weight()
        if self.layer.bias is not None:
            yield self.layer.bias.value, lambda given: self.bias().reshape(given.shape)

    def weight(self) -> Tensor:
        """The weight as it is rounded by now, in floats."""
        weight: Tensor = (self.rounding() - self._zero) * self._scale * self.stretch.exp()
        return weight

    def bias(self) -> Tensor:
        """The bias as it is by now, in floats."""
        return self._bias + self.shift * self._bias_unit

    @torch.no_grad()
    def constants(self, moved: Mapping[str, Array]) -> dict[str, Array]:
        """The constants to store, where ``moved`` has the scales of activations that are new."""
        layer = self.layer
        integers = self.rounding.decided().numpy().astype(self._integers.dtype)
        order = row_order(_site(self._node, layer), integers.shape)
        found = {layer.integers: without_new_saturation(self._integers, integers, order)}
        scale = self._stored_scale
        if self.stretch.requires_grad:
            scale = (self._scale * self.stretch.exp()).numpy().reshape(scale.shape)
        bias = self.bias().numpy().astype(np.float64).reshape(self._bias_shape)
        if layer.bias is not None and layer.bias.scale is not None:
            read = moved.get(layer.activation or "", self._read_scale)
            least = smallest_weight_scale(bias, _encoded(read))
            least = least if scale.ndim else least.max(initial=0.0)
            scale = np.maximum(scale, least).astype(np.float32)
            step = np.asarray(read * scale, np.float32)
            steps = np.clip(np.rint(bias / step), _INT32.min, _INT32.max)
            found |= {layer.bias.stored: steps.astype(np.int32), layer.bias.scale: step}
        elif layer.bias is not None:
            found[layer.bias.stored] = bias.astype(np.float32)
        return found | {layer.scale: scale}

    def _magnitude(self, floats: Array) -> Array:
        """What each output would be if all that it reads were of a typical size."""
        outputs = output_axis(self._node)
        others = tuple(axis for axis in range(floats.ndim) if axis != outputs)
        norms = np.sqrt(np.square(floats, dtype=np.float64).sum(axis=others))
        magnitude: Array = norms * (_TYPICAL_STEPS * float(self._read_scale.reshape(-1)[0]))
        return magnitude


class StepParameters(nn.Module):
    """The step size and zero point of one kind of activations."""

    def __init__(self, step: ActivationStep) -> None:
        super().__init__()
        self.step = step
        self._scale = float(step.encoding.scale)
        self._zero = float(step.encoding.zero_point)
        self._limits = step.encoding.limits
        self.stretch = nn.Parameter(torch.zeros(()))
        self.zero_shift = nn.Parameter(torch.zeros(()), requires_grad=step.moves_zero)

    def replacements(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        """By name of a value what stands for it while the unit is tuned."""
        yield self.step.scale, lambda given: (self._scale * self.stretch.exp()).reshape(given.shape)
        if self.step.moves_zero and self.step.zero_point is not None:
            yield self.step.zero_point, lambda given: self._zero_point().reshape(given.shape)

    @torch.no_grad()
    def encoding(self) -> Encoding:
        """The encoding to store."""
        scale = self._scale * float(self.stretch.exp())
        return self.step.moved(scale, round(float(self._zero_point())))

    def _zero_point(self) -> Tensor:
        moved = (self._zero + self.zero_shift).clamp(*self._limits)
        return moved + (moved.round() - moved).detach()


class UnitParameters(nn.Module):
    """All that is learnt of a unit."""

    def __init__(
        self, layers: Sequence[LayerParameters], activations: Sequence[StepParameters]
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList([*layers, *activations])
        self._layers, self._activations = tuple(layers), tuple(activations)

    def replacements(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By name of a value what stands for it while the unit is tuned."""
        found = dict(pair for layer in self._layers for pair in layer.replacements())
        return found | dict(pair for step in self._activations for pair in step.replacements())

    def undecided(self, sharpness: float) -> Tensor:
        """The sum over layers of what is not decided yet."""
        return torch.stack([p.rounding.undecided(sharpness) for p in self._layers]).sum()

    def groups(self, steps: int) -> list[dict[str, Any]]:
        """The parameters by the rate at which they move."""
        rates: list[tuple[nn.Parameter, float]]
        rates = [(p.rounding.logit, _ROUNDING_TRAVEL / steps) for p in self._layers]
        rates += [(p.stretch, _STEP_RATE) for p in self._layers]
        rates += [(p.stretch, _STEP_RATE) for p in self._activations]
        rates += [(p.shift, _BIAS_RATE) for p in self._layers]
        rates += [(p.zero_shift, _ZERO_RATE) for p in self._activations]
        return [{"params": [p], "lr": rate} for p, rate in rates if p.requires_grad]

    def moved(self) -> dict[str, float]:
        """By name of a scale of activations by how much it stretched."""
        return {
            part.step.scale: float(part.encoding().scale / part.step.encoding.scale)
            for part in self._activations
        }

    def constants(self) -> dict[str, Array]:
        """The constants to store, by name."""
        found: dict[str, Array] = {}
        for part in self._activations:
            encoding = part.encoding()
            found[part.step.scale] = np.asarray(encoding.scale, np.float32)
            if part.step.moves_zero and part.step.zero_point is not None:
                found[part.step.zero_point] = encoding.zero_point
        for layer in self._layers:
            found |= layer.constants(found)
        return found


def _bias_of(
    model: ir.Model, layer: QuantisedLayer, stored: Array | None, magnitude: Array
) -> tuple[Tensor, Tensor]:
    """The bias of ``layer`` in floats, and the unit in which it moves; zeros where it has none."""
    if layer.bias is None or stored is None:
        return torch.zeros(1), torch.zeros(1)
    floats = stored.astype(np.float64)
    if layer.bias.scale is not None:
        floats = floats * array_of(model, layer.bias.scale)
    return _tensor(floats.reshape(-1)), _tensor(np.broadcast_to(magnitude, floats.size))


def _range_in_use(integers: Array, *, is_symmetric: bool) -> tuple[int, int]:
    """The bounds of integers: coarser weights than their type holds stay as coarse."""
    wide = integers.astype(np.int64)
    largest = int(np.abs(wide).max(initial=0))
    if is_symmetric and wide.min(initial=0) < 0:
        return -largest, largest
    return int(wide.min()), int(wide.max())


def _site(node: ir.Node, layer: QuantisedLayer) -> WeightSite:
    """Where the weight stands, for the order in which a kernel sums."""
    order = KERNELS[node.op_type].order_in(node)
    return WeightSite(layer.node, layer.integers, None, ir.DataType.INT8, kernel=order)


def _encoded(scale: Array) -> Encoding:
    """Activations with that scale."""
    return Encoding(ir.DataType.UINT8, scale.reshape(()), np.zeros((), np.uint8))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))

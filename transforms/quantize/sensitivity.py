"""Sensitivity: what each layer alone in integers does to the outputs of the model.

Errors of layers add up as long as they are small, so one measurement for each layer says which
of them the error of the whole model comes from. Only real outputs count: a large error inside
may be averaged out on its way, and a small one may tip a decision.

Source: Dong et al. 2019, arXiv:1905.03696, and Wu et al. 2020, arXiv:2004.09602, section 6.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from glob import escape

from trimton.transforms.graph.cost import node_costs
from trimton.transforms.quantize.fidelity import Fidelity, Reference
from trimton.transforms.quantize.quantiser import Quantiser


@dataclass(frozen=True)
class LayerDamage:
    """A layer, the outputs with it alone in integers, and its share of the model's MACs."""

    layer: str
    fidelity: Fidelity
    macs_share: float


def sensitivities(quantiser: Quantiser, reference: Reference) -> tuple[LayerDamage, ...]:
    """Every layer that ``quantiser`` would place in integers, the most harmful first."""
    layers = quantised_layers(quantiser)
    shares = _macs_shares(quantiser, layers)
    damages = [
        LayerDamage(layer, alone, shares[layer])
        for layer in layers
        if (alone := _alone(quantiser, reference, layer, layers)) is not None
    ]
    return tuple(sorted(damages, key=lambda damage: -damage.fidelity.error))


def quantised_layers(quantiser: Quantiser, in_float: Collection[str] = ()) -> tuple[str, ...]:
    """The nodes that compute with weights in integers if ``in_float`` stay in float."""
    placement = quantiser.place(named(in_float))
    return tuple(dict.fromkeys(site.layer for site in placement.weights if not site.is_operand))


def named(layers: Collection[str]) -> list[str]:
    """Patterns of node names that match exactly ``layers``."""
    return [escape(layer) for layer in layers]


def _alone(
    quantiser: Quantiser, reference: Reference, layer: str, layers: tuple[str, ...]
) -> Fidelity | None:
    placement = quantiser.place(named([other for other in layers if other != layer]))
    if not placement.weights:  # it joins only beside others
        return None
    return reference.fidelity(quantiser.make(placement, refined=False).model)


def _macs_shares(quantiser: Quantiser, layers: tuple[str, ...]) -> dict[str, float]:
    macs = {cost.name: cost.macs or 0 for cost in node_costs(quantiser.prepared)}
    total = max(sum(macs.values()), 1)
    return {layer: macs.get(layer, 0) / total for layer in layers}

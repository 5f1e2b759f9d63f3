"""Which method chooses the ranges of a model: the one that leaves its outputs clearly closest.

No method is best everywhere. Clipping gains where a few values are far out, and costs where just
these decide. The histograms of one pass give the ranges of every method, so that trying one takes
no more than writing the model and running it on some samples.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimton.transforms.quantize.fidelity import Fidelity, Reference
from trimton.transforms.quantize.quantiser import Quantiser
from trimton.transforms.quantize.settings import AUTO, QuantizeSettings
from trimton.transforms.report import Step

# Methods that clip are taken where the error falls to this share of that of the extremes: samples
# that were not seen reach further than those that were.
CLIPPING = ("percentile", "mse")
_WORTH_CLIPPING = 0.95
CANDIDATES = ("minmax", *CLIPPING)
_SAMPLES = 64


@dataclass(frozen=True)
class RangeChoice:
    """The method taken, and how close the outputs are with each that was tried."""

    method: str
    fidelities: dict[str, Fidelity]


def choose_ranges(quantiser: Quantiser, settings: QuantizeSettings) -> RangeChoice | None:
    """Set the method of ``quantiser`` that ``settings`` leave open; None where they name one.

    Judges by the first 64 samples. Where nothing is quantised there is nothing to choose.
    """
    placement = quantiser.place()
    if settings.calibration_method != AUTO or not placement.weights:
        return None
    reference = Reference(quantiser.prepared, quantiser.batches(), _SAMPLES)
    fidelities: dict[str, Fidelity] = {}
    for method in CANDIDATES:
        quantiser.use_method(method)
        made = quantiser.make(placement, refined=False)
        fidelities[method] = reference.fidelity(made.model)
    best = min(CLIPPING, key=lambda method: fidelities[method].error)
    if fidelities[best].error > _WORTH_CLIPPING * fidelities["minmax"].error:
        best = "minmax"
    quantiser.use_method(best)
    return RangeChoice(best, fidelities)


def range_choice_step(choice: RangeChoice) -> Step:
    """What was tried; the outputs' ratio of signal to noise with each method in the detail."""
    tried = ", ".join(f"{name} {fid.sqnr_db:.1f} dB" for name, fid in choice.fidelities.items())
    return Step(
        "range-method",
        f"activation ranges by {choice.method}, of several methods ({tried})",
        detail={
            "method": choice.method,
            "sqnr_db": {name: fid.sqnr_db for name, fid in choice.fidelities.items()},
        },
    )

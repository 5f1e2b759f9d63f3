"""How large the values inside a model become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.probe import random_probes
from trimton.transforms.graph.taps import Feed, Taps
from trimton.transforms.quantize.calibration.feeds import feeds

# Values that are tapped in one run: those of one batch are in memory at once.
_TAPPED_AT_ONCE = 64


def largest_values(
    model: ir.Model, names: Sequence[str], samples: Mapping[str, Array] | None
) -> dict[str, float]:
    """The largest finite |x| of the values ``names`` on ``samples`` and on random inputs.

    Random inputs reach what samples may not, such as the value that masks a token. Raises
    UnsupportedModelError where the model cannot be run here or, without samples, no random input
    suits it; InputError where it cannot be run on ``samples``.
    """
    largest = dict.fromkeys(names, 0.0)
    given = _random_feeds(model, is_needed=samples is None)
    for start in range(0, len(names), _TAPPED_AT_ONCE):
        taps = Taps(model, names[start : start + _TAPPED_AT_ONCE])
        for feed in chain(given, () if samples is None else feeds(model, samples)):
            for name, values in taps(feed).items():
                finite = np.abs(values[np.isfinite(values)])
                largest[name] = max(largest[name], float(finite.max(initial=0.0)))
    return largest


def _random_feeds(model: ir.Model, *, is_needed: bool) -> tuple[Feed, ...]:
    try:
        return tuple(probe.inputs for probe in random_probes(model))
    except UnsupportedModelError:
        if is_needed:
            raise
        return ()

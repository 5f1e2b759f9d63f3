"""Judging a quantised network by its outputs on samples that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Feed, Taps
from trimton.transforms.prune.refit.taps import is_held_out
from trimton.transforms.quantize.calibration.feeds import samples_in
from trimton.transforms.quantize.layer_evidence import Batches

# Samples that are kept, with what the original makes of them.
_SAMPLES = 32


class Judge:
    """Compares models with ``original`` on the held-out batches, or on the first if none are.

    Batches of 32 samples are kept in memory, not more. Raises InputError where the original
    cannot be run on the batches.
    """

    def __init__(self, original: ir.Model, batches: Batches) -> None:
        self._names = [value.name or "" for value in original.graph.outputs]
        held_out = (feed for number, feed in enumerate(batches()) if is_held_out(number))
        self._feeds = _first(held_out) or _first(batches())
        exact = Taps(original, self._names)
        self._goals = [exact(feed) for feed in self._feeds]

    def error(self, model: ir.Model) -> float:
        """The squared error of the floats that ``model`` puts out, as a share of their variance.

        The mean over outputs; one that is the same for all samples has no say.
        """
        made = Taps(model, self._names)
        answers = [made(feed) for feed in self._feeds]
        shares = [self._share(name, [answer[name] for answer in answers]) for name in self._names]
        told = [share for share in shares if share is not None]
        return float(np.mean(told)) if told else 0.0

    def _share(self, name: str, answers: list[Array]) -> float | None:
        exact = np.concatenate([goal[name].astype(np.float64).ravel() for goal in self._goals])
        spread = float(np.square(exact - exact.mean()).sum())
        if answers[0].dtype.kind != "f" or spread == 0.0:
            return None
        now = np.concatenate([answer.astype(np.float64).ravel() for answer in answers])
        return float(np.square(now - exact).sum()) / spread


def _first(feeds: Iterable[Feed]) -> list[Feed]:
    """The first of ``feeds`` that together have enough samples."""
    found: list[Feed] = []
    count = 0
    for feed in feeds:
        found.append(feed)
        count += samples_in(feed)
        if count >= _SAMPLES:
            break
    return found

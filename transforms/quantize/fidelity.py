"""Fidelity: how close a quantised model's outputs are to those of the float model on samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Feed, Taps
from trimton.transforms.quantize.calibration.feeds import samples_in

SAMPLES = 128
_SMALLEST = 1e-24


@dataclass(frozen=True)
class Fidelity:
    """``error``: mean squares of the difference as a share of the output's own variance.

    ``agreement``: the share of rows along the last axis whose largest entry is in the same
    place, None where no output has several entries a row. Both are means over the outputs.
    """

    error: float
    agreement: float | None

    @property
    def sqnr_db(self) -> float:
        """The signal to quantisation noise ratio in decibels."""
        return float(-10 * np.log10(max(self.error, _SMALLEST)))

    def __str__(self) -> str:
        agreement = "" if self.agreement is None else f", {self.agreement:.2%} agreement"
        return f"{self.sqnr_db:.1f} dB{agreement}"


class Reference:
    """The outputs of ``model`` on the first of ``batches``, to compare others with.

    As many as hold ``count`` samples or a little more are kept in memory, with the outputs.
    """

    def __init__(self, model: ir.Model, batches: Iterable[Feed], count: int = SAMPLES) -> None:
        self._feeds = tuple(_first(batches, count))
        self._names = [value.name or "" for value in model.graph.outputs]
        self._expected = {
            name: arrays for name, arrays in self._run(model).items() if arrays[0].dtype.kind == "f"
        }

    def fidelity(self, model: ir.Model) -> Fidelity:
        """How close the outputs of ``model`` are: those of floating point count."""
        made = self._run(model)
        pairs = [(self._expected[name], made[name]) for name in self._expected]
        errors = [_error(expected, found) for expected, found in pairs]
        agreements = [
            value for expected, found in pairs if (value := _agreement(expected, found)) is not None
        ]
        return Fidelity(
            float(np.mean(errors)) if errors else 0.0,
            float(np.mean(agreements)) if agreements else None,
        )

    def _run(self, model: ir.Model) -> dict[str, list[Array]]:
        taps = Taps(model, self._names)
        runs = [taps(feed) for feed in self._feeds]
        return {name: [made[name] for made in runs] for name in self._names}


def _first(batches: Iterable[Feed], count: int) -> Iterator[Feed]:
    for feed in batches:
        yield feed
        count -= samples_in(feed)
        if count <= 0:
            return


def _error(expected: list[Array], found: list[Array]) -> float:
    if any(a.shape != b.shape for a, b in zip(expected, found, strict=True)):
        return 1.0
    old = np.concatenate([array.reshape(-1) for array in expected]).astype(np.float64)
    new = np.concatenate([array.reshape(-1) for array in found]).astype(np.float64)
    return float(((new - old) ** 2).mean() / max(float(old.var()), _SMALLEST))


def _agreement(expected: list[Array], found: list[Array]) -> float | None:
    if any(a.ndim < 2 or a.shape[-1] < 2 for a in expected):
        return None
    same = [
        (a.argmax(axis=-1) == b.argmax(axis=-1)).reshape(-1)
        if a.shape == b.shape
        else np.zeros(1, bool)
        for a, b in zip(expected, found, strict=True)
    ]
    return float(np.concatenate(same).mean())

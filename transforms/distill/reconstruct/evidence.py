"""What a unit reads in the quantised network, and what it is to give: on disk, within a bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimton.transforms.distill.reconstruct.units import Unit
from trimton.transforms.distill.store import open_stored, write_stored
from trimton.transforms.distill.teacher import Answers
from trimton.transforms.graph.edit import Array

# Samples that run through both networks before what they made is written.
_PART = 64
_READ, _GOAL = "read ", "goal "


@dataclass(frozen=True)
class Evidence:
    """By name what a unit ``reads`` and what its targets are in floats, first axis = samples.

    The first ``tuned`` samples are there to tune on, the others to judge by.
    """

    reads: Mapping[str, Array]
    goals: Mapping[str, Array]
    tuned: int

    def __len__(self) -> int:
        return len(next(iter(self.goals.values())))

    def variance(self) -> float:
        """The mean over targets of their variance, on the samples that judge."""
        return float(np.mean([g[self.tuned :].var(dtype=np.float64) for g in self.goals.values()]))


@dataclass(frozen=True)
class Networks:
    """The quantised network as it is by now, and the float one with the same names."""

    quantised: ir.Model
    floats: ir.Model


def gather(
    networks: Networks,
    unit: Unit,
    inputs: Sequence[str],
    samples: Mapping[str, Array],
    tuned: int,
    folder: Path,
    *,
    threads: int,
    limit_bytes: int,
) -> Evidence:
    """Run both networks on ``samples``, of which the first ``tuned`` are tuned on.

    ``inputs`` are the values that the unit reads. Where the outcome would take more than
    ``limit_bytes``, fewer of both kinds of samples are taken. ``folder``, which must not exist,
    holds the arrays. Raises UnsupportedModelError where a value has no axis of samples.
    """
    names = [name for name in inputs if name not in samples]
    prefix = Answers(networks.quantised, names, threads=threads) if names else None
    exact = Answers(networks.floats, unit.targets, threads=threads)

    def made(chosen: Array) -> dict[str, Array]:
        part = {name: array[chosen] for name, array in samples.items()}
        reads = {name: part[name] for name in inputs if name in samples}
        reads |= prefix(part) if prefix is not None else {}
        return {
            **{_READ + name: array for name, array in reads.items()},
            **{_GOAL + name: array for name, array in exact(part).items()},
        }

    count = len(next(iter(samples.values())))
    first = made(np.arange(min(_PART, count)))
    bytes_each = sum(array.nbytes for array in first.values()) / min(_PART, count)
    share = min(1.0, limit_bytes / (bytes_each * count))
    kept = max(1, int(share * tuned))
    chosen = np.concatenate(
        [np.arange(kept), tuned + np.arange(max(1, int(share * (count - tuned))))]
    )
    parts = (made(chosen[start : start + _PART]) for start in range(0, len(chosen), _PART))
    write_stored(folder, parts, len(chosen), lambda done, of: None)
    stored = open_stored(folder)
    assert stored is not None
    return Evidence(dict(_named(stored, _READ)), dict(_named(stored, _GOAL)), kept)


def _named(arrays: Mapping[str, Array], prefix: str) -> Iterator[tuple[str, Array]]:
    for name, array in arrays.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), array

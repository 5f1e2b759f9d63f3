"""Explaining a quantisation: what each tensor's integers cover, and what they lose.

Everything comes from the histograms of the one pass: errors and clipped shares in closed form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from trimton.transforms.quantize.calibration.histogram import Histogram, merged
from trimton.transforms.quantize.encoding import Encoding
from trimton.transforms.quantize.ranges.error import clipped_share, mean_squared_error
from trimton.transforms.quantize.sites import Placement
from trimton.transforms.report import Step

_SMALLEST = 1e-24
_SHOWN = 3


@dataclass(frozen=True)
class TensorAccount:
    """One quantised activation.

    ``minimum`` and ``maximum`` are those of the samples, ``low`` and ``high`` the ends of what
    the integers cover. ``sqnr_db`` is the signal to quantisation noise ratio, None for a tensor
    of zeros or without noise; ``clipped_share`` that of the values beyond the ends.
    """

    name: str
    minimum: float
    maximum: float
    low: float
    high: float
    scale: float
    zero_point: int
    sqnr_db: float | None
    clipped_share: float


def tensor_accounts(
    placement: Placement,
    histograms: Mapping[str, Histogram],
    encodings: Mapping[str, Encoding],
) -> tuple[TensorAccount, ...]:
    """Every measured activation of ``placement``, the noisiest first."""
    accounts = [
        _account(
            site.values[0],
            merged([histograms[name] for name in site.measured]),
            encodings[site.values[0]],
        )
        for site in placement.activations
        if site.source is None
    ]
    return tuple(sorted(accounts, key=_noise_rank))


def ranges_step(accounts: Iterable[TensorAccount]) -> Step:
    """The accounts in the detail; the noisiest tensors by name."""
    rows = sorted(accounts, key=_noise_rank)
    noisiest = [
        f"{row.name} ({row.sqnr_db:.0f} dB)" for row in rows[:_SHOWN] if row.sqnr_db is not None
    ]
    return Step(
        "ranges",
        "activations with a range of their own"
        + (f", noisiest {', '.join(noisiest)}" if noisiest else ""),
        len(rows),
        {"tensors": [asdict(row) for row in rows]},
    )


def _account(name: str, histogram: Histogram, encoding: Encoding) -> TensorAccount:
    bins = histogram.bins()
    count = max(int(bins.count.sum()), 1)
    signal = float(bins.middle**2 @ bins.count) / count
    noise = mean_squared_error(bins, encoding)
    bottom, top = encoding.limits
    scale, zero_point = float(encoding.scale), int(encoding.zero_point)
    is_noisy = signal > _SMALLEST and noise > _SMALLEST * signal
    return TensorAccount(
        name=name,
        minimum=histogram.minimum,
        maximum=histogram.maximum,
        low=(bottom - zero_point) * scale,
        high=(top - zero_point) * scale,
        scale=scale,
        zero_point=zero_point,
        sqnr_db=float(10 * np.log10(signal / noise)) if is_noisy else None,
        clipped_share=clipped_share(bins, encoding),
    )


def _noise_rank(account: TensorAccount) -> tuple[float, str]:
    return (float("inf") if account.sqnr_db is None else account.sqnr_db, account.name)

"""The account of each quantised tensor."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from trimton.transforms.quantize.calibration.counter import Counter
from trimton.transforms.quantize.explain import ranges_step, tensor_accounts
from trimton.transforms.quantize.ranges import activation_encoding, range_method
from trimton.transforms.quantize.sites import ActivationSite, Placement

RNG = np.random.default_rng(5)
VALUES = {
    "even": RNG.uniform(-1, 1, (4, 5000)),
    "peaked": RNG.laplace(size=(4, 5000)),
    "nothing": np.zeros((4, 10)),
}


def accounts(method: str) -> list[tuple[str, float | None, float]]:
    sites = [ActivationSite((name, f"{name}_moved"), (name,), ir.DataType.UINT8) for name in VALUES]
    scaled = ActivationSite(("half",), (), ir.DataType.UINT8, source="even", factor=0.5)
    histograms, encodings = {}, {}
    for site in sites:
        counter = Counter(1)
        counter.add(VALUES[site.values[0]], 4, 0)
        histograms[site.values[0]] = counter.histogram()
        encodings[site.values[0]] = activation_encoding(
            counter.histogram(), site, range_method(method)
        )
    placement = Placement((*sites, scaled), (), frozenset(), ())
    rows = tensor_accounts(placement, histograms, encodings)
    for row in rows:
        values = VALUES[row.name].astype(np.float32).astype(np.float64)
        assert (row.minimum, row.maximum) == (values.min(), values.max())
        assert row.low <= 0 <= row.high
        if row.sqnr_db is not None:
            encoding = encodings[row.name]
            noise = ((values - encoding.dequantise(encoding.quantise(values))) ** 2).mean()
            expected = 10 * np.log10((values**2).mean() / noise)
            assert row.sqnr_db == pytest.approx(expected, abs=0.1)
    return [(row.name, row.sqnr_db, row.clipped_share) for row in rows]


def test_the_noisiest_tensor_comes_first_and_one_of_zeros_last() -> None:
    rows = accounts("minmax")
    assert [name for name, _, _ in rows] == ["peaked", "even", "nothing"]
    assert rows[2][1] is None
    assert all(clipped == 0 for _, _, clipped in rows)


def test_clipped_values_are_counted() -> None:
    rows = {name: clipped for name, _, clipped in accounts("percentile")}
    assert rows["peaked"] == pytest.approx(1e-4, rel=0.5)


def test_the_step_names_the_noisiest_and_lists_all() -> None:
    counter = Counter(1)
    counter.add(VALUES["peaked"], 4, 0)
    site = ActivationSite(("peaked",), ("peaked",), ir.DataType.UINT8)
    encoding = activation_encoding(counter.histogram(), site, range_method("minmax"))
    rows = tensor_accounts(
        Placement((site,), (), frozenset(), ()),
        {"peaked": counter.histogram()},
        {"peaked": encoding},
    )
    step = ranges_step(rows)
    assert step.count == 1
    assert "peaked" in step.what
    assert step.detail["tensors"][0]["scale"] == float(encoding.scale)

"""Quality of outputs whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.core.errors import InputError, TransformError
from trimton.perf.quality import measure_quality

LABELS = np.array([0, 1, 2, 0])
SCORES = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]  # three of four are right


def test_accuracy_drop_and_agreement_are_counted_over_the_same_samples():
    variant = np.eye(3, dtype=np.float32)[[0, 1, 0, 0]]  # loses sample 2, wins sample 3
    found = measure_quality("v", {"y": SCORES}, {"y": variant}, LABELS)
    assert found.samples == 4
    assert found.accuracy.value == 0.75
    assert found.accuracy_drop.value == 0
    assert found.accuracy_drop.low < 0 < found.accuracy_drop.high
    assert found.agreement.value == 0.5


def test_a_worse_variant_has_a_positive_drop():
    found = measure_quality("v", {"y": SCORES}, {"y": SCORES[[1, 1, 2, 1]]}, LABELS)
    assert found.accuracy_drop.value == 0.25


def test_identical_outputs_have_no_noise():
    found = measure_quality("v", {"y": SCORES}, {"y": SCORES.copy()})
    assert found.sqnr_db is None
    assert found.largest_difference == 0
    assert found.agreement.value == 1
    assert found.accuracy is None
    assert found.accuracy_drop is None


def test_sqnr_is_the_ratio_of_energies_in_decibels():
    signal = np.full((10, 4), 2.0, np.float32)
    found = measure_quality("v", {"y": signal}, {"y": signal + np.float32(0.02)})
    assert found.sqnr_db == pytest.approx(40, abs=1e-3)
    assert found.largest_difference == pytest.approx(0.02, rel=1e-4)


def test_half_precision_does_not_overflow_the_energies():
    signal = np.full((10, 4), 1000.0, np.float16)
    found = measure_quality("v", {"y": signal}, {"y": signal + np.float16(10)})
    assert found.sqnr_db == pytest.approx(40, abs=1e-3)


def test_a_model_that_ends_in_its_own_argmax_is_understood():
    found = measure_quality("v", {"y": LABELS}, {"y": np.array([0, 1, 1, 0])}, LABELS)
    assert found.accuracy.value == 0.75
    assert found.accuracy_drop.value == 0.25


def test_the_scores_are_found_among_several_outputs_or_named():
    hidden = np.zeros((4, 2, 2), np.float32)
    assert measure_quality("v", {"h": hidden, "y": SCORES}, {"h": hidden, "y": SCORES}, LABELS)
    two = {"p": SCORES, "y": SCORES[::-1]}
    with pytest.raises(InputError, match="p, y; name the one"):
        measure_quality("v", two, two, LABELS)
    assert measure_quality("v", two, two, LABELS, classes="p").accuracy.value == 0.75
    with pytest.raises(InputError, match="no output 'q'"):
        measure_quality("v", two, two, LABELS, classes="q")


def test_nan_where_the_baseline_has_none_is_a_broken_variant():
    broken = SCORES.copy()
    broken[1, 0] = np.nan
    broken[2, 0] = np.inf
    with pytest.raises(TransformError, match=r"'v' answers NaN or Inf in output 'y' for 2 of 4"):
        measure_quality("v", {"y": SCORES}, {"y": broken})


def test_infinity_in_both_is_no_difference():
    masked = SCORES.copy()
    masked[:, 2] = -np.inf
    found = measure_quality("v", {"y": masked}, {"y": masked})
    assert found.sqnr_db is None
    assert found.largest_difference == 0


@pytest.mark.parametrize(
    ("baseline", "variant", "labels", "message"),
    [
        ({"y": SCORES}, {"z": SCORES}, None, "has the outputs z, but the baseline has y"),
        ({"y": SCORES}, {"y": SCORES[:, :2]}, None, "has shape"),
        ({"y": SCORES}, {"y": SCORES}, LABELS[:2], "2 labels for 4 samples"),
    ],
)
def test_outputs_that_do_not_belong_together_are_refused(baseline, variant, labels, message):
    with pytest.raises(InputError, match=message):
        measure_quality("v", baseline, variant, labels)

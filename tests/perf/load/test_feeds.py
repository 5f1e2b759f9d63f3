"""Inputs of requests: batches of samples, and random values for any model."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.core.errors import InputError
from trimton.perf.load.feeds import feeds_from_samples, random_feeds, resolve_batch
from trimton.perf.targets.tensors import NUMPY_TYPES, TensorSpec


def rows(feeds):
    return [feed["x"].tolist() for feed in feeds]


def test_samples_are_cut_into_whole_batches_in_order():
    assert rows(feeds_from_samples({"x": np.arange(7)}, 3)) == [[0, 1, 2], [3, 4, 5]]


def test_too_few_samples_are_repeated_to_fill_one_batch():
    assert rows(feeds_from_samples({"x": np.arange(2)}, 5)) == [[0, 1, 0, 1, 0]]


def test_random_values_have_type_and_shape_of_every_datatype():
    specs = [TensorSpec(name, name, (None, 3)) for name in NUMPY_TYPES]
    feeds = random_feeds(specs, batch=2, count=3, seed=1)
    assert len(feeds) == 3
    for spec in specs:
        for feed in feeds:
            assert feed[spec.name].shape == (2, 3)
            assert feed[spec.name].dtype == spec.dtype


def test_random_values_differ_between_requests_and_repeat_with_the_seed():
    specs = [TensorSpec("x", "FP32", (None, 3))]
    first = random_feeds(specs, batch=1, count=2, seed=1)
    again = random_feeds(specs, batch=1, count=2, seed=1)
    assert not np.array_equal(first[0]["x"], first[1]["x"])
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(first, again, strict=True))


def test_given_shapes_fill_free_dimensions_and_scalars_stay_scalars():
    specs = [TensorSpec("t", "INT64", (None, None, 2)), TensorSpec("s", "INT64", ())]
    [feed] = random_feeds(specs, batch=4, count=1, seed=0, shapes={"t": (5, 2)})
    assert feed["t"].shape == (4, 5, 2)
    assert feed["s"].shape == ()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"input 't' has free dimensions \[N, N, 2\]; give them with --shape t:64,2"),
        ({"t": (5,)}, "does not fit"),
        ({"t": (5, 3)}, "does not fit"),
        ({"t": (0, 2)}, "does not fit"),
        ({"u": (5, 2)}, "no input 'u'"),
    ],
)
def test_a_free_or_wrong_dimension_is_one_sentence(shapes, message):
    with pytest.raises(InputError, match=message):
        random_feeds(
            [TensorSpec("t", "INT64", (None, None, 2))], batch=1, count=1, seed=0, shapes=shapes
        )


def test_the_batch_follows_the_model():
    free, fixed = TensorSpec("x", "FP32", (None, 3)), TensorSpec("x", "FP32", (8, 3))
    assert resolve_batch([free], None) == 1
    assert resolve_batch([free], 4) == 4
    assert resolve_batch([fixed], None) == 8
    with pytest.raises(InputError, match="exactly 8 samples"):
        resolve_batch([fixed], 2)
    with pytest.raises(InputError, match="at least 1"):
        resolve_batch([free], 0)

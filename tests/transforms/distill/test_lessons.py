"""Order, split, mixing, schedule and stored batches are functions of the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.core.errors import InputError
from trimton.transforms.distill.augment import augmented
from trimton.transforms.distill.batches import BatchMaker, FreshBatches, StoredBatches
from trimton.transforms.distill.mixing import mix
from trimton.transforms.distill.schedule import learning_rate
from trimton.transforms.distill.split import order_of, split
from trimton.transforms.distill.store import open_stored, write_stored


@given(
    count=st.integers(2, 400),
    held_out=st.floats(0.01, 0.99),
    multiple=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_a_sample_is_trained_on_or_judges(
    count: int, held_out: float, multiple: int, seed: int
) -> None:
    multiple = min(multiple, count // 2)
    parts = split(count, held_out, seed, multiple=multiple)

    assert sorted([*parts.training, *parts.held_out]) == list(range(count))
    assert len(parts.training) >= multiple
    assert len(parts.held_out) >= multiple
    assert len(parts.held_out) % multiple == 0


@given(
    steps=st.integers(1, 500),
    warmup=st.floats(0, 0.9),
    highest=st.floats(1e-5, 1.0),
)
def test_the_rate_rises_to_its_highest_and_falls_towards_0(
    steps: int, warmup: float, highest: float
) -> None:
    rates = [learning_rate(step, steps, highest, warmup) for step in range(steps)]
    top = int(np.argmax(rates))

    assert rates[top] == pytest.approx(highest)
    assert all(0 <= rate <= highest * (1 + 1e-12) for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@given(seed=st.integers(0, 200), concentration=st.floats(0.1, 5))
def test_a_mixed_sample_lies_between_two_and_its_labels_are_theirs(
    seed: int, concentration: float
) -> None:
    x = np.arange(12, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    ids = np.arange(12)
    mixed, labels = mix({"x": x, "ids": ids}, ids, concentration, np.random.default_rng(seed))
    assert labels is not None
    share = labels.share_of_own

    np.testing.assert_array_equal(mixed["ids"], ids)
    np.testing.assert_array_equal(labels.own, ids)
    assert (share >= 0.5).all()
    expected = share * labels.own + (1 - share) * labels.other
    np.testing.assert_allclose(mixed["x"][:, 1], expected, atol=1e-4)


def maker(augmentation: object = None, mixing: float = 0.0) -> BatchMaker:
    x = np.random.default_rng(0).standard_normal((700, 3)).astype(np.float32)
    return BatchMaker(
        inputs={"x": x},
        labels=np.arange(700) % 5,
        answers=lambda inputs: {"y": 2 * inputs["x"]},
        augmentation=augmentation,
        mixing=mixing,
    )


def jitter(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": batch["x"] + rng.standard_normal(batch["x"].shape).astype(np.float32)}


def test_plain_samples_are_stored_with_their_own_answers_and_labels(tmp_path: Path) -> None:
    source = StoredBatches(maker(), tmp_path, views=1, seed=3, answering=lambda done, count: None)
    batch = source.batch(4, 2, np.arange(700))

    np.testing.assert_array_equal(batch.answers["y"], 2 * batch.inputs["x"])
    assert batch.labels is not None
    original = maker()
    for x, label in zip(batch.inputs["x"], batch.labels.own, strict=True):
        index = int(np.flatnonzero((original.inputs["x"] == x).all(axis=1))[0])
        assert label == index % 5


def test_views_come_in_turn_and_differ(tmp_path: Path) -> None:
    source = StoredBatches(
        maker(jitter, 0.4), tmp_path, views=2, seed=3, answering=lambda done, count: None
    )
    chosen = np.arange(64)
    first, second, third = (source.batch(epoch, 0, chosen) for epoch in range(3))

    np.testing.assert_array_equal(first.inputs["x"], third.inputs["x"])
    assert np.abs(first.inputs["x"] - second.inputs["x"]).max() > 0.1
    np.testing.assert_array_equal(second.answers["y"], 2 * second.inputs["x"])


def test_fresh_batches_depend_on_seed_epoch_and_step_alone() -> None:
    chosen = order_of(1, 700, 3)[:64]
    batches = [FreshBatches(maker(jitter, 0.2), 3).batch(1, 5, chosen) for _ in range(2)]
    other = FreshBatches(maker(jitter, 0.2), 3).batch(2, 5, chosen)

    np.testing.assert_array_equal(batches[0].inputs["x"], batches[1].inputs["x"])
    assert np.abs(batches[0].inputs["x"] - other.inputs["x"]).max() > 0.1


def test_a_store_that_was_interrupted_is_not_there(tmp_path: Path) -> None:
    def parts():
        yield {"x": np.zeros((2, 3), np.float32)}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stored(tmp_path / "view", parts(), 4, lambda done, count: None)

    assert open_stored(tmp_path / "view") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda batch, rng: {"y": batch["x"]}, "arrays named x"),
        (lambda batch, rng: {"x": batch["x"][:1]}, "type and shape must stay"),
        (lambda batch, rng: {"x": batch["x"].astype(np.float64)}, "type and shape must stay"),
        (lambda batch, rng: {"x": batch["x"] * np.float32(np.nan)}, "NaN or Inf"),
        (lambda batch, rng: {"x": batch["z"]}, "the augmentation fails: KeyError"),
    ],
)
def test_an_augmentation_that_does_not_fit_is_refused(function: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        augmented({"x": np.ones((3, 2), np.float32)}, function, np.random.default_rng(0))

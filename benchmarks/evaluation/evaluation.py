"""A model, the samples that calibrate it, and what it must do well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from scipy.special import softmax

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]
Predict = Callable[[Feed], Feed]

BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """One model with its data.

    ``calibration`` are requests of one sample each, as the model takes them; ``request`` is what
    latency is measured on. ``quality`` runs a model over the test data and gives what ``metric``
    names, between 0 and 1. No test sample is among the calibration samples.
    """

    name: str
    model: Path
    metric: str
    calibration: tuple[Feed, ...]
    request: Feed
    quality: Callable[[Predict], float]

    def samples(self) -> dict[str, Array]:
        """The calibration requests in one array for each input, first axis = samples.

        Raises ValueError where an input has no axis for samples at its front.
        """
        first = self.calibration[0]
        for name, array in first.items():
            if array.ndim == 0 or len(array) != 1:
                raise ValueError(f"{self.name}: the first axis of input {name!r} is no batch")
        return {name: np.concatenate([feed[name] for feed in self.calibration]) for name in first}


def predictor(model: Path, *, optimise: bool = True, threads: int = 0) -> Predict:
    """Runs ``model`` in ONNX Runtime on the CPU; ``threads`` 0: as many as there are cores."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True))


def answers(predict: Predict, inputs: Feed, output: str) -> Array:
    """``output`` for all samples, in batches; first axis = samples."""
    count = len(next(iter(inputs.values())))
    return np.concatenate(
        [
            predict({name: array[start : start + BATCH] for name, array in inputs.items()})[output]
            for start in range(0, count, BATCH)
        ]
    )


def accuracy(inputs: Feed, output: str, labels: Array) -> Callable[[Predict], float]:
    """The share of samples whose largest output is the label."""

    def quality(predict: Predict) -> float:
        return float((answers(predict, inputs, output).argmax(axis=1) == labels).mean())

    return quality


def agreement(
    model: Path, inputs: Feed, output: str, *, least_probability: float = 0.0
) -> Callable[[Predict], float]:
    """The share of samples whose largest output is the same as that of the float ``model``.

    Those to whose label the float model, whose outputs are logits, gives less than
    ``least_probability`` do not count: any rounding decides between classes that are all unlikely.
    """

    @cache
    def reference() -> tuple[Feed, Array]:
        logits = answers(predictor(model), inputs, output)
        is_clear = softmax(logits, axis=1).max(axis=1) >= least_probability
        return {k: v[is_clear] for k, v in inputs.items()}, logits[is_clear].argmax(axis=1)

    def quality(predict: Predict) -> float:
        clear, expected = reference()
        return float((answers(predict, clear, output).argmax(axis=1) == expected).mean())

    return quality


def one_by_one(inputs: Feed) -> tuple[Feed, ...]:
    """Requests of one sample each."""
    count = len(next(iter(inputs.values())))
    return tuple({k: v[i : i + 1] for k, v in inputs.items()} for i in range(count))

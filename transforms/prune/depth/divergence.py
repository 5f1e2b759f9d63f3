"""Divergence: how far the outputs of a model moved from those of the original, on samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import numpy as np
import onnx_ir as ir
from scipy.special import log_softmax

from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.activations import batches
from trimton.transforms.prune.refit.taps import Taps

_BATCHES = 8
_SMALLEST = 1e-12

Measure = Callable[[Array, Array], float]


class Divergence:
    """Measures models against the outputs of ``model`` on the first of ``samples``.

    Classes are compared by the Kullback-Leibler divergence of their probabilities: outputs that
    a softmax makes, or that are called logits. Others of floating point by the mean squared error
    as a share of their variance.
    """

    def __init__(self, model: ir.Model, samples: Mapping[str, Array]) -> None:
        self._feeds = tuple(islice(batches(model, samples), _BATCHES))
        self._measures = {value.name or "": _measure(value) for value in model.graph.outputs}
        self._expected = self._run(model)

    def of(self, model: ir.Model) -> float:
        """The mean over all outputs of floating point; 0 where there is none.

        Raises InputError where ``model`` cannot be run on the samples.
        """
        made = self._run(model)
        found = [
            _apart(self._measures[name], old, made[name]) for name, old in self._expected.items()
        ]
        return float(np.mean(found)) if found else 0.0

    def _run(self, model: ir.Model) -> dict[str, list[Array]]:
        """By name of the output one array for each feed: their shapes may differ."""
        taps = Taps(model, self._measures)
        runs = [taps(feed) for feed in self._feeds]
        return {
            name: [made[name] for made in runs]
            for name in self._measures
            if all(made[name].dtype.kind == "f" for made in runs)
        }


def divergence_of_classes(old: Array, new: Array) -> float:
    """KL(old || new) in nats, the mean over rows of logarithms of probabilities or logits."""
    old, new = log_softmax(old, axis=-1), log_softmax(new, axis=-1)
    return float((np.exp(old) * (old - new)).sum(axis=-1).mean())


def relative_error(old: Array, new: Array) -> float:
    """The mean squared error as a share of the variance."""
    return float(((new - old) ** 2).mean() / max(float(old.var()), _SMALLEST))


def _divergence_of_probabilities(old: Array, new: Array) -> float:
    return divergence_of_classes(*(np.log(np.maximum(each, _SMALLEST)) for each in (old, new)))


def _measure(output: ir.Value) -> Measure:
    producer = output.producer()
    if producer is not None and producer.op_type == "Softmax":
        return _divergence_of_probabilities
    is_logits = producer is not None and producer.op_type == "LogSoftmax"
    if is_logits or "logits" in (output.name or "").lower():
        return divergence_of_classes
    return relative_error


def _apart(measure: Measure, old: Sequence[Array], new: Sequence[Array]) -> float:
    """What ``measure`` says; all is lost where shapes depend on the data and are others now."""
    if [array.shape for array in old] != [array.shape for array in new]:
        return 1.0
    return measure(_flat(old), _flat(new))


def _flat(arrays: Sequence[Array]) -> Array:
    """Rows of all feeds, [rows, last axis]; one column where last axes differ."""
    widths = {array.shape[-1] if array.ndim > 1 else 1 for array in arrays}
    width = widths.pop() if len(widths) == 1 else 1
    return np.concatenate([array.reshape(-1, width) for array in arrays]).astype(np.float64)

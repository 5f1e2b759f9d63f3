"""Quantised graphs of one float graph, for any placement, from samples that are counted once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import onnx_ir as ir

from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.taps import Feed
from trimton.transforms.quantize.bias_correction import correct_bias
from trimton.transforms.quantize.calibration import Histogram, calibrate, feeds
from trimton.transforms.quantize.encoding import Encoding
from trimton.transforms.quantize.encodings import (
    KnownWeights,
    activation_encodings,
    constant_encodings,
)
from trimton.transforms.quantize.explain import TensorAccount, tensor_accounts
from trimton.transforms.quantize.feature_means import feature_means
from trimton.transforms.quantize.integer_layers import IntegerLayer, integer_layers
from trimton.transforms.quantize.judge import Judge
from trimton.transforms.quantize.placement import place
from trimton.transforms.quantize.product_rounding import ProductRounding
from trimton.transforms.quantize.ranges import range_method
from trimton.transforms.quantize.refinement import Refined, refine
from trimton.transforms.quantize.settings import AUTO, QuantizeSettings
from trimton.transforms.quantize.sites import Placement
from trimton.transforms.quantize.targets import Target
from trimton.transforms.quantize.write import write

# Weights that fit the samples are taken where they leave this share of the error on others: what
# they gain elsewhere is less than that.
_CLEARLY = 0.9

# Where a quantised model says which target it was made for.
TARGET_KEY = "trimton.quantize.target"


# Arrays by input (first axis = samples), or requests as the model takes them, any number of times.
Samples = Mapping[str, Array] | Iterable[Feed]


@dataclass(frozen=True)
class Quantised:
    """A quantised graph, the encodings of its activations by value, and what refining brought.

    ``rounded`` names the products whose weights make up for each other's rounding, ``corrected``
    the layers whose biases make up for the rounding of their weights;
    ``tensors`` tells what each encoding covers and loses.
    """

    model: ir.Model
    placement: Placement
    encodings: Mapping[str, Encoding]
    rounded: tuple[str, ...]
    corrected: tuple[str, ...]
    refined: tuple[Refined, ...]
    tensors: tuple[TensorAccount, ...]


@dataclass(frozen=True)
class _Written:
    """A quantised graph, the products rounded together and the layers with corrected biases."""

    model: ir.Model
    rounded: tuple[str, ...]
    corrected: tuple[str, ...]


class Quantiser:
    """Quantises ``prepared`` (see prepare) for ``target`` with ranges from ``samples``."""

    def __init__(
        self,
        prepared: ir.Model,
        samples: Samples,
        target: Target,
        settings: QuantizeSettings,
    ) -> None:
        self.prepared, self.samples = prepared, samples
        self._target, self._settings = target, settings
        # Left open, it is that of the extremes until a choice is made.
        named = settings.calibration_method
        self.use_method("minmax" if named == AUTO else named)
        self.histograms: dict[str, Histogram] = {}
        self._means: dict[str, Array] = {}
        self._known_weights: KnownWeights = {}
        self._rounding = ProductRounding(prepared, self.batches)
        self._judge: Judge | None = None

    def use_method(self, name: str) -> None:
        """From now on, choose ranges by this method. InputError where there is none."""
        self._method = range_method(name, self._settings.percentile)

    def place(self, exclude: Collection[str] = ()) -> Placement:
        """What becomes integers if the nodes of the settings and ``exclude`` stay in float."""
        names = [node.name or "" for node in self.prepared.graph]
        known = [
            pattern
            for pattern in (*self._settings.exclude, *exclude)
            if any(fnmatchcase(name, pattern) for name in names)
        ]
        placement = place(self.prepared, self._target, known)
        if self._settings.per_channel:
            return placement
        weights = tuple(replace(site, axis=None) for site in placement.weights)
        return replace(placement, weights=weights)

    def make(self, placement: Placement, *, refined: bool | None = None) -> Quantised:
        """The quantised graph; ``refined`` overrules the settings' ``refine``.

        Samples are counted for the values only that no placement before had.
        """
        self._calibrate(placement)
        encodings = activation_encodings(placement, self.histograms, self._method)
        constants = constant_encodings(self.prepared, placement, encodings, self._known_weights)

        def written(*, compensated: bool, judged: bool = False) -> _Written:
            model = self.prepared.clone()
            write(model, placement, encodings, constants, integer_bias=self._target.integer_bias)
            model.metadata_props[TARGET_KEY] = self._target.name
            layers = self._layers(model, placement) if compensated else ()
            rounded = self._rounding.round(layers, judged=judged)
            corrects = self._settings.correct_bias
            return _Written(
                model, rounded, self._correct_biases(model, placement) if corrects else ()
            )

        wanted = self._settings.refine if refined is None else refined
        best = written(compensated=False)
        if self._settings.compensate and refined is not False and not wanted:
            tried = written(compensated=True, judged=True)
            if tried.rounded and self._is_clearly_closer(tried.model, best.model):
                best = written(compensated=True)
        changes: tuple[Refined, ...] = ()
        if wanted and placement.weights:
            changes = refine(self.prepared, best.model, placement.weights, self.batches)
        tensors = tensor_accounts(placement, self.histograms, encodings)
        return Quantised(
            best.model, placement, encodings, best.rounded, best.corrected, changes, tensors
        )

    def _is_clearly_closer(self, new: ir.Model, old: ir.Model) -> bool:
        """Whether the outputs of ``new`` are, on samples that it was not fitted to."""
        if self._judge is None:
            self._judge = Judge(self.prepared, self.batches)
        return self._judge.error(new) < _CLEARLY * self._judge.error(old)

    def _layers(self, model: ir.Model, placement: Placement) -> tuple[IntegerLayer, ...]:
        return integer_layers(self.prepared, model, placement.weights)

    def _correct_biases(self, model: ir.Model, placement: Placement) -> tuple[str, ...]:
        """Correct the biases of ``model`` in place; the names of their layers."""
        biased = [x for x in self._layers(model, placement) if x.bias is not None]
        if new := [layer.linear for layer in biased if layer.linear.name not in self._means]:
            self._means |= feature_means(self.prepared, new, self.batches())
        for layer in biased:
            if layer.bias is not None:
                correct_bias(layer.bias, layer.change(), self._means[layer.linear.name])
        return tuple(layer.linear.name for layer in biased)

    def _calibrate(self, placement: Placement) -> None:
        sites = [
            site
            for site in placement.activations
            if any(name not in self.histograms for name in site.measured)
        ]
        if sites:
            stride = self._settings.stride
            self.histograms |= calibrate(self.prepared, sites, self.batches(), stride=stride)

    def batches(self) -> Iterable[Feed]:
        """The samples as feeds, from the first on each time."""
        if isinstance(self.samples, Mapping):
            return feeds(self.prepared, self.samples)
        return self.samples

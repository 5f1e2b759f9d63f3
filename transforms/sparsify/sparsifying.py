"""``sparsify``: weights set to zero by magnitude, by activation, or with compensation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError, TransformError, UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.inputs import interface
from trimton.transforms.graph.probe import compare_outputs, given_probes
from trimton.transforms.linear.evidence import gather, input_squares
from trimton.transforms.linear.fitting import Goal, errors
from trimton.transforms.linear.layers import LinearLayer, find_linear_layers, prepared
from trimton.transforms.prune.proof import output_difference
from trimton.transforms.report import Skipped, Step, TransformReport
from trimton.transforms.sparsify.compensate import compensated
from trimton.transforms.sparsify.pattern import Pattern, reading_order
from trimton.transforms.sparsify.settings import SparsifySettings
from trimton.transforms.sparsify.storage import Stored, deflated_bytes, packed

# Share of the features' mean variance that is added to their covariance.
_RIDGE = 1e-2
_NO_SPEED = Skipped(
    "speed",
    "ONNX Runtime's CPU kernels multiply by zeros like by any number: the model gets no faster "
    "there, only smaller where it is stored compressed",
)


def sparsify(
    model: ir.Model, settings: SparsifySettings, samples: Mapping[str, Array] | None = None
) -> tuple[ir.Model, TransformReport]:
    """A model with zeros among its weights and the interface of ``model``, and what was done.

    ``model`` itself is left as it is. ``samples`` are calibration inputs, arrays by input name,
    first axis = samples. Raises InputError where the method needs samples and there are none, or
    for settings that fit nothing; UnsupportedModelError where no layer can be sparse.
    """
    if settings.needs_samples and samples is None:
        raise InputError(f"method {settings.method!r}: needs samples; give --data.")
    work = prepared(model, "sparsify")
    pattern = settings.chosen()
    layers, skipped = _layers(work, pattern, settings.exclude)
    if not layers:
        raise UnsupportedModelError(_nothing(skipped))
    before = deflated_bytes(work)
    done = _METHODS[settings.method](work, layers, pattern, samples or {})
    stored = packed(layers, pattern)
    if interface(model) != interface(work):
        raise TransformError("the sparse model has another interface than the original.")
    difference, unmeasured = _difference(model, work, samples)
    return work, TransformReport(
        transform="sparsify",
        changed=True,
        before=model_cost(model),
        after=model_cost(work),
        max_relative_difference=difference,
        steps=(*done, *_storage(stored, before, deflated_bytes(work), pattern)),
        skipped=(*skipped, *unmeasured, _NO_SPEED),
    )


def _layers(
    work: ir.Model, pattern: Pattern, exclude: Sequence[str]
) -> tuple[tuple[LinearLayer, ...], tuple[Skipped, ...]]:
    found = find_linear_layers(work)
    for one in exclude:
        if not any(fnmatchcase(layer.name, one) for layer in found.layers):
            raise InputError(f"exclusion {one!r}: excludes no layer; take it out.")
    whys = {
        layer.output: "excluded by name"
        if any(fnmatchcase(layer.name, one) for one in exclude)
        else pattern.why_not(layer)
        for layer in found.layers
    }
    left_alone = [Skipped(layer.name, why) for layer in found.layers if (why := whys[layer.output])]
    layers = tuple(layer for layer in found.layers if whys[layer.output] is None)
    return layers, (*found.skipped, *left_alone)


def _by_magnitude(
    work: ir.Model, layers: Sequence[LinearLayer], pattern: Pattern, samples: Mapping[str, Array]
) -> tuple[Step, ...]:
    """The smallest weights of each layer go."""
    return tuple(
        _masked(layer, np.abs(layer.matrices()), pattern, by_output=False) for layer in layers
    )


def _by_activation(
    work: ir.Model, layers: Sequence[LinearLayer], pattern: Pattern, samples: Mapping[str, Array]
) -> tuple[Step, ...]:
    """|weight| times the norm of what it multiplies, among the weights of one output.

    Source: Sun et al., 2024, Wanda, arXiv:2306.11695.
    """
    squares = input_squares(work, layers, samples)
    return tuple(
        _masked(layer, np.abs(layer.matrices()) * np.sqrt(one)[..., None], pattern, by_output=True)
        for layer, one in zip(layers, squares, strict=True)
    )


def _with_compensation(
    work: ir.Model, layers: Sequence[LinearLayer], pattern: Pattern, samples: Mapping[str, Array]
) -> tuple[Step, ...]:
    """Layer by layer, on what each reads by then, towards what the original network had."""
    original, editor = work.clone(), Editor(work)
    return tuple(_compensate(original, work, layer, pattern, samples, editor) for layer in layers)


_Method = Callable[
    [ir.Model, Sequence[LinearLayer], Pattern, Mapping[str, Array]], tuple[Step, ...]
]
_METHODS: Mapping[str, _Method] = {
    "magnitude": _by_magnitude,
    "wanda": _by_activation,
    "compensated": _with_compensation,
}


def _masked(layer: LinearLayer, scores: Array, pattern: Pattern, *, by_output: bool) -> Step:
    """Keep the weights of the highest ``scores`` [groups, features, outputs], in place."""
    order = reading_order(layer)
    together = np.moveaxis(scores[:, order], 0, 1)  # [features, groups, outputs]
    flat = pattern.keep(together.reshape(len(order), -1), by_output=by_output)
    is_kept = np.empty(scores.shape, bool)
    is_kept[:, order] = np.moveaxis(flat.reshape(together.shape), 1, 0)
    layer.set_matrices(np.where(is_kept, layer.matrices(), 0.0))
    return _step(layer, pattern, {})


def _compensate(
    original: ir.Model,
    work: ir.Model,
    layer: LinearLayer,
    pattern: Pattern,
    samples: Mapping[str, Array],
    editor: Editor,
) -> Step:
    evidence = gather(original, work, layer, samples)
    order, old = reading_order(layer), layer.matrices()
    goal = Goal.of(old, evidence)
    new = np.empty_like(old)
    for group, everything in enumerate(evidence.everything):
        covariance, _ = everything.covariance(_RIDGE)
        new[group, order] = compensated(
            goal.weights[group, order], covariance[np.ix_(order, order)], pattern
        )
    shift = goal.shift(new, evidence)
    layer.set_matrices(new)
    layer.add_constant(shift.reshape(-1), editor)
    return _step(layer, pattern, errors(old, new, shift, evidence))


def _step(layer: LinearLayer, pattern: Pattern, error: Mapping[str, float]) -> Step:
    zeros = float((layer.matrices() == 0).mean())
    what = f"{layer.name}: {zeros:.1%} of its weights are zero ({pattern})"
    if error:
        what += f"; the error of what it adds to is {error['after']:.2%} of its variance"
    detail = {"layer": layer.name, "zeros": zeros, **({"error": dict(error)} if error else {})}
    return Step("sparsify", what, 1, detail)


def _storage(stored: Stored, before: int, after: int, pattern: Pattern) -> tuple[Step, ...]:
    sizes = (
        (f"packed as {pattern}", stored.dense_bytes, stored.packed_bytes),
        ("all weights compressed with zlib", before, after),
    )
    return tuple(
        Step(
            "storage",
            f"{how}: {new / old:.0%} of the bytes ({old:,} before, {new:,} after)",
            1,
            {"how": how, "bytes": {"before": old, "after": new}},
        )
        for how, old, new in sizes
    )


def _difference(
    model: ir.Model, work: ir.Model, samples: Mapping[str, Array] | None
) -> tuple[float | None, tuple[Skipped, ...]]:
    """On samples where there are any, else on random inputs."""
    if samples is None:
        return output_difference(model, work)
    differences = compare_outputs(work, given_probes(model, samples))
    worst = max((one.relative for one in differences), default=0.0)
    return (worst if np.isfinite(worst) else None), ()


def _nothing(skipped: Sequence[Skipped]) -> str:
    reasons = "; ".join(dict.fromkeys(f"{one.what}: {one.why}" for one in skipped[:3]))
    return f"no layer can be made sparse ({reasons or 'it has no convolution or matrix product'})."

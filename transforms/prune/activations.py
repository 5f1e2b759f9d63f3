"""What layers read on calibration samples, as means of each channel, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.edit import Array
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import one_line
from trimton.transforms.graph.probe import Probe, random_probes
from trimton.transforms.graph.session import ORT_ERRORS, custom_operators, open_session, run
from trimton.transforms.prune.ties import Layer

_BATCH = 16


@dataclass(frozen=True)
class ChannelMeans:
    """Means of each channel over all else, of x (``signed``) and of |x| (``absolute``)."""

    signed: Array
    absolute: Array


def batches(
    model: ir.Model, samples: Mapping[str, Array], *, at_most: int = _BATCH
) -> Iterable[Mapping[str, Array]]:
    """``samples`` (arrays by input name, first axis = samples) as feeds of ``at_most`` so many.

    A model with a fixed batch gets that many. Raises InputError where there are fewer.
    """
    specs = [spec for spec in input_specs(model) if spec.name in samples]
    if not specs:
        raise InputError("the samples given have no array for any input of the model.")
    fixed = [spec.shape[0] for spec in specs if spec.shape and spec.shape[0] is not None]
    count = min(len(samples[spec.name]) for spec in specs)
    batch = fixed[0] if fixed else min(at_most, count)
    if not count or batch > count:
        raise InputError(f"the samples given are {count}; the model takes {batch} at once.")
    for start in range(0, count - batch + 1, batch):
        yield {spec.name: samples[spec.name][start : start + batch] for spec in specs}


def random_feeds(model: ir.Model) -> tuple[Mapping[str, Array], ...]:
    """Random inputs that the model can be run on; none where there are no such."""
    try:
        probes: tuple[Probe, ...] = random_probes(model)
    except UnsupportedModelError:
        return ()
    return tuple(probe.inputs for probe in probes)


def channel_means(
    model: ir.Model, layers: Sequence[Layer], feeds: Iterable[Mapping[str, Array]]
) -> Mapping[tuple[str, int], ChannelMeans]:
    """By (value name, axis) the means of what ``layers`` of the main graph read.

    Memory does not depend on the number of samples. Raises UnsupportedModelError where the model
    cannot be run here, InputError where it cannot be run on the samples.
    """
    wanted = {(layer.activation.name or "", layer.activation_axis): layer for layer in layers}
    if custom := custom_operators(model):
        raise UnsupportedModelError(f"ONNX Runtime does not know {', '.join(custom)}.")
    try:
        session = open_session(_tapped(model, {name for name, _ in wanted}), optimise=True)
    except ORT_ERRORS as error:
        raise UnsupportedModelError(
            f"the model cannot be run here: {one_line(str(error))}."
        ) from error
    sums: dict[tuple[str, int], tuple[Array, Array]] = {}
    count = 0
    for feed in feeds:
        try:
            values = run(session, feed)
        except ORT_ERRORS as error:
            raise InputError(
                f"the model cannot be run on the samples given: {one_line(str(error))}."
            ) from error
        count += 1
        for name, axis in wanted:
            array = np.moveaxis(np.asarray(values.get(name, feed.get(name))), axis, 0)
            flat = array.reshape(len(array), -1)
            signed = flat.mean(axis=1, dtype=np.float64)
            absolute = np.abs(flat).mean(axis=1, dtype=np.float64)
            old = sums.get((name, axis))
            sums[name, axis] = (
                (signed, absolute) if old is None else (old[0] + signed, old[1] + absolute)
            )
    return {key: ChannelMeans(s / count, a / count) for key, (s, a) in sums.items()}


def _tapped(model: ir.Model, names: set[str]) -> ir.Model:
    """A copy of ``model`` whose outputs are these values."""
    copy = model.clone()
    values = [value for node in copy.graph for value in node.outputs if value.name in names]
    present = {value.name for value in copy.graph.outputs}
    copy.graph.outputs.extend(value for value in values if value.name not in present)
    return copy

"""Weight-only quantisation: matrices and tables stored in blocks of 4 or 8 bits.

Source: ONNX Runtime, operators com.microsoft.MatMulNBits and com.microsoft.GatherBlockQuantized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.names import matches, require_names
from trimton.transforms.graph.outcome import measured_difference
from trimton.transforms.graph.quantised import require_float
from trimton.transforms.graph.unread import remove_unread
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.products import Found, Product, Site, Table, find_sites
from trimton.transforms.quantize.weight_only.blocks import BlockFormat, Blocks, closest_blocks
from trimton.transforms.quantize.weight_only.compensation import compensated_blocks, output_loss
from trimton.transforms.quantize.weight_only.evidence import input_moments
from trimton.transforms.quantize.weight_only.restored import (
    Restorable,
    Restored,
    find_restorable,
    write_restored,
)
from trimton.transforms.quantize.weight_only.settings import WeightOnlySettings
from trimton.transforms.quantize.weight_only.write import Writer
from trimton.transforms.report import Skipped, Step, TransformReport

# Stored in blocks, a weight must shrink at least to this share of its bytes.
_MOST_OF_FLOAT = 0.6
_NO_KERNEL = {
    op_type: f"{what} have no kernel for weights in blocks; restore stores them all the same"
    for what, op_types in (
        ("convolutions", ("Conv", "ConvTranspose")),
        ("recurrent layers", ("GRU", "LSTM", "RNN")),
    )
    for op_type in op_types
}


@dataclass(frozen=True)
class _Stored:
    """A site and its ``blocks``; ``gain`` is the share of its output error that compensated
    rounding left, None where there was none."""

    site: Site
    rows: Array
    blocks: Blocks
    gain: float | None = None


def quantize_weights(
    model: ir.Model,
    settings: WeightOnlySettings | None = None,
    samples: Mapping[str, Array] | None = None,
) -> tuple[ir.Model, TransformReport]:
    """A copy of ``model`` whose large matrices and tables are integers in blocks, and a report.

    With ``samples`` (arrays by input name, first axis = samples) weights of the main graph are
    rounded so that they make up for each other's errors on what they multiply there. Raises
    UnsupportedModelError for a model that is quantised already or has nothing to store in blocks,
    InputError for samples or exclusions that do not fit.
    """
    chosen = settings or WeightOnlySettings()
    require_float(model)
    work, raised = prepare(model)
    require_names(work, chosen.exclude)
    found = find_sites(work, {} if chosen.restore else _NO_KERNEL)
    sites, skipped = _kept(found, chosen)
    others, no_others = _restorable(work, chosen)
    skipped = (*skipped, *no_others)
    if not sites and not others:
        raise UnsupportedModelError(_nothing(skipped))
    stored = [_stored(site, chosen.form) for site in sites]
    if samples is not None:
        stored = _compensated(work, stored, samples, chosen.form)
    editor = Editor(work)
    writer = Writer(editor, chosen.form, chosen.compute)
    for one in stored:
        writer.write(one.site, one.blocks)
    restored = [write_restored(one, editor) for one in others]
    remove_unread(work)
    difference, unmeasured = measured_difference(model, work, samples)
    return work, TransformReport(
        transform="quantize_weights",
        changed=True,
        before=model_cost(model),
        after=model_cost(work),
        max_relative_difference=difference,
        steps=(*raised, *_steps(stored, chosen), *_restored_step(restored)),
        skipped=(*skipped, *unmeasured),
    )


def _kept(
    found: Found, settings: WeightOnlySettings
) -> tuple[tuple[Site, ...], tuple[Skipped, ...]]:
    """The sites that are stored in blocks, and the others with the reason."""
    sites: tuple[Site, ...] = (*found.products, *found.tables)
    reasons = {site.name: _why_not(site, settings) for site in sites}
    kept = tuple(site for site in sites if reasons[site.name] is None)
    return kept, (*found.skipped, *(Skipped(name, why) for name, why in reasons.items() if why))


def _restorable(
    work: ir.Model, settings: WeightOnlySettings
) -> tuple[list[Restorable], tuple[Skipped, ...]]:
    """The weights without a kernel that are stored as integers all the same, if asked for."""
    if not settings.restore:
        return [], ()
    found, skipped = find_restorable(work)
    kept: list[Restorable] = []
    excluded: list[Skipped] = []
    for one in found:
        readers = [node.name or "" for node, _ in one.value.uses()]
        if any(matches(name, settings.exclude) for name in readers):
            excluded.append(Skipped(", ".join(readers), "excluded by name"))
        else:
            kept.append(one)
    return kept, (*skipped, *excluded)


def _why_not(site: Site, settings: WeightOnlySettings) -> str | None:
    if matches(site.name, settings.exclude):
        return "excluded by name"
    if isinstance(site, Table) and not settings.tables:
        return "tables stay in float"
    share = _share(site, settings.form)
    if share > _MOST_OF_FLOAT:
        return f"in blocks of {settings.block} it would take {share:.0%} of its bytes"
    return None


def _share(site: Site, form: BlockFormat) -> float:
    """What ``site`` takes in blocks, as a share of its bytes in float."""
    blocks = -(-site.terms // form.block)
    numbers = site.terms if isinstance(site, Table) else blocks * form.block
    bits = numbers * form.bits + blocks * (32 + (0 if form.is_symmetric else form.bits))
    return bits / (32 * site.terms)


def _stored(site: Site, form: BlockFormat) -> _Stored:
    rows = site.rows()
    return _Stored(site, rows, closest_blocks(rows, form))


def _compensated(
    work: ir.Model, stored: Sequence[_Stored], samples: Mapping[str, Array], form: BlockFormat
) -> list[_Stored]:
    """``stored`` with the weights of products rounded for what they multiply on ``samples``."""
    products = [one.site for one in stored if isinstance(one.site, Product)]
    by_node = {one.site.node: one for one in stored}
    for product, gram in input_moments(work, products, samples):
        old = by_node[product.node]
        blocks = compensated_blocks(old.rows, old.blocks, gram, form)
        before, after = (output_loss(old.rows, b, gram).sum() for b in (old.blocks, blocks))
        gain = float(after / before) if before > 0 else 1.0
        by_node[product.node] = replace(old, blocks=blocks, gain=gain)
    return list(by_node.values())


def _steps(stored: Sequence[_Stored], settings: WeightOnlySettings) -> tuple[Step, ...]:
    """One step for each operator, its nodes in the detail."""
    op_types = sorted({one.site.node.op_type for one in stored})
    zero_points = "" if settings.symmetric else " with zero points"
    form = f"{settings.bits}-bit integers in blocks of {settings.block}{zero_points}"
    return tuple(
        Step(
            "blocks",
            f"{op_type} weights stored as {form}{_gain(some)}",
            len(some),
            {
                "op_type": op_type,
                "bits": settings.bits,
                "block": settings.block,
                "symmetric": settings.symmetric,
                "compute": settings.compute,
                "nodes": [_detail(one) for one in some],
            },
        )
        for op_type in op_types
        if (some := [one for one in stored if one.site.node.op_type == op_type])
    )


def _restored_step(restored: Sequence[Restored]) -> tuple[Step, ...]:
    if not restored:
        return ()
    what = "weights stored as 8-bit integers that are float32 again once the model is loaded"
    nodes = [{"name": one.name, "sqnr_db": _decibels(one.noise, one.signal)} for one in restored]
    return (Step("restored", what, len(restored), {"bits": 8, "weights": nodes}),)


def _gain(stored: Sequence[_Stored]) -> str:
    gains = [one.gain for one in stored if one.gain is not None]
    if not gains:
        return ""
    return f"; compensated rounding left {np.median(gains):.0%} of their output error (median)"


def _detail(one: _Stored) -> dict[str, object]:
    noise = float(np.square(one.blocks.dequantised() - one.rows, dtype=np.float64).sum())
    signal = float(np.square(one.rows, dtype=np.float64).sum())
    return {
        "name": one.site.name,
        "sqnr_db": _decibels(noise, signal),
        "output_error_left": one.gain,
    }


def _decibels(noise: float, signal: float) -> float | None:
    """Signal to noise of weights; None where they are kept exactly."""
    return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else None


def _nothing(skipped: Sequence[Skipped]) -> str:
    reasons = "; ".join(dict.fromkeys(f"{one.what}: {one.why}" for one in skipped[:3]))
    return (
        "nothing to store in blocks: no product of rows and a large matrix, and no large table "
        f"({reasons or 'it has neither'})."
    )

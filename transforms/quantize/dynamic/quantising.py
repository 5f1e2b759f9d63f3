"""Dynamic quantisation: int8 weights, and activations whose range is taken at each run.

No calibration samples are needed, and none can be wrong; the price is a look at the activations
before each product. Source: ONNX operator DynamicQuantizeLinear; Jacob et al. 2018,
arXiv:1712.05877.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, Editor
from trimton.transforms.graph.names import matches, require_names
from trimton.transforms.graph.outcome import measured_difference
from trimton.transforms.graph.quantised import require_float
from trimton.transforms.graph.unread import remove_unread
from trimton.transforms.quantize.dynamic.products import ProductWriter
from trimton.transforms.quantize.dynamic.recurrent import Lstm, find_lstms, write_lstm
from trimton.transforms.quantize.dynamic.settings import DynamicSettings
from trimton.transforms.quantize.integer_rows import IntegerRows, integer_rows
from trimton.transforms.quantize.norm_sums import keep_norm_sums
from trimton.transforms.quantize.prepare import prepare
from trimton.transforms.quantize.products import Product, Table, find_sites
from trimton.transforms.quantize.targets import Target, target_named
from trimton.transforms.quantize.weight_only.blocks import BlockFormat, closest_blocks
from trimton.transforms.quantize.weight_only.write import Writer as BlockWriter
from trimton.transforms.report import Skipped, Step, TransformReport

# Tables are looked up, not multiplied: they are stored in blocks of 8 bits.
_TABLE = BlockFormat(bits=8, block=128)
_NO_KERNEL = {
    "Conv": "convolutions with ranges of the moment have no fast kernel; quantise them statically",
    "ConvTranspose": "it has no 8-bit kernel",
    "GRU": "it has no 8-bit kernel",
    "RNN": "it has no 8-bit kernel",
}

_Site = Product | Table | Lstm


@dataclass(frozen=True)
class _Written:
    """A site that is quantised, with squared error and squares of its weights."""

    op_type: str
    name: str
    noise: float
    signal: float


def quantize_dynamic(
    model: ir.Model,
    settings: DynamicSettings | None = None,
    samples: Mapping[str, Array] | None = None,
) -> tuple[ir.Model, TransformReport]:
    """A copy of ``model`` whose products and LSTMs compute in integers, and a report.

    ``samples`` (arrays by input name, first axis = samples) are only compared on. Raises
    UnsupportedModelError for a model that is quantised already, has nothing to quantise or a
    target without such kernels; InputError for exclusions or samples that do not fit.
    """
    chosen = settings or DynamicSettings()
    target = target_named(chosen.target)
    _require_kernels(target)
    require_float(model)
    work, raised = prepare(model)
    require_names(work, chosen.exclude)
    lstms, no_lstms = find_lstms(work)
    found = find_sites(work, _NO_KERNEL)
    sites, excluded = _kept((*found.products, *lstms, *found.tables), chosen)
    skipped = (*found.skipped, *no_lstms, *excluded)
    if not sites:
        raise UnsupportedModelError(_nothing(skipped))
    written = _write(work, sites, chosen, target)
    remove_unread(work)
    sums = keep_norm_sums(work) if target.sums_norms else ()
    difference, unmeasured = measured_difference(model, work, samples)
    return work, TransformReport(
        transform="quantize_dynamic",
        changed=True,
        before=model_cost(model),
        after=model_cost(work),
        max_relative_difference=difference,
        steps=(*raised, *_steps(written, target), *sums),
        skipped=(*skipped, *unmeasured),
    )


def _require_kernels(target: Target) -> None:
    if target.symmetric or target.refusal is not None:
        raise UnsupportedModelError(
            f"target {target.name}: has no kernels with ranges of the moment; take a processor's, "
            f"such as avx2, or quantise statically."
        )


def _kept(sites: Sequence[_Site], settings: DynamicSettings) -> tuple[list[_Site], list[Skipped]]:
    kept: list[_Site] = []
    skipped: list[Skipped] = []
    for site in sites:
        if matches(site.name, settings.exclude):
            skipped.append(Skipped(site.name, "excluded by name"))
        elif isinstance(site, Table) and not settings.tables:
            skipped.append(Skipped(site.name, "tables stay in float"))
        else:
            kept.append(site)
    return kept, skipped


def _write(
    work: ir.Model, sites: Sequence[_Site], settings: DynamicSettings, target: Target
) -> list[_Written]:
    def encode(rows: Array) -> IntegerRows:
        return integer_rows(rows, per_channel=settings.per_channel, saturates=target.saturates)

    editor = Editor(work)
    products, tables = ProductWriter(editor), BlockWriter(editor, _TABLE, "float32")
    written: list[_Written] = []
    for site in sites:
        op_type = site.node.op_type
        if isinstance(site, Lstm):
            noise, signal = write_lstm(site, encode, editor).sum(axis=0)
        elif isinstance(site, Table):
            rows, blocks = site.rows(), closest_blocks(site.rows(), _TABLE)
            tables.write(site, blocks)
            noise, signal = _squares(blocks.dequantised() - rows), _squares(rows)
        else:
            rows, encoded = site.rows(), encode(site.rows())
            products.write(site, encoded)
            noise, signal = _squares(encoded.dequantised() - rows), _squares(rows)
        written.append(_Written(op_type, site.name, float(noise), float(signal)))
    return written


def _squares(array: Array) -> float:
    return float(np.square(array, dtype=np.float64).sum())


_WHAT = {
    "Gather": "tables stored as 8-bit integers in blocks of 128",
    "LSTM": "layers computed on 8-bit values, state included",
}


def _steps(written: Sequence[_Written], target: Target) -> tuple[Step, ...]:
    return tuple(
        Step(
            "quantise",
            f"{op_type} {_WHAT.get(op_type, 'computed on 8-bit values')}",
            len(some),
            {
                "op_type": op_type,
                "target": target.name,
                "nodes": [{"name": one.name, "sqnr_db": _decibels(one)} for one in some],
            },
        )
        for op_type in sorted({one.op_type for one in written})
        if (some := [one for one in written if one.op_type == op_type])
    )


def _decibels(one: _Written) -> float | None:
    """Signal to noise of the weights alone; None where they are kept exactly."""
    has_both = one.noise > 0 and one.signal > 0
    return float(10 * np.log10(one.signal / one.noise)) if has_both else None


def _nothing(skipped: Sequence[Skipped]) -> str:
    reasons = "; ".join(dict.fromkeys(f"{one.what}: {one.why}" for one in skipped[:3]))
    return (
        "nothing to quantise dynamically: no product of rows and a large matrix, no LSTM and no "
        f"large table ({reasons or 'it has none'})."
    )

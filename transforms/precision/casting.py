"""Casting a model to half precision: what computes in it, and what is only stored in it.

Sources: Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740, for what needs
float32; Kalamkar et al. 2019, arXiv:1905.12322, for bfloat16.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from trimton.core.errors import UnsupportedModelError
from trimton.transforms.graph.cost import model_cost
from trimton.transforms.graph.edit import Array, constant_array, opset_of
from trimton.transforms.graph.names import require_names
from trimton.transforms.graph.outcome import measured_difference
from trimton.transforms.graph.quantised import require_float
from trimton.transforms.graph.unread import remove_unread
from trimton.transforms.precision.formats import HalfFormat
from trimton.transforms.precision.interface import halve_interface
from trimton.transforms.precision.islands import PRODUCTS, Candidates, obstacle, slot_values
from trimton.transforms.precision.ranges import largest_values
from trimton.transforms.precision.regions import MUST, Flow, nodes_in_half
from trimton.transforms.precision.settings import CastSettings
from trimton.transforms.precision.slots import Slots
from trimton.transforms.precision.write import HalfWriter, Written, float_weights
from trimton.transforms.quantize.prepare import with_names_and_types
from trimton.transforms.report import Skipped, Step, TransformReport

# A weight of fewer numbers is not worth the Cast that brings it back to float32.
_LEAST_NUMBERS = 256
_OPSET_OF_BFLOAT16 = 13
# What half precision saves in a node that is no product; a Cast costs regions.CAST_COST.
_GAINS = {"cpu": 0, "gpu": 1}
_SPEED = {
    "cpu": "where the CPU provider has no kernels for products in half precision, weights become "
    "float32 again when the model is loaded: the file is half as large, and the model as fast "
    "and as large in memory as before",
    "gpu": "not measured here: half precision is for GPUs (CUDA, TensorRT), which compute products "
    "in it; a CPU has to cast around its kernels and is no faster",
}


def cast(
    model: ir.Model,
    settings: CastSettings | None = None,
    samples: Mapping[str, Array] | None = None,
) -> tuple[ir.Model, TransformReport]:
    """A copy of ``model`` in half precision where ``settings`` say, and what was done.

    ``samples`` (arrays by input name, first axis = samples) tell how large values become; without
    them random inputs do. Raises UnsupportedModelError for a quantised model or one with nothing
    to cast, InputError for samples or exclusions that do not fit.
    """
    chosen = settings or CastSettings()
    require_float(model)
    _require_opset(model, chosen.form)
    work = with_names_and_types(model.clone())
    require_names(work, chosen.exclude)
    before = model_cost(work)
    candidates = Candidates(work, chosen)
    skipped = list(_limit(work, candidates, chosen, samples))
    slots = _in_half(work, candidates, chosen)
    writer = HalfWriter(work, chosen.form, slots)
    skipped += _write_weights(work, writer, chosen.form)
    writer.write_activations()
    remove_unread(work)
    if not slots and not writer.written.stored:
        raise UnsupportedModelError(_nothing(chosen.form, skipped))
    difference, unmeasured = measured_difference(model, work, samples, may_lack_kernels=True)
    if not chosen.keep_io:
        halve_interface(work, chosen.form.dtype)
    return work, TransformReport(
        transform="cast",
        changed=True,
        before=before,
        after=model_cost(work),
        max_relative_difference=difference,
        steps=_steps(slots, writer.written, chosen.form),
        skipped=(
            *_why_single(candidates, chosen),
            *skipped,
            *unmeasured,
            Skipped("speed", _SPEED[chosen.target]),
        ),
    )


def _require_opset(model: ir.Model, form: HalfFormat) -> None:
    opset = opset_of(model)
    if form.dtype == ir.DataType.BFLOAT16 and opset < _OPSET_OF_BFLOAT16:
        raise UnsupportedModelError(
            f"{form.name} needs operator set {_OPSET_OF_BFLOAT16}, and the model has {opset}; "
            f"convert it with onnx.version_converter, or take float16."
        )


def _limit(
    work: ir.Model,
    candidates: Candidates,
    settings: CastSettings,
    samples: Mapping[str, Array] | None,
) -> tuple[Skipped, ...]:
    """Take out of ``candidates`` what gains nothing or has too large values."""
    if not any(node.op_type in PRODUCTS for node in candidates.slots) and not _gain(settings):
        for node in list(candidates.slots):
            candidates.refuse(node, "no product computes in half precision, so it gains nothing")
        return ()
    values = {
        value.name: None
        for node, slots in candidates.slots.items()
        for value in slot_values(node, slots)
        if value.name
    }
    try:
        candidates.refuse_large_values(largest_values(work, list(values), samples))
    except UnsupportedModelError as error:
        return (Skipped("ranges", f"how large values become is not known: {error}"),)
    return ()


def _gain(settings: CastSettings) -> int:
    return _GAINS[settings.target]


def _in_half(
    work: ir.Model, candidates: Candidates, settings: CastSettings
) -> dict[ir.Node, Slots]:
    """The candidates that compute in half precision, with as few Casts as that takes."""
    slots = candidates.slots
    if not slots:
        return {}
    gains = {node: MUST if node.op_type in PRODUCTS else _gain(settings) for node in slots}
    values = [
        *(value for value in work.graph.inputs if not value.is_initializer()),
        *(output for node in work.graph for output in node.outputs),
    ]
    flows = [_flow(value, slots) for value in values if value.dtype == ir.DataType.FLOAT]
    chosen = nodes_in_half(gains, flows)
    for node in [node for node in slots if node not in chosen]:
        candidates.refuse(node, "its neighbours compute in float32, and Casts would cost more")
    return dict(slots)


def _flow(value: ir.Value, slots: Mapping[ir.Node, Slots]) -> Flow[ir.Node]:
    maker = value.producer()
    makes = maker is not None and maker in slots and value.index() in slots[maker].outputs
    readers = [
        node if node in slots and index in slots[node].inputs else None
        for node, index in value.uses()
    ]
    if value.is_graph_output():
        readers.append(None)
    return Flow(maker if makes else None, tuple(dict.fromkeys(readers)))


def _write_weights(work: ir.Model, writer: HalfWriter, form: HalfFormat) -> list[Skipped]:
    """Store weights in half precision, for all nodes that read them; tells what stays."""
    skipped: list[Skipped] = []
    small = 0
    for value in float_weights(work, list(work.graphs())):
        array = constant_array(value)
        if array is None or not array.size:
            continue
        singles = [use for use in value.uses() if not writer.reads_half(*use)]
        whys = (obstacle(form, node, index, array) for node, index in singles)
        why = next((why for why in whys if why is not None), None)
        is_small = array.size < _LEAST_NUMBERS
        if singles and why is not None:
            skipped.append(Skipped(value.name or "", f"stays float32: {why}"))
        elif singles and is_small:
            small += 1
        writer.write_weight(value, array, restore=why is None and not is_small)
    if small:
        why = f"fewer than {_LEAST_NUMBERS} numbers each, not worth a Cast back to float32"
        skipped.append(Skipped(f"{small} small constants", why))
    return skipped


def _why_single(candidates: Candidates, settings: CastSettings) -> tuple[Skipped, ...]:
    """Why nodes compute in float32; where none could gain, once for all of them."""
    if settings.target == "cpu" and not candidates.slots:
        return (
            Skipped(
                "all nodes",
                f"compute in float32: the CPU provider of this machine has no "
                f"{settings.form.name} kernels for products",
            ),
        )
    return tuple(Skipped(node.name or "", why) for node, why in candidates.reasons.items())


def _steps(slots: Mapping[ir.Node, Slots], written: Written, form: HalfFormat) -> tuple[Step, ...]:
    steps: list[Step] = []
    if slots:
        names = [node.name for node in slots]
        steps.append(Step("compute", f"nodes compute in {form.name}", len(slots), {"nodes": names}))
    if written.casts:
        what = f"Casts between float32 and {form.name} activations"
        steps.append(Step("casts", what, written.casts))
    if written.stored:
        detail = {"stored": written.stored, "restored": written.restored}
        back = ""
        if written.restored:
            back = f", {len(written.restored)} of them cast back to float32 at loading"
        what = f"weights stored in {form.name}{back}"
        steps.append(Step("weights", what, len(written.stored), detail))
    return tuple(steps)


def _nothing(form: HalfFormat, skipped: Collection[Skipped]) -> str:
    reasons = "; ".join(dict.fromkeys(f"{one.what}: {one.why}" for one in list(skipped)[:3]))
    return f"nothing to cast to {form.name} ({reasons or 'the model has no float32 weights'})."

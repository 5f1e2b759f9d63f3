"""What distillation says that it did, measured in ONNX Runtime on what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

import onnx_ir as ir

from trimton.transforms.distill.checkpoint import Ledger
from trimton.transforms.distill.group_sparsity import weak_half
from trimton.transforms.distill.objective import Quality
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.report import Skipped, Step


def trained_step(
    ledger: Ledger, before: Quality, after: Quality, held_out: int, settings: DistillSettings
) -> Step:
    """The one step of the report: held-out loss, agreement and accuracy before and after."""
    epochs = len(ledger.losses) - 1
    parts = [f"loss {before.loss:.4g} -> {after.loss:.4g}"]
    if before.agreement is not None and after.agreement is not None:
        parts.append(f"agreement {before.agreement:.2%} -> {after.agreement:.2%}")
    if before.accuracy is not None and after.accuracy is not None:
        parts.append(f"accuracy {before.accuracy:.2%} -> {after.accuracy:.2%}")
    kept = "kept" if settings.group_sparsity else "best"
    best = f"the {kept} one is {ledger.best_epoch}" if ledger.best_epoch else "none of which helped"
    return Step(
        name="train",
        what=f"epochs trained, {best}; on {held_out:,} held-out samples {', '.join(parts)}",
        count=epochs,
        detail={
            "epochs": epochs,
            "best_epoch": ledger.best_epoch,
            "held_out_samples": held_out,
            "loss": {"before": _number(before.loss), "after": _number(after.loss)},
            "agreement": {"before": before.agreement, "after": after.agreement},
            "accuracy": {"before": before.accuracy, "after": after.accuracy},
            "held_out_losses": [_number(loss) for loss in ledger.losses],
            "optimiser": settings.optimiser,
            "learning_rate": settings.highest_rate,
            "seed": settings.seed,
        },
    )


def sparsity_step(
    student: ir.Model, trained: ir.Model, settings: DistillSettings
) -> Iterator[Step]:
    """How small the weaker half of the channels became, where that was asked for."""
    if not settings.group_sparsity:
        return
    before, after = weak_half(student), weak_half(trained)
    what = f"weaker half of every group's channels: {before:.2%} -> {after:.2%} of all norms"
    detail = {"strength": settings.group_sparsity, "weak_half": {"before": before, "after": after}}
    yield Step("group-sparsity", what, 1, detail)


def left_out(
    ledger: Ledger, pairs: Sequence[object], batch: int, settings: DistillSettings
) -> Iterator[Skipped]:
    """Epochs, statistics and pairs that did not come to be."""
    if ledger.stopped is not None:
        yield Skipped("the rest of the training", ledger.stopped)
    if settings.feature_weight and not pairs:
        yield Skipped(
            "features",
            "no values of the two models have one shape, or one name and all sizes but one",
        )
    if settings.batch_norm == "train" and batch == 1:
        why = "a batch is one sample, which has no statistics to speak of"
        yield Skipped("running statistics of BatchNormalizations", why)


def _number(value: float) -> float | None:
    """``value``, None for what JSON has no word for."""
    return value if isfinite(value) else None

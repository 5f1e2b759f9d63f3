"""What distillation says that it did, measured in ONNX Runtime on what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimton.transforms.distill.checkpoint import Ledger
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
    return Step(
        name="train",
        what=f"epochs trained, the best is {ledger.best_epoch}; on {held_out:,} held-out samples "
        + ", ".join(parts),
        count=epochs,
        detail={
            "epochs": epochs,
            "best_epoch": ledger.best_epoch,
            "held_out_samples": held_out,
            "loss": {"before": before.loss, "after": after.loss},
            "agreement": {"before": before.agreement, "after": after.agreement},
            "accuracy": {"before": before.accuracy, "after": after.accuracy},
            "held_out_losses": list(ledger.losses),
            "optimiser": settings.optimiser,
            "learning_rate": settings.highest_rate,
            "seed": settings.seed,
        },
    )


def left_out(
    ledger: Ledger, pairs: Sequence[object], settings: DistillSettings
) -> Iterator[Skipped]:
    """Epochs and pairs that did not come to be."""
    if ledger.stopped is not None:
        yield Skipped("the rest of the training", ledger.stopped)
    if settings.feature_weight and not pairs:
        yield Skipped("features", "no values of the two models have the same shape")

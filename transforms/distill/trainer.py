"""The training loop: steps, a judgement after every epoch, and the best weights kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from trimton.transforms.distill.averages import Averages
from trimton.transforms.distill.batches import Batch, BatchSource
from trimton.transforms.distill.checkpoint import Ledger, Tensors, load_state, save_state
from trimton.transforms.distill.feeds import feeds_of
from trimton.transforms.distill.group_sparsity import GroupSparsity
from trimton.transforms.distill.interpreter import OnnxModule
from trimton.transforms.distill.objective import Objective
from trimton.transforms.distill.optimisers import optimiser_of
from trimton.transforms.distill.schedule import learning_rate
from trimton.transforms.distill.settings import DistillSettings
from trimton.transforms.distill.split import order_of


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training is: ``done`` steps of ``steps``, the least held-out loss so far."""

    epoch: int
    epochs: int
    done: int
    steps: int
    best_held_out: float


@dataclass(frozen=True)
class Lessons:
    """What a student learns from: ``count`` samples of ``source``, ``batch`` at once.

    ``held_out`` judges; ``judged_at_once`` of its samples run together, and no fewer than
    ``smallest`` can.
    """

    source: BatchSource
    count: int
    batch: int
    held_out: Batch
    judged_at_once: int
    smallest: int

    @property
    def steps(self) -> int:
        """Steps of one epoch; what is left over is another part every time."""
        return self.count // self.batch


class Trainer:
    """Trains ``student`` towards ``objective``.

    ``sparsity`` makes channels small after every step; then the last weights count as the best.
    State is saved in ``checkpoint``, and what is there already is gone on from: the outcome is the
    same, bit by bit, however often a training is interrupted.
    """

    def __init__(
        self,
        student: OnnxModule,
        objective: Objective,
        lessons: Lessons,
        settings: DistillSettings,
        checkpoint: Path,
        on_progress: Callable[[TrainingProgress], None],
        sparsity: GroupSparsity | None = None,
    ) -> None:
        self._student, self._objective, self._lessons = student, objective, lessons
        self._settings = settings
        self._checkpoint, self._on_progress = checkpoint, on_progress
        self._sparsity = sparsity
        self._averages = Averages(student, settings.averaging)
        self._optimiser = optimiser_of(student, settings)
        self._saved_at = time.monotonic()

    def run(self) -> Ledger:
        """Train to the end, and say what came of it; the student keeps its last weights.

        Raises InputError where the checkpoint is something else, and where the disk refuses.
        """
        ledger = self._resumed() or self._begun()
        while ledger.stopped is None and ledger.epoch < self._settings.epochs:
            ledger = self._epoch(ledger)
            self._save(ledger)
        return ledger

    def _epoch(self, ledger: Ledger) -> Ledger:
        """The steps left of an epoch, and the judgement behind them."""
        self._student.train()
        batch = self._lessons.batch
        order = order_of(ledger.epoch, self._lessons.count, self._settings.seed)
        for step in range(ledger.step, self._lessons.steps):
            chosen = order[step * batch : (step + 1) * batch]
            done = ledger.epoch * self._lessons.steps + step
            loss = self._step(done, self._lessons.source.batch(ledger.epoch, step, chosen))
            if not isfinite(loss):
                where = f"epoch {ledger.epoch + 1}, step {step + 1}"
                return replace(ledger, step=step, stopped=f"the loss is {loss} in {where}")
            ledger = replace(ledger, step=step + 1)
            self._tell(ledger)
            if time.monotonic() - self._saved_at > self._settings.checkpoint_every_s:
                self._save(ledger)
        return self._judged(ledger)

    def _step(self, done: int, batch: Batch) -> float:
        """One step; gives the loss before it. A loss that is no number changes nothing."""
        settings = self._settings
        steps = settings.epochs * self._lessons.steps
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(done, steps, settings.highest_rate, settings.warmup)
        with self._precision():
            made = self._student(feeds_of(batch.inputs), self._objective.wanted)
        loss: Tensor = self._objective.loss(made, batch.answers, batch.labels)
        if isfinite(value := float(loss.detach())):
            self._optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self._optimiser.step()
            if self._sparsity is not None:
                self._sparsity.shrink(done)
            self._averages.update(done)
        return value

    def _judged(self, ledger: Ledger) -> Ledger:
        """``ledger`` after an epoch: the averaged weights are judged, and kept if they are best."""
        with self._averages.in_place():
            loss = self._held_out_loss()
            # What is sought with sparsity is not the least loss: the last weights are kept.
            is_best = isfinite(loss) if self._sparsity is not None else loss < ledger.best_loss
            best = _copy(self._student) if is_best else ledger.best
        epoch = ledger.epoch + 1
        judged = replace(
            ledger,
            epoch=epoch,
            step=0,
            best=best,
            best_loss=loss if is_best else ledger.best_loss,
            best_epoch=epoch if is_best else ledger.best_epoch,
            losses=(*ledger.losses, loss),
        )
        return replace(judged, stopped=self._reason_to_stop(judged))

    def _reason_to_stop(self, ledger: Ledger) -> str | None:
        patience = self._settings.patience
        if patience is None or ledger.epoch - ledger.best_epoch < patience:
            return None
        return f"{patience} epochs brought nothing on held-out samples, up to epoch {ledger.epoch}"

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """The loss of the outputs on all held-out samples, in evaluation mode."""
        self._student.eval()
        names = tuple(self._objective.kinds)
        batch, at_once = self._lessons.held_out, self._lessons.judged_at_once
        total = 0.0
        for start in range(0, len(batch), at_once):
            part = batch[start : start + at_once]
            made = self._student(feeds_of(part.inputs), names)
            total += len(part) * float(self._objective.output_loss(made, part.answers, part.labels))
        return total / len(batch)

    def _precision(self) -> torch.autocast:
        is_reduced = self._settings.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=is_reduced)

    def _begun(self) -> Ledger:
        loss = self._held_out_loss()
        return Ledger(
            epoch=0,
            step=0,
            best=_copy(self._student),
            best_loss=loss if isfinite(loss) else inf,
            best_epoch=0,
            losses=(loss,),
        )

    def _resumed(self) -> Ledger | None:
        found = load_state(self._checkpoint)
        if found is None:
            return None
        ledger, tensors = found
        self._student.load_state_dict(tensors.weights)
        self._averages.load(tensors.averages)
        self._optimiser.load_state_dict(dict(tensors.optimiser))
        return ledger

    def _save(self, ledger: Ledger) -> None:
        tensors = Tensors(
            self._student.state_dict(), self._averages.state(), self._optimiser.state_dict()
        )
        save_state(self._checkpoint, ledger, tensors)
        self._saved_at = time.monotonic()

    def _tell(self, ledger: Ledger) -> None:
        steps = self._lessons.steps
        self._on_progress(
            TrainingProgress(
                epoch=ledger.epoch + 1,
                epochs=self._settings.epochs,
                done=ledger.epoch * steps + ledger.step,
                steps=self._settings.epochs * steps,
                best_held_out=ledger.best_loss,
            )
        )


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}

"""The state of a training on disk: complete or not there at all."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimton.core.errors import InputError
from trimton.core.files import write_bytes


@dataclass(frozen=True)
class Ledger:
    """How far a training is, and the best it found.

    ``step`` steps of ``epoch`` (both from 0) are done. ``best`` are the weights with the least
    held-out loss ``best_loss``, reached after ``best_epoch`` epochs (0: before training).
    ``losses`` are the held-out losses before training and after each epoch. ``stopped`` says why
    training ended early.
    """

    epoch: int
    step: int
    best: Mapping[str, Tensor]
    best_loss: float
    best_epoch: int
    losses: tuple[float, ...]
    stopped: str | None = None


@dataclass(frozen=True)
class Tensors:
    """What the next step depends on. Random numbers are functions of seed, epoch and step."""

    weights: Mapping[str, Tensor]
    averages: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]


def save_state(path: Path, ledger: Ledger, tensors: Tensors) -> None:
    """Write both to ``path``; raises InputError or InfrastructureError where the disk refuses."""
    buffer = io.BytesIO()  # torch's own writer tells a full disk as an error of its own kind
    parts = {part.name: getattr(tensors, part.name) for part in fields(tensors)}
    entries = {part.name: getattr(ledger, part.name) for part in fields(ledger)}
    torch.save({"ledger": entries, "tensors": parts}, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> tuple[Ledger, Tensors] | None:
    """What is in ``path``, None where there is nothing; raises InputError for another file."""
    if not path.exists():
        return None
    try:
        found = torch.load(path, weights_only=True)
        return Ledger(**found["ledger"]), Tensors(**found["tensors"])
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: is no state of a training; remove it to start anew.") from error

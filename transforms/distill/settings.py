"""How a student is trained: on what, by which losses, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trimton.core.errors import InputError
from trimton.transforms.distill.kinds import KINDS

OPTIMISERS = ("adamw", "sgd")
BATCH_NORMS = ("train", "frozen")
PRECISIONS = ("float32", "bfloat16")

# (setting, whether a value is right, what it must be)
_BOUNDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("epochs", lambda n: n >= 1, "a whole number above 0"),
    ("batch", lambda n: n >= 1, "a whole number above 0"),
    ("learning_rate", lambda x: x is None or x > 0, "above 0"),
    ("weight_decay", lambda x: x >= 0, "0 or more"),
    ("warmup", lambda x: 0 <= x < 1, "a share between 0 and 1"),
    ("temperature", lambda x: x > 0, "above 0"),
    ("label_weight", lambda x: 0 <= x <= 1, "between 0 and 1"),
    ("feature_weight", lambda x: x >= 0, "0 or more"),
    ("averaging", lambda x: 0 <= x < 1, "a decay of 0 or more, below 1"),
    ("held_out", lambda x: 0 < x < 1, "a share between 0 and 1"),
    ("patience", lambda n: n is None or n >= 1, "a whole number above 0"),
    ("mixing", lambda x: x >= 0, "0 or more"),
    ("group_sparsity", lambda x: x >= 0, "0 or more"),
    ("views", lambda n: n >= 0, "a whole number, 0 or more"),
    ("threads", lambda n: n is None or n >= 1, "a whole number above 0"),
    ("checkpoint_every_s", lambda x: x >= 0, "0 or more"),
    ("cache_limit_bytes", lambda n: n >= 0, "0 or more"),
)
# Metadata of settings that came later: at their defaults they leave the identity of a training as
# it was, so that states of older versions are gone on with.
COUNTS_WHERE_USED = {"counts": "where used"}
_DEFAULT_RATE = {"adamw": 1e-3, "sgd": 0.05}


@dataclass(frozen=True)
class DistillSettings:
    """Settings of ``distill``; all of them but ``threads`` and the last two decide the outcome.

    Time: ``epochs`` passes over the samples, ``batch`` of them at once (a model with a fixed
    batch gets that many), fewer where ``patience`` epochs bring nothing on held-out samples
    (None: all epochs). ``held_out`` is the share of the samples that judges and is not trained on.

    Steps: ``optimiser`` is one of OPTIMISERS, ``learning_rate`` the highest (None: 1e-3 for
    AdamW, 0.05 for SGD), reached after the share ``warmup`` of all steps and brought to 0 along a
    half cosine. ``weight_decay`` shrinks weights with more than one axis. ``averaging`` is the
    decay of the mean of the weights that is judged and kept (0: the weights themselves).
    ``batch_norm`` is one of BATCH_NORMS, ``precision`` one of PRECISIONS: what convolutions and
    products are computed in; weights stay float32.

    Losses: ``losses`` gives outputs a kind (see kinds.KINDS) that their graph does not tell.
    ``temperature`` softens classes (Hinton et al. 2015, arXiv:1503.02531). ``label_weight`` is
    the share of hard labels in the loss, where there are labels. ``features`` are pairs (value of
    the teacher, value of the student) to be matched, or None for pairs found by name and shape;
    ``feature_weight`` is their weight beside the outputs (0: none are matched).

    Sparsity: ``group_sparsity`` makes sets of channels small that can then be removed (see
    group_sparsity.GroupSparsity; 0: none): how many times the mean norm of its group is taken off
    a set, were nothing to work against it. Then the last weights are kept, not the best.

    Samples: ``mixing`` mixes each sample with another, by a share drawn from Beta(mixing, mixing)
    (mixup, Zhang et al. 2018, arXiv:1710.09412; 0: none). ``views`` is how many different
    augmentations of the samples there are; 0 makes new ones every epoch, which the teacher then
    answers every epoch.

    ``seed`` decides order, augmentation and what is held out. ``threads`` compute (None: as many
    as there are cores). State is saved at least every ``checkpoint_every_s``; answers of the
    teacher beyond ``cache_limit_bytes`` are computed anew instead of stored.
    Raises InputError for a value that is none of these.
    """

    epochs: int = 20
    batch: int = 128
    optimiser: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.05
    temperature: float = 2.0
    label_weight: float = 0.1
    losses: tuple[tuple[str, str], ...] = ()
    features: tuple[tuple[str, str], ...] | None = None
    feature_weight: float = 0.0
    averaging: float = 0.998
    batch_norm: str = "train"
    precision: str = "float32"
    held_out: float = 0.1
    patience: int | None = None
    mixing: float = 0.0
    views: int = 0
    group_sparsity: float = field(default=0.0, metadata=COUNTS_WHERE_USED)
    seed: int = 0
    threads: int | None = field(default=None)
    checkpoint_every_s: float = field(default=30.0, compare=False)
    cache_limit_bytes: int = field(default=4 * 2**30, compare=False)

    def __post_init__(self) -> None:
        for name, is_right, want in _BOUNDS:
            if not is_right(getattr(self, name)):
                raise InputError(f"{name} {getattr(self, name)}: must be {want}.")
        if self.group_sparsity and self.patience is not None:
            raise InputError(
                "patience goes by the held-out loss, which group sparsity makes worse by intent; "
                "leave one of them out."
            )
        tables = {"optimiser": OPTIMISERS, "batch_norm": BATCH_NORMS, "precision": PRECISIONS}
        for name, table in tables.items():
            if getattr(self, name) not in table:
                raise InputError(
                    f"{name} {getattr(self, name)!r}: is not known; choose {' or '.join(table)}."
                )
        for output, kind in self.losses:
            if kind not in KINDS:
                raise InputError(f"loss {output}={kind}: is not known; choose {', '.join(KINDS)}.")

    @property
    def highest_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate or _DEFAULT_RATE[self.optimiser]

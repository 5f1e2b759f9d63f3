"""The torch that trains: whether it is there, and how it is set while it does."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

from trimton.core.errors import InputError


def require_torch() -> None:
    """Raise InputError, naming the extra to install, where torch is missing."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "gradients need torch, which is not installed; install it with "
            "pip install 'trimton[distill]'."
        )


def threads_or_cores(threads: int | None) -> int:
    """``threads``, or one for each core that this process may use."""
    return threads or len(os.sched_getaffinity(0))


@contextlib.contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Torch computes with ``threads`` and gives the same bits for the same work in the block."""
    import torch

    before = torch.get_num_threads()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filling: Any = torch.utils.deterministic  # an attribute that its types do not know
    fills = filling.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    filling.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(is_deterministic, warn_only=warns_only)
        filling.fill_uninitialized_memory = fills

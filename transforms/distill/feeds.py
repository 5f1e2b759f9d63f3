"""Arrays as the tensors that a module reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trimton.transforms.graph.edit import Array


def feeds_of(inputs: Mapping[str, Array]) -> dict[str, Tensor]:
    """``inputs`` as tensors; images [N, C, H, W] with their channels last in memory.

    Training convolutions takes about two thirds of the time that way.
    """
    return {name: _tensor(array) for name, array in inputs.items()}


def _tensor(array: Array) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    is_image = tensor.ndim == 4 and tensor.is_floating_point()
    return tensor.contiguous(memory_format=torch.channels_last) if is_image else tensor

"""BatchNormalization after a convolution or Gemm is a change of their weights.

At inference ``y = gamma (x - mean) / sqrt(var + epsilon) + beta`` is the per-channel affine map
with ``scale = gamma / sqrt(var + epsilon)`` and ``shift = beta - scale mean`` (Ioffe and Szegedy,
2015); affine.py says what the operators before it make of that.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimton.transforms.fuse.affine import ChannelAffine, absorb, can_absorb, not_at_inference
from trimton.transforms.fuse.family import Family, Match, at_nodes
from trimton.transforms.graph.edit import Editor, constant_array, input_at

_EPSILON = 1e-5  # the default of every version of the operator


def read_batch_normalization(node: ir.Node) -> ChannelAffine | str:
    """The affine map of a BatchNormalization, or why it has none."""
    if reason := not_at_inference(node):
        return reason
    arrays = [constant_array(input_at(node, index)) for index in (1, 2, 3, 4)]
    gamma, beta, mean, variance = (None if a is None else a.astype(np.float64) for a in arrays)
    if gamma is None or beta is None or mean is None or variance is None:
        return "its parameters are not constant"
    epsilon = node.attributes.get_float("epsilon", _EPSILON)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = gamma / np.sqrt(variance + epsilon)
    return ChannelAffine(scale, beta - scale * mean)


def _fuse(node: ir.Node, editor: Editor) -> Match:
    source = input_at(node, 0)
    producer = None if source is None else source.producer()
    if producer is None or not can_absorb(producer):
        return False
    affine = read_batch_normalization(node)
    return affine if isinstance(affine, str) else absorb(producer, node, affine, editor)


BATCH_NORMALIZATION = Family(
    "batch-normalization",
    "folded BatchNormalization into the weights before it",
    at_nodes("BatchNormalization", rule=_fuse),
)

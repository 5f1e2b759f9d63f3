"""Structured pruning: channels, heads, neurons, hidden units and blocks leave the graph."""

from trimton.transforms.prune.pruning import (
    blocks,
    masked_and_cut,
    prunable,
    prune,
    ranked_blocks,
)
from trimton.transforms.prune.settings import PruneSettings

__all__ = [
    "PruneSettings",
    "blocks",
    "masked_and_cut",
    "prunable",
    "prune",
    "ranked_blocks",
]

"""Structured pruning: channels, heads, neurons and hidden units leave the graph physically."""

from trimton.transforms.prune.pruning import masked_and_cut, prunable, prune
from trimton.transforms.prune.settings import PruneSettings

__all__ = ["PruneSettings", "masked_and_cut", "prunable", "prune"]

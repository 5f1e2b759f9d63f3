"""Depth pruning: whole residual blocks and transformer layers leave the graph."""

from trimton.transforms.prune.depth.blocks import Block, find_blocks
from trimton.transforms.prune.depth.dropping import Drop, drop_blocks, removable_blocks
from trimton.transforms.prune.depth.repair import everything_kept, repair_sites

__all__ = [
    "Block",
    "Drop",
    "drop_blocks",
    "everything_kept",
    "find_blocks",
    "removable_blocks",
    "repair_sites",
]

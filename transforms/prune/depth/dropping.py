"""Dropping blocks: one after the other, always that whose absence does least for what it saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import onnx_ir as ir

from trimton.core.errors import InputError, UnsupportedModelError
from trimton.transforms.graph.edit import Array
from trimton.transforms.prune.activations import batches
from trimton.transforms.prune.depth.blocks import Block, find_blocks
from trimton.transforms.prune.depth.divergence import Divergence
from trimton.transforms.prune.depth.removal import Bypass, bypasses, remove_block
from trimton.transforms.prune.sizes import infer_fixed_shapes

# Means of what blocks add are taken over so many batches.
_BATCHES = 8


@dataclass(frozen=True)
class Drop:
    """A block and what its absence does: ``damage`` is the Divergence of the outputs."""

    block: Block
    bypass: Bypass
    damage: float

    @property
    def price(self) -> float:
        """Damage for each multiply-accumulate saved, or parameter where those are not known."""
        block = self.block
        return self.damage / max(1, block.parameters if block.macs is None else block.macs)


def removable_blocks(
    model: ir.Model, samples: Mapping[str, Array], divergence: Divergence | None = None
) -> tuple[Drop, ...]:
    """What the absence of each block of ``model``, whose shapes are inferred, does; dearest last.

    Each is taken out alone; what it adds on average is kept. The damage is against the outputs of
    ``divergence``, by default those of ``model``. Raises InputError where the model cannot be run
    on ``samples``.
    """
    blocks = find_blocks(model)
    if not blocks:
        return ()
    expected = Divergence(model, samples) if divergence is None else divergence
    feeds = islice(batches(model, samples), _BATCHES)
    drops: list[Drop] = []
    for block, bypass in zip(blocks, bypasses(model, blocks, feeds), strict=True):
        if bypass is None:
            continue
        trial = model.clone()
        remove_block(trial, bypass)
        drops.append(Drop(block, bypass, expected.of(trial)))
    return tuple(sorted(drops, key=lambda drop: drop.price))


def drop_blocks(model: ir.Model, count: int, samples: Mapping[str, Array]) -> tuple[Drop, ...]:
    """Remove ``count`` blocks of ``model``, in place; the damage is that of all up to each.

    Raises UnsupportedModelError where there is none, InputError where there are fewer, or where
    the model cannot be run on ``samples``.
    """
    divergence = Divergence(model, samples)
    done: list[Drop] = []
    for _ in range(count):
        infer_fixed_shapes(model)
        ranked = removable_blocks(model, samples, divergence)
        if not ranked and not done:
            raise UnsupportedModelError(
                "the model has no block to remove: no sum of two equal shapes passes on what one "
                "of its sides is computed from."
            )
        if not ranked:
            raise InputError(f"blocks {count}: the model has no more than {len(done)} to remove.")
        done.append(ranked[0])
        remove_block(model, ranked[0].bypass)
    return tuple(done)

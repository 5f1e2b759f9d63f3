"""From ties to sets: connected components, and the choice between ways to tie a Reshape.

A Reshape that splits an axis in two can lose indices of the one or of the other. Where one of
them is frozen anyway, the other is taken; what remains open is tried, and what makes more weights
removable is taken, the outer axis (whole heads) first.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from trimton.transforms.prune.index_space import Indices
from trimton.transforms.prune.ties import Choice, Components, Option, Ties, broadcast_pairs

_BOTH_AXES = "a Reshape mixes it with another axis that is kept"
_OTHER_AXIS = "a Reshape splits it off an axis that is cut along the other part"
# All combinations are tried while they are as few; else one key after the other.
_MAX_COMBINATIONS = 32


def components(ties: Ties) -> Components:
    """The sets of indices that are removed together, after every choice is made."""
    forced: list[Option] = []
    open_choices = list(ties.choices)
    while open_choices:
        is_frozen = _frozen_indices(ties, _components(ties, forced))
        decided = {
            number: viable
            for number, choice in enumerate(open_choices)
            if len(viable := [o for o in choice.options if _is_viable(o, is_frozen)]) <= 1
        }
        if not decided:
            break
        for number, viable in decided.items():
            forced.append(viable[0] if viable else _all_frozen(open_choices[number]))
        open_choices = [c for n, c in enumerate(open_choices) if n not in decided]
    return _components(ties, [*forced, *_best(ties, forced, open_choices)])


def _is_viable(option: Option, is_frozen: Indices) -> bool:
    return not (is_frozen[option.left].all() or is_frozen[option.right].all())


def _all_frozen(choice: Choice) -> Option:
    parts = [part for o in choice.options for part in (o.left, o.right, o.frozen)]
    return Option(parts[0][:0], parts[0][:0], np.concatenate([p.reshape(-1) for p in parts]))


def _best(ties: Ties, forced: Sequence[Option], choices: Sequence[Choice]) -> list[Option]:
    """The options under which most weights can be halved."""
    counts: dict[Hashable, int] = {choice.key: len(choice.options) for choice in choices}
    if not counts:
        return []

    def options(taken: Mapping[Hashable, int]) -> list[Option]:
        return [choice.options[taken[choice.key]] for choice in choices]

    def score(taken: Mapping[Hashable, int]) -> float:
        return _removable(ties, _components(ties, [*forced, *options(taken)]))

    best = dict.fromkeys(counts, 0)
    best_score = score(best)
    for taken in _combinations(counts, best):
        if (found := score(taken)) > best_score:
            best.update(taken)
            best_score = found
    return options(best)


def _combinations(
    counts: Mapping[Hashable, int], best: Mapping[Hashable, int]
) -> Iterator[dict[Hashable, int]]:
    """What to try; ``best`` is updated between two steps."""
    if np.prod(list(counts.values()), dtype=float) <= _MAX_COMBINATIONS:
        for numbers in itertools.product(*map(range, counts.values())):
            yield dict(zip(counts, numbers, strict=True))
        return
    for key, count in counts.items():
        for number in range(1, count):
            yield {**best, key: number}


def _removable(ties: Ties, found: Components) -> float:
    """The weights that go when every axis of a layer loses half of its removable sets."""
    total = 0.0
    for layer in ties.layers:
        kept = 1.0
        for position in (layer.outputs, layer.inputs):
            axis = None if position is None else ties.axis(layer.weight, position)
            if axis is None:
                continue
            labels = found.labels[axis.indices]
            alive = [label for label in np.unique(labels) if label not in found.reasons]
            share = np.isin(labels, alive).mean() if alive else 0.0
            kept *= 1 - share * (len(alive) // 2) / max(len(alive), 1)
        shape = layer.weight.shape
        total += (1 - kept) * (np.prod(shape.numpy()) if shape is not None else 0)
    return total


def _components(ties: Ties, options: Sequence[Option]) -> Components:
    left, right = broadcast_pairs(ties.pairs + [(o.left, o.right) for o in options])
    size = ties.space.size
    matrix = coo_matrix((np.ones(left.size, np.int8), (left, right)), shape=(size, size))
    count, labels = connected_components(matrix, directed=False)
    reasons: dict[int, str] = {}
    kept_parts = [
        (o.frozen, _OTHER_AXIS if o.left.size else _BOTH_AXES) for o in options if o.frozen.size
    ]
    for indices, reason in (*ties.frozen, *kept_parts):
        for label in np.unique(labels[indices]):
            reasons.setdefault(int(label), reason)
    return Components(int(count), labels.astype(np.int64), reasons)


def _frozen_indices(ties: Ties, found: Components) -> Indices:
    is_frozen = np.zeros(found.count, np.int64)
    is_frozen[list(found.reasons)] = 1
    frozen: Indices = is_frozen[found.labels]
    return frozen

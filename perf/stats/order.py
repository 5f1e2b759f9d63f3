"""Balanced orders of arms, so that drift of the machine hits every arm alike."""

from __future__ import annotations

import random


def balanced_order(arms: int, rounds: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """For each round, the order of the arm indices 0 .. arms-1.

    Two arms alternate as AB BA AB BA (ABBA blocks). Three and more walk through a Williams
    design (Williams 1949): a Latin square in which every arm stands at every place equally
    often and follows every other arm equally often; an odd number of arms adds the mirrored
    square. ``seed`` shuffles which arm plays which part and the order of each square's rows.
    """
    if arms < 1 or rounds < 0:
        raise ValueError(f"needs at least one arm and no negative rounds, got {arms}, {rounds}")
    generator = random.Random(seed)
    names = list(range(arms))
    generator.shuffle(names)
    rows = _williams(arms)
    order: list[tuple[int, ...]] = []
    while len(order) < rounds:
        if arms > 2:
            generator.shuffle(rows)
        order.extend(tuple(names[index] for index in row) for row in rows)
    return tuple(order[:rounds])


def _williams(arms: int) -> list[list[int]]:
    # The first row zigzags 0, 1, n-1, 2, n-2, ...: its neighbouring differences are all distinct
    # modulo n, so the shifted rows contain every ordered pair of neighbours exactly once.
    zigzag = [0]
    for step in range(1, arms):
        zigzag.append((step + 1) // 2 if step % 2 else arms - step // 2)
    square = [[(value + shift) % arms for value in zigzag] for shift in range(arms)]
    return square + [row[::-1] for row in square] if arms % 2 and arms > 1 else square

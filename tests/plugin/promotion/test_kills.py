"""A promotion or a rollback that is killed leaves the old state or the new one; two take turns."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import onnxruntime
import pytest

from trimton.core.errors import TrimtonError
from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.promote import promote
from trimton.plugin.promotion.rollback import roll_back
from trimton.plugin.promotion.versions import remove_leftovers
from trimton.plugin.repository import Repository

if TYPE_CHECKING:
    from tests.plugin.promotion.conftest import Shop

KILLS = 16


def kill_within(longest_s: float, operation: Callable[[], object], chance: random.Random) -> None:
    """Run ``operation`` in a child, and kill it at an instant of the first ``longest_s``."""
    child = os.fork()
    if child == 0:
        operation()
        os._exit(0)
    time.sleep(chance.uniform(0, longest_s))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def bytes_of(shop: Shop) -> dict[int, bytes]:
    model = Repository(shop.repository).model("net")
    return {v: model.model_file(v).read_bytes() for v in model.versions}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_kill_leaves_a_whole_repository_and_the_next_call_finishes(shop: Shop) -> None:
    chance = random.Random(3)
    for number in range(KILLS):
        before, served = bytes_of(shop), shop.served()
        if number % 2 == 0:
            run = shop.run(f"run{number}")
            operation, after = (lambda run=run: promote(run, [shop.repository])), None
        else:
            operation, after = (lambda: roll_back([shop.repository], "net")), before_last(shop)

        kill_within(0.04, operation, chance)

        found, now = bytes_of(shop), shop.served()
        assert {v: found[v] for v in before} == before
        assert now == served or now == (after or (max(found),))
        onnxruntime.InferenceSession(found[now[-1]])
        if now == served:
            operation()
        assert shop.served() != served
        Journal(shop.repository).settle("net", shop.served())
        assert Journal(shop.repository).changes("net")[-1].after == shop.served()
    remove_leftovers(shop.model)
    assert all(p.name.isdigit() or p == shop.config for p in shop.model.iterdir())


def before_last(shop: Shop) -> tuple[int, ...] | None:
    journal = Journal(shop.repository)
    journal.settle("net", shop.served())
    return journal.history("net").served_before


def test_of_promotions_at_once_one_wins_and_the_others_are_refused(shop: Shop) -> None:
    runs = [shop.run(f"run{number}") for number in range(4)]

    def attempt(number: int) -> str:
        try:
            return f"serves {promote(runs[number], [shop.repository]).version}"
        except TrimtonError as error:
            return str(error)

    with ThreadPoolExecutor(len(runs)) as pool:
        results = list(pool.map(attempt, range(len(runs))))

    assert results.count("serves 2") == 1
    assert sum("serves other bytes (version 2)" in result for result in results) == 3
    assert Repository(shop.repository).model("net").versions == (1, 2)

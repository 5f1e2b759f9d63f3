"""Memory of a tree does not depend on what else runs on the machine."""

from __future__ import annotations

import subprocess
import sys

from trimton.perf.measure.mappings import Mapping, parse_smaps, tree_bytes
from trimton.perf.measure.processes import tree_memory

SMAPS = """\
55d0-55d9 r-xp 00001000 fd:00 4711                       /usr/bin/thing (deleted)
Size:                 36 kB
Rss:                  30 kB
Pss:                  10 kB
Shared_Clean:         20 kB
Shared_Dirty:          1 kB
Private_Clean:         8 kB
Private_Dirty:         1 kB
VmFlags: rd ex mr mw me
7f00-7f01 rw-p 00000000 00:00 0                          [heap]
Rss:                   6 kB
Pss:                   5 kB
Shared_Clean:          0 kB
Shared_Dirty:          2 kB
Private_Clean:         0 kB
Private_Dirty:         4 kB
"""
KB = 1024


def test_smaps_is_read_mapping_by_mapping() -> None:
    assert list(parse_smaps(SMAPS)) == [
        Mapping(("fd:00", "4711", "00001000"), 10 * KB, 21 * KB, 9 * KB),
        Mapping(None, 5 * KB, 2 * KB, 4 * KB),
    ]
    assert list(parse_smaps("")) == []


def test_a_page_shared_in_the_tree_counts_once_and_with_others_whole() -> None:
    library = ("fd:00", "1", "0")

    alone = [[Mapping(library, pss=100, shared=0, private=100)]]
    beside_another = [[Mapping(library, pss=50, shared=100, private=0)]]
    twice_in_the_tree = beside_another * 2

    assert tree_bytes(alone) == tree_bytes(beside_another) == tree_bytes(twice_in_the_tree) == 100


def test_anonymous_memory_counts_by_its_share_and_other_files_by_themselves() -> None:
    processes = [
        [Mapping(None, 30, 40, 10), Mapping(("a", "1", "0"), 5, 8, 1)],
        [Mapping(None, 30, 40, 10), Mapping(("a", "2", "0"), 5, 8, 1)],
    ]

    assert tree_bytes(processes) == 60 + 2 * 9


def test_a_second_process_with_the_same_libraries_does_not_change_the_first() -> None:
    program = "import numpy, sys; print('ready', flush=True); sys.stdin.read()"

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    with start() as first:
        alone = tree_memory(first.pid)
        others = [start() for _ in range(3)]
        beside = tree_memory(first.pid)
        for process in (*others, first):
            process.communicate()

    assert alone.kind == beside.kind == "pss"
    assert abs(beside.bytes - alone.bytes) < 0.01 * alone.bytes

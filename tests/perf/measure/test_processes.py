"""Memory and CPU of real process trees."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from trimton.core.errors import InfrastructureError
from trimton.perf.measure.processes import process_tree, tree_cpu_ns, tree_memory

MEGABYTES = 40
# A parent whose child holds memory and has used CPU; it speaks when both are ready.
TREE = textwrap.dedent(
    f"""
    import subprocess, sys
    child = subprocess.Popen(
        [sys.executable, "-c", "x = b'x' * ({MEGABYTES} << 20)\\n"
         "import time\\nend = time.process_time() + 0.2\\n"
         "while time.process_time() < end: pass\\n"
         "print('ready', flush=True)\\nimport sys; sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    print("ready", flush=True)
    sys.stdin.read()
    """
)


@pytest.fixture
def tree():
    with subprocess.Popen(
        [sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        yield parent
        parent.communicate()


def test_the_tree_holds_the_descendants(tree):
    assert len(process_tree(tree.pid)) == 2


def test_memory_counts_what_a_descendant_holds(tree):
    memory = tree_memory(tree.pid)
    assert memory.kind == "pss"
    assert memory.processes == 2
    assert MEGABYTES << 20 < memory.bytes < (MEGABYTES + 60) << 20


def test_cpu_counts_what_a_descendant_used(tree):
    assert 0.2e9 < tree_cpu_ns(tree.pid) < 20e9


def test_cpu_of_a_process_without_descendants_agrees_with_its_own_clock():
    # In a process of its own: this one may have a server among its descendants.
    program = textwrap.dedent(
        """
        import os, time
        from trimton.perf.measure.processes import tree_cpu_ns
        print(time.process_time_ns(), tree_cpu_ns(os.getpid()), time.process_time_ns())
        """
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    before, seen, after = map(int, told.split())
    assert before <= seen <= after + 10_000_000


def fake_proc(tmp_path: Path, pid: int, files: dict[str, str]) -> Path:
    folder = tmp_path / str(pid)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "kind", "kilobytes"),
    [
        ({"smaps": "0-1 rw-p 0 00:00 0\nRss: 9 kB\nPss:   7 kB\n"}, "pss", 7),
        ({"smaps_rollup": "Private_Clean: 1 kB\nPrivate_Dirty: 2 kB\n"}, "uss", 3),
        ({"status": "Name: x\nVmRSS:\t    11 kB\n"}, "rss", 11),
    ],
)
def test_the_kind_of_memory_is_named_when_the_kernel_gives_less(tmp_path, files, kind, kilobytes):
    memory = tree_memory(os.getpid(), fake_proc(tmp_path, os.getpid(), files))
    assert (memory.kind, memory.bytes) == (kind, 1024 * kilobytes)


def test_a_process_that_vanishes_counts_as_nothing(tree, tmp_path):
    proc = fake_proc(tmp_path, tree.pid, {"smaps": "0-1 rw-p 0 00:00 0\nPss:  5 kB\n"})
    memory = tree_memory(tree.pid, proc)
    assert (memory.bytes, memory.processes) == (5 * 1024, 1)


def test_memory_that_nothing_tells_is_an_error(tmp_path):
    with pytest.raises(InfrastructureError, match="cannot be read"):
        tree_memory(os.getpid(), fake_proc(tmp_path, os.getpid(), {}))


def test_a_server_that_is_gone_is_an_error():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for measure in (tree_memory, tree_cpu_ns):
        with pytest.raises(InfrastructureError, match=f"process {ended.pid} is gone"):
            measure(ended.pid)

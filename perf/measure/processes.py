"""Memory and CPU time of a process and its descendants, from /proc (Linux).

Processes that vanish while they are read count as nothing.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from trimton.core.errors import InfrastructureError
from trimton.perf.measure.mappings import parse_smaps, tree_bytes

MemoryKind = Literal["pss", "uss", "rss"]
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True)
class TreeMemory:
    """Memory of a process tree in bytes.

    ``kind`` names what was summed: ``pss`` counts a page that several processes of the tree
    share once (see trimton.perf.measure.mappings), ``uss`` leaves shared pages out (where the
    kernel lists no mappings), ``rss`` counts them once for every process (where the owner of
    the processes differs).
    """

    bytes: int
    kind: MemoryKind
    processes: int


def process_tree(pid: int) -> list[psutil.Process]:
    """The process ``pid`` and its descendants; InfrastructureError if it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess as error:
        raise InfrastructureError(
            f"the server's process {pid} is gone; look into its log, start it again."
        ) from error


def tree_memory(pid: int, proc: Path = Path("/proc")) -> TreeMemory:
    """Memory of the tree under ``pid``, in the best kind that all its processes give."""
    members = process_tree(pid)
    listed = [_read(proc / str(member.pid) / "smaps") for member in members]
    if any(listed) and None not in listed:
        texts = [text for text in listed if text]
        return TreeMemory(tree_bytes(map(parse_smaps, texts)), "pss", len(texts))
    for kind in ("uss", "rss"):
        sizes = [_memory(member.pid, kind, proc) for member in members]
        if all(size is not None for size in sizes):
            return TreeMemory(
                sum(size for size in sizes if size is not None), kind, sum(map(bool, sizes))
            )
    raise InfrastructureError(f"the memory of the server's process {pid} cannot be read.")


def tree_cpu_ns(pid: int) -> int:
    """CPU nanoseconds, user and system, that the living processes under ``pid`` have used."""
    return sum(_cpu_ns(member.pid) for member in process_tree(pid))


def _cpu_ns(pid: int) -> int:
    # The kernel's CPU clock of another process (clock_getcpuclockid(3)): /proc counts in ticks
    # of 10 ms, which is too coarse for a window of a second.
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0


def _memory(pid: int, kind: MemoryKind, proc: Path) -> int | None:
    """Bytes of one process, 0 if it vanished, None if the kernel does not give this kind."""
    text = _read(proc / str(pid) / ("smaps_rollup" if kind == "uss" else "status"))
    if not text:
        return None if text is None else 0
    found = [re.findall(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE) for field in _FIELDS[kind]]
    if not all(found):
        return None
    return 1024 * sum(int(values[0]) for values in found)


def _read(file: Path) -> str | None:
    """The text of a file about a process, "" if the process vanished, None if it is not told."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if file.parent.is_dir() else ""
    except PermissionError:
        return None


_FIELDS: dict[MemoryKind, tuple[str, ...]] = {
    "uss": ("Private_Clean", "Private_Dirty"),
    "rss": ("VmRSS",),
}

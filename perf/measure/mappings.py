"""The memory of a process tree as if it were alone on the machine, from ``/proc/PID/smaps``.

The kernel's proportional set size divides each shared page among all processes that map it, so a
second server that starts with the same libraries makes the first one look smaller. Here a page
shared within the tree counts once, and one shared with processes outside counts whole: without
others on the machine the sum is the tree's proportional set size, and with them it stays so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

# Which part of which file: device, inode, offset.
FileRange = tuple[str, str, str]

_HEAD = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ ([0-9a-f]+) (\S+) (\d+)", re.MULTILINE)
_FIELD = re.compile(
    r"^(Pss|Shared_Clean|Shared_Dirty|Private_Clean|Private_Dirty): +(\d+) kB", re.MULTILINE
)
_ANONYMOUS = "0"  # the inode of memory without a file


@dataclass(frozen=True)
class Mapping:
    """One mapping: ``file`` is None for anonymous memory; sizes in bytes."""

    file: FileRange | None
    pss: int
    shared: int
    private: int


def parse_smaps(text: str) -> Iterator[Mapping]:
    """The mappings listed in ``/proc/PID/smaps`` (proc_pid_smaps(5))."""
    heads = [*_HEAD.finditer(text), None]
    for head, following in pairwise(heads):
        assert head is not None  # only the last is
        end = len(text) if following is None else following.start()
        fields = {name: int(size) * 1024 for name, size in _FIELD.findall(text, head.end(), end)}
        offset, device, inode = head.groups()
        yield Mapping(
            file=None if inode == _ANONYMOUS else (device, inode, offset),
            pss=fields.get("Pss", 0),
            shared=fields.get("Shared_Clean", 0) + fields.get("Shared_Dirty", 0),
            private=fields.get("Private_Clean", 0) + fields.get("Private_Dirty", 0),
        )


def tree_bytes(processes: Iterable[Iterable[Mapping]]) -> int:
    """The memory of all ``processes`` together, each given by its mappings.

    Of a file range that several of them share, the largest share counts: which pages the others
    hold is not told, and processes that run the same program hold the same.
    """
    total = 0
    shared: dict[FileRange, int] = {}
    for mapping in (mapping for process in processes for mapping in process):
        if mapping.file is None:
            total += mapping.pss  # shared by fork only, so within the tree
        else:
            total += mapping.private
            shared[mapping.file] = max(shared.get(mapping.file, 0), mapping.shared)
    return total + sum(shared.values())

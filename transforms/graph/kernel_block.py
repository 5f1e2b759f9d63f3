"""The block of channels that ONNX Runtime's convolutions take at once on this CPU.

Its NCHWc layout holds 16 channels beside each other with AVX-512, else 8 (MlasNchwcGetBlockSize):
channels that do not fill a block cost as much as those that do.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_WIDE, _NARROW = 16, 8


@cache
def kernel_block() -> int:
    """16 where this CPU has AVX-512, 8 where it has not, or where Linux does not say."""
    return block_of(_CPU_INFO.read_text()) if _CPU_INFO.exists() else _NARROW


def block_of(cpu_info: str) -> int:
    """The block of the CPU that ``cpu_info``, the text of /proc/cpuinfo, describes."""
    flags = next((line for line in cpu_info.splitlines() if line.startswith("flags")), "")
    return _WIDE if "avx512f" in flags.split() else _NARROW

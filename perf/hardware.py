"""What this machine can do: processor, instruction sets that matter to inference, memory, GPUs.

Read from Linux (``/proc``, cgroups) and, for GPUs, from ``nvidia-smi``.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil

from trimton.perf.results import Record

# Flag in /proc/cpuinfo (x86 "flags", Arm "Features") -> what it brings to a network's arithmetic.
INSTRUCTION_SETS = {
    "avx2": "256-bit vectors",
    "fma": "fused multiply-add",
    "f16c": "float16 to float32 conversion",
    "avx512f": "512-bit vectors",
    "avx_vnni": "int8 dot products, 256 bit",
    "avx512_vnni": "int8 dot products, 512 bit",
    "avx512_bf16": "bfloat16 dot products",
    "avx512_fp16": "float16 arithmetic",
    "amx_tile": "matrix tiles",
    "amx_int8": "int8 matrix products",
    "amx_bf16": "bfloat16 matrix products",
    "asimddp": "int8 dot products (Arm)",
    "i8mm": "int8 matrix products (Arm)",
    "asimdhp": "float16 arithmetic (Arm)",
    "bf16": "bfloat16 dot products (Arm)",
}
INT8_DOT_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")


class Gpu(Record):
    """A GPU as its driver describes it."""

    name: str
    memory_bytes: int
    driver: str


class Hardware(Record):
    """One machine, as far as it decides how fast a model can be.

    ``cores`` are the logical processors this process may use (affinity); ``cpu_limit`` is the
    cgroup's quota in cores (None without one). Memory respects the cgroup's limit, too.
    """

    cpu_model: str
    architecture: str
    cores: int
    cores_of_machine: int
    cpu_limit: float | None
    instruction_sets: tuple[str, ...]
    int8_dot_product: bool
    int8_meaning: str
    memory_total_bytes: int
    memory_available_bytes: int
    gpus: tuple[Gpu, ...]

    def to_json(self) -> dict[str, Any]:
        """The machine form: stable names, additions only."""
        return self.model_dump(mode="json")


def describe() -> Hardware:
    """This machine. Never raises: what cannot be found out is left empty."""
    cpuinfo = parse_cpuinfo(_read(Path("/proc/cpuinfo")))
    sets = instruction_sets(cpuinfo)
    memory = psutil.virtual_memory()
    limit = parse_limit(_read(_MEMORY_MAX))
    total = min(memory.total, limit) if limit else memory.total
    return Hardware(
        cpu_model=cpu_model(cpuinfo) or platform.processor() or "unknown",
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        cores_of_machine=os.cpu_count() or 1,
        cpu_limit=parse_quota(_read(_CPU_MAX)),
        instruction_sets=sets,
        int8_dot_product=bool(INT8_DOT_PRODUCTS & set(sets)),
        int8_meaning=int8_meaning(sets),
        memory_total_bytes=total,
        memory_available_bytes=min(memory.available, total),
        gpus=find_gpus(),
    )


def parse_cpuinfo(text: str) -> dict[str, str]:
    """The fields of the first processor in ``/proc/cpuinfo``."""
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model(cpuinfo: dict[str, str]) -> str:
    """The processor's name; Arm kernels give none, only implementer and part."""
    if name := cpuinfo.get("model name"):
        return name
    if "CPU part" in cpuinfo:
        return f"Arm implementer {cpuinfo.get('CPU implementer')} part {cpuinfo['CPU part']}"
    return ""


def instruction_sets(cpuinfo: dict[str, str]) -> tuple[str, ...]:
    """Those of INSTRUCTION_SETS that the processor has, in that order."""
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def int8_meaning(sets: tuple[str, ...]) -> str:
    """What the instruction sets mean for an int8 model, in one sentence."""
    found = [name for name in sets if name in INT8_DOT_PRODUCTS]
    if found:
        return (
            f"int8 models can be faster than float32 here, because the processor multiplies int8 "
            f"directly ({', '.join(found)})."
        )
    return (
        "int8 models save size and memory here, but hardly time, because the processor has no "
        "int8 dot product (VNNI, AMX, or Arm's dotprod)."
    )


def parse_quota(text: str) -> float | None:
    """Cores that a cgroup's ``cpu.max`` allows ("200000 100000" is 2.0); None without a limit."""
    fields = text.split()
    if len(fields) != 2 or not all(field.isdecimal() for field in fields):
        return None
    return int(fields[0]) / int(fields[1])


def parse_limit(text: str) -> int | None:
    """Bytes that a cgroup's ``memory.max`` allows; None without a limit ("max")."""
    return int(text) if text.strip().isdecimal() else None


def find_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that ``nvidia-smi`` lists; none where it is absent or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = "--query-gpu=name,memory.total,driver_version"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """GPUs from lines of ``name, MiB, driver``; lines of another shape are passed over."""
    rows = ([field.strip() for field in line.split(",")] for line in text.splitlines())
    return tuple(
        Gpu(name=row[0], memory_bytes=int(row[1]) << 20, driver=row[2])
        for row in rows
        if len(row) == 3 and row[1].isdecimal()
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

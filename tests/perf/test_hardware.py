"""What the machine can do, from real and recorded descriptions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trimton.perf.hardware import (
    INSTRUCTION_SETS,
    Gpu,
    cpu_model,
    describe,
    find_gpus,
    instruction_sets,
    int8_meaning,
    parse_cpuinfo,
    parse_gpus,
    parse_limit,
    parse_quota,
)

CASCADE_LAKE = """processor\t: 0
model name\t: Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz
flags\t\t: fpu sse2 fma f16c avx2 avx512f avx512_vnni

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
HASWELL = "model name\t: Intel(R) Xeon(R) CPU E5-2680 v3\nflags\t\t: fpu fma avx2\n"
NEOVERSE = """processor\t: 0
Features\t: fp asimd asimdhp asimddp i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def test_this_machine_is_described_within_its_limits() -> None:
    hardware = describe()
    assert 1 <= hardware.cores <= hardware.cores_of_machine
    assert hardware.cores == len(os.sched_getaffinity(0))
    assert 0 < hardware.memory_available_bytes <= hardware.memory_total_bytes
    assert hardware.architecture == os.uname().machine
    flags = Path("/proc/cpuinfo").read_text()
    assert all(name in flags for name in hardware.instruction_sets)
    assert json.loads(json.dumps(hardware.to_json()))["cores"] == hardware.cores


def test_affinity_limits_the_cores() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert describe().cores == 1
    finally:
        os.sched_setaffinity(0, before)


def test_first_processor_speaks_for_all() -> None:
    cpuinfo = parse_cpuinfo(CASCADE_LAKE)
    assert cpu_model(cpuinfo) == "Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz"
    assert instruction_sets(cpuinfo) == ("avx2", "fma", "f16c", "avx512f", "avx512_vnni")


@pytest.mark.parametrize(
    ("text", "named"), [(CASCADE_LAKE, "avx512_vnni"), (NEOVERSE, "asimddp, i8mm")]
)
def test_int8_dot_product_makes_int8_worth_it(text: str, named: str) -> None:
    meaning = int8_meaning(instruction_sets(parse_cpuinfo(text)))
    assert "can be faster" in meaning
    assert named in meaning


def test_without_int8_dot_product_int8_saves_size_only() -> None:
    assert "hardly time" in int8_meaning(instruction_sets(parse_cpuinfo(HASWELL)))


def test_arm_is_named_by_its_part() -> None:
    assert cpu_model(parse_cpuinfo(NEOVERSE)) == "Arm implementer 0x41 part 0xd40"


def test_unknown_processor_has_no_instruction_sets() -> None:
    assert instruction_sets(parse_cpuinfo("")) == ()
    assert cpu_model({}) == ""


def test_every_instruction_set_has_a_meaning() -> None:
    assert all(INSTRUCTION_SETS.values())


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None)]
)
def test_quota_of_the_cgroup(text: str, cores: float | None) -> None:
    assert parse_quota(text) == cores


@pytest.mark.parametrize(("text", "limit"), [("1048576\n", 1 << 20), ("max\n", None), ("", None)])
def test_memory_limit_of_the_cgroup(text: str, limit: int | None) -> None:
    assert parse_limit(text) == limit


def test_gpus_as_the_driver_lists_them() -> None:
    text = "NVIDIA A10G, 23028, 535.183.01\nno gpu line\nNVIDIA L4, [N/A], 535\n"
    assert parse_gpus(text) == (
        Gpu(name="NVIDIA A10G", memory_bytes=23028 << 20, driver="535.183.01"),
    )


@pytest.mark.parametrize(
    ("script", "count"),
    [("echo 'NVIDIA A10G, 23028, 535.183.01'", 1), ("echo broken driver; exit 9", 0)],
)
def test_driver_is_asked_and_may_fail(
    script: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert len(find_gpus()) == count

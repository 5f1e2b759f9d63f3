"""``trimton doctor``: what this machine can do, and how to get what is missing."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from trimton.core.errors import InputError
from trimton.perf.hardware import INSTRUCTION_SETS, Hardware, describe
from trimton.perf.report.numbers import size_text
from trimton.plugin.cli.output import JsonOption, console, print_json
from trimton.plugin.server.installation import read_installation, server_folder

PACKAGES = ("trimton", "onnxruntime", "onnx", "onnx-ir", "numpy", "tritonclient")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for; ``mend`` says how to get it where it is missing."""

    name: str
    found: bool
    value: str
    mend: str | None = None


def command(
    repository: Annotated[
        Path | None,
        typer.Argument(
            metavar="[REPO]",
            help="A guarded model repository: say what is loaded without the agent being asked.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="A server of REPO, to be looked at, too (HTTP)."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Say what this machine can do: processor, memory, versions, server, load tester, torch.

    With REPO, say instead which of its models a server loads without a proof; exit code 1 if there
    is one.

    Example: trimton doctor models --server localhost:8000
    """
    if repository is not None:
        from trimton.plugin.cli.doctor_repository import diagnose

        diagnose(repository, server, as_json=json_output)
        return
    if server is not None:
        raise InputError("--server is for a repository; give REPO, too.")
    hardware = describe()
    findings = list(look())
    if json_output:
        print_json(
            {"hardware": hardware.to_json(), "findings": [asdict(finding) for finding in findings]}
        )
        return
    screen = console()
    screen.print(_hardware_table(hardware))
    screen.print(hardware.int8_meaning, soft_wrap=True)
    screen.print()
    table = Table("", "", "how to get it", box=None, pad_edge=False, show_header=True)
    for finding in findings:
        table.add_row(finding.name, finding.value, finding.mend or "")
    screen.print(table)


def look() -> Iterator[Finding]:
    """Everything besides the hardware, in the order in which it is shown."""
    yield Finding("python", True, platform.python_version())
    for package in PACKAGES:
        yield _package(package, "pip install trimton")
    yield _server()
    yield _perf_analyzer()
    yield _package(
        "torch",
        "for distillation: pip install torch --index-url https://download.pytorch.org/whl/cpu",
    )


def _package(name: str, mend: str) -> Finding:
    try:
        return Finding(name, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", mend)


def _server() -> Finding:
    name = "triton server"
    installation = read_installation(server_folder())
    if installation is None:
        return Finding(name, False, "not installed", "trimton server install")
    if defect := installation.defect():
        return Finding(name, False, f"cannot be used: {defect}", "trimton server install")
    return Finding(
        name,
        True,
        f"{installation.triton_version} (ONNX Runtime {installation.onnxruntime_version}) "
        f"in {installation.folder}",
    )


def _perf_analyzer() -> Finding:
    path = shutil.which("perf_analyzer")
    if path:
        return Finding("perf_analyzer", True, path)
    return Finding(
        "perf_analyzer",
        False,
        "not on PATH",
        "for cross-checks only: pip install perf-analyzer (needs glibc 2.38)",
    )


def _hardware_table(hardware: Hardware) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    cores = f"{hardware.cores} of {hardware.cores_of_machine}"
    if hardware.cpu_limit is not None:
        cores += f", limited to {hardware.cpu_limit:g} by the cgroup"
    table.add_row("processor", f"{hardware.cpu_model} ({hardware.architecture})")
    table.add_row("cores", cores)
    table.add_row(
        "memory",
        f"{size_text(hardware.memory_available_bytes)} available of "
        f"{size_text(hardware.memory_total_bytes)}",
    )
    for name in hardware.instruction_sets:
        table.add_row(name, INSTRUCTION_SETS[name])
    for gpu in hardware.gpus:
        table.add_row("gpu", f"{gpu.name}, {size_text(gpu.memory_bytes)}, driver {gpu.driver}")
    if not hardware.gpus:
        table.add_row("gpu", "none")
    return table

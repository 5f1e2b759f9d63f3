"""The server's command line and environment, as pure functions of what is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimton.plugin.server.installation import Installation
from trimton.plugin.server.ports import Ports
from trimton.plugin.server.run_folder import RunFolder

ControlMode = Literal["none", "explicit", "poll"]

# Room for a stub's tensors in flight. Regions grow when needed, but growing during a
# measurement would be measured; untouched pages of a region cost no memory.
STUB_SHARED_MEMORY_BYTES = 64 << 20
# A model of gigabytes takes longer to load than the backend's 30 s.
STUB_TIMEOUT_S = 300


@dataclass(frozen=True)
class LaunchSettings:
    """What one server is to serve, where and how.

    ``models`` are loaded at the start in control mode explicit; ``exit_timeout_s`` is how long
    a graceful stop waits for requests in flight; ``repoagents`` is the folder with repository
    agents, None for the server's own.
    """

    repository: Path
    host: str
    ports: Ports
    control_mode: ControlMode
    models: Sequence[str]
    exit_timeout_s: int
    repoagents: Path | None = None
    extra_arguments: Sequence[str] = ()


def command(installation: Installation, settings: LaunchSettings, run: RunFolder) -> list[str]:
    """The command line of tritonserver.

    ``--exit-on-error=false`` keeps a server up whose model failed, so that it can be asked
    for the reason; ``extra_arguments`` come last and win.
    """
    ports = settings.ports
    options = {
        "model-repository": settings.repository,
        "backend-directory": run.backends,
        "model-control-mode": settings.control_mode,
        "exit-on-error": "false",
        "exit-timeout-secs": settings.exit_timeout_s,
        "http-address": settings.host,
        "http-port": ports.http,
        "grpc-address": settings.host,
        "grpc-port": ports.grpc,
        "metrics-address": settings.host,
        "metrics-port": ports.metrics,
    }
    if settings.repoagents is not None:
        options["repoagent-directory"] = settings.repoagents
    backend = {
        "shm-region-prefix-name": run.shm_prefix,
        "shm-default-byte-size": STUB_SHARED_MEMORY_BYTES,
        "stub-timeout-seconds": STUB_TIMEOUT_S,
    }
    return [
        str(installation.executable),
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--backend-config=python,{name}={value}" for name, value in backend.items()),
        *(f"--load-model={name}" for name in settings.models),
        *settings.extra_arguments,
    ]


def environment(installation: Installation, inherited: Mapping[str, str]) -> dict[str, str]:
    """``inherited`` with the installation's programs and libraries in front.

    The stub ignores Python's variables; the first ``python3`` on PATH decides its packages.
    """
    first = {"PATH": installation.programs, "LD_LIBRARY_PATH": installation.libraries}
    return dict(inherited) | {
        name: ":".join(filter(None, [str(folder), inherited.get(name, "")]))
        for name, folder in first.items()
    }

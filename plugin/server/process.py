"""A running Triton server, as a context manager; no process of it outlives its owner."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from trimton.core.errors import InfrastructureError, InputError
from trimton.core.files import write_error
from trimton.plugin.server import supervisor
from trimton.plugin.server.control import ControlClient, one_sentence
from trimton.plugin.server.installation import Installation, require_installation
from trimton.plugin.server.launch import ControlMode, LaunchSettings, command, environment
from trimton.plugin.server.models import check_models, model_names
from trimton.plugin.server.ports import Ports, choose_ports
from trimton.plugin.server.run_folder import new_run_folder

EXIT_TIMEOUT_S = 10  # what a draining server gives to requests in flight, and to idle clients
GRACE_S = 20.0  # until a draining server is killed

_START_ATTEMPTS = 3
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1"}
_LOG_PREFIX = re.compile(r"^([EWI])\d{4} \S+ +\d+ \S+\] ")
_PORT_TAKEN = re.compile("address already in use|failed to start .* service", re.IGNORECASE)


class _PortTakenError(InfrastructureError):
    """Another program opened a port between its choice and the server's start."""


class TritonServer:
    """A Triton server that runs until ``stop()``, the end of the ``with`` block or of this process.

    ``http_url``, ``grpc_url`` and ``metrics_url`` are ``host:port`` without a scheme; ``pid`` is
    the server's own process id, the root of the process tree whose memory and CPU it uses;
    ``control`` loads, unloads and asks for versions, configurations and load errors.
    """

    def __init__(
        self, guard: subprocess.Popen[str], pid: int, host: str, ports: Ports, log_file: Path
    ) -> None:
        self._guard = guard
        address = _ANY_ADDRESS.get(host, host)
        self.pid = pid
        self.log_file = log_file
        self.http_url = f"{address}:{ports.http}"
        self.grpc_url = f"{address}:{ports.grpc}"
        self.metrics_url = f"{address}:{ports.metrics}"
        self.control = ControlClient(self.http_url)

    @classmethod
    def start(
        cls,
        repository: Path,
        *,
        log_file: Path,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        control_mode: ControlMode = "none",
        load: Sequence[str] | None = None,
        ready_timeout_s: float = 120.0,
        repoagents: Path | None = None,
        extra_arguments: Sequence[str] = (),
        installation: Installation | None = None,
    ) -> Self:
        """Start a server on ``repository`` and return when it serves all it was asked to load.

        Port 0 stands for any free one. ``load`` names the models to load at the start and
        implies control mode explicit. ``repoagents`` is a folder of repository agents, such as
        trimton.plugin.agent.build makes. What the server prints goes to ``log_file``.

        Raises InputError for a missing or empty repository, an unknown model, a port in use, no
        server installed, or a model that cannot be loaded or that a repository agent refuses
        (the reason in one sentence);
        InfrastructureError if the server ends or is not ready after ``ready_timeout_s``.
        """
        installation = installation or require_installation()
        check_models(repository, load or ())
        wanted = Ports(http_port, grpc_port, metrics_port)
        for attempt in range(1, _START_ATTEMPTS + 1):
            settings = LaunchSettings(
                repository=repository.absolute(),
                host=host,
                ports=choose_ports(host, wanted),
                control_mode=control_mode if load is None else "explicit",
                models=tuple(load or ()),
                exit_timeout_s=EXIT_TIMEOUT_S,
                repoagents=None if repoagents is None else repoagents.absolute(),
                extra_arguments=tuple(extra_arguments),
            )
            try:
                return cls._start_once(installation, settings, log_file, ready_timeout_s)
            except _PortTakenError:
                if attempt == _START_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    @classmethod
    def _start_once(
        cls,
        installation: Installation,
        settings: LaunchSettings,
        log_file: Path,
        ready_timeout_s: float,
    ) -> Self:
        with _open_log(log_file) as log, new_run_folder(installation) as run:
            guard = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", supervisor.__file__),
                    *(str(os.getpid()), str(GRACE_S), str(run.folder), run.shm_prefix, "--"),
                    *command(installation, settings, run),
                ],
                env=environment(installation, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=(run.lock,),
                start_new_session=True,  # Ctrl-C reaches the owner alone, which stops gracefully
            )
            try:
                assert guard.stdout is not None
                pid_line = guard.stdout.readline()
            except BaseException:
                _end(guard)
                raise
        if not pid_line:
            _end(guard)
            raise InfrastructureError(
                f"the Triton server cannot be started: {last_words(log_file)}"
            )
        server = cls(guard, int(pid_line), settings.host, settings.ports, log_file)
        try:
            server._wait_until_live(ready_timeout_s)
            server._require_loaded(_wanted(settings))
        except BaseException:
            server.stop()
            raise
        return server

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._guard.poll() is None

    def stop(self, *, drain: bool = False) -> None:
        """End the server; on return all its processes and its shared memory are gone.

        ``drain`` gives requests in flight up to EXIT_TIMEOUT_S seconds and unloads the models
        one by one. Without it the server is killed: it holds nothing that could be lost, and the
        owner knows whether its own requests are answered. Can be called again, and after the
        server has died.
        """
        _end(self._guard, signal.SIGTERM if drain else signal.SIGINT)

    def wait(self) -> None:
        """Block until the server ends by itself, which is an error (see ``require_alive``)."""
        self._guard.wait()
        self.require_alive()

    def require_alive(self) -> None:
        """Raise InfrastructureError (exit 4), with the server's last words, if it is gone."""
        if not self.alive():
            words = last_words(self.log_file)
            kind = _PortTakenError if _PORT_TAKEN.search(words) else InfrastructureError
            raise kind(
                f"the Triton server ended with exit code {self._guard.returncode}: {words} "
                f"(log: {self.log_file})"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_live(self, timeout_s: float) -> None:
        """The server opens its HTTP port after it has tried to load the models of its start."""
        deadline = time.monotonic() + timeout_s
        while not self.control.is_live():
            self.require_alive()
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"the Triton server is not ready after {timeout_s:.0f} s: "
                    f"{last_words(self.log_file)} (log: {self.log_file})"
                )
            time.sleep(0.02)

    def _require_loaded(self, wanted: Sequence[str]) -> None:
        for name, reason in self.control.load_errors().items():
            raise InputError(f"model {name!r} cannot be loaded: {reason}")
        tried = {entry["name"] for entry in self.control.index() if "state" in entry}
        for name in wanted:
            if name not in tried:  # refused before a version was tried: the index gives no reason
                words = last_words(self.log_file, about=f"'{name}'")
                raise InputError(f"model {name!r} is refused: {one_sentence(words)}")


def _wanted(settings: LaunchSettings) -> Sequence[str]:
    """The models that the server must have loaded at its start."""
    if settings.control_mode == "none":
        return model_names(settings.repository)
    return settings.models


def last_words(log_file: Path, about: str = "") -> str:
    """The last error in a server's log, else its last line, without the logger's prefix.

    Only lines with ``about`` in them count.
    """
    text = log_file.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() and about in line]
    errors = [line for line in lines if line.startswith(("E", "error:"))]
    last = (errors or lines or ["it printed nothing"])[-1]
    return _LOG_PREFIX.sub("", last).strip('"')


def _open_log(log_file: Path) -> IO[bytes]:
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        return log_file.open("wb")
    except OSError as error:
        raise write_error(log_file, error) from error


def _end(guard: subprocess.Popen[str], how: signal.Signals = signal.SIGINT) -> None:
    """Ask the supervisor to end; what it supervises ends with it."""
    if guard.poll() is None:
        guard.send_signal(how)
        guard.wait()
    if guard.stdout is not None:
        guard.stdout.close()

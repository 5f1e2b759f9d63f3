"""Running servers of a repository: told to load, waited for, and asked what a run asked.

A server in control mode explicit loads when it is told to. One in mode poll looks by itself, after
the time that it was started with; one in mode none loads at its next start. The last two answer a
load request alike, so waiting tells them apart.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimton.core.errors import EXIT_FAIL, InfrastructureError, InputError, TrimtonError
from trimton.perf.targets.address import Address
from trimton.perf.targets.endpoint import Endpoint
from trimton.perf.targets.tensors import Array
from trimton.plugin.recorded import Recorded, as_text
from trimton.plugin.server.control import ControlClient, one_sentence
from trimton.plugin.server.grpc_control import is_live_over_grpc, load_over_grpc

DEFAULT_TOLERANCE = 0.02
_POLL_S = 0.05
_NOT_EXPLICIT = re.compile("not allowed if polling is enabled")


class WrongAnswerError(TrimtonError):
    """A served version does not answer what was recorded of it."""

    exit_code = EXIT_FAIL


@dataclass(frozen=True)
class RunningServer:
    """A server at ``address`` (``host:port`` of its HTTP port).

    ``timeout_s`` is how long it may take to load a model, or to look by itself. With
    ``grpc_address`` it is told to load over gRPC, which does not make clients of HTTP wait.
    """

    address: str
    timeout_s: float = 120.0
    grpc_address: str | None = None

    @classmethod
    def parse(cls, text: str, timeout_s: float = 120.0) -> RunningServer:
        """From ``host:port`` of HTTP, and behind a comma the gRPC port: ``host:8000,8001``.

        Raises InputError for anything else.
        """
        http, comma, grpc_port = text.partition(",")
        address = Address.parse(http)
        if not comma:
            return cls(str(address), timeout_s)
        if not grpc_port.isdecimal() or not 0 < int(grpc_port) < 1 << 16:
            raise InputError(
                f"{text!r} is no server address; give HOST:PORT or HOST:PORT,GRPC_PORT."
            )
        return cls(str(address), timeout_s, str(replace(address, port=int(grpc_port))))

    def require_live(self) -> None:
        """InfrastructureError unless it answers, on all ports that are named."""
        if not self._control().is_live():
            raise InfrastructureError(
                f"the server at {self.address} does not answer; nothing was changed."
            )
        if self.grpc_address is not None and not is_live_over_grpc(self.grpc_address):
            raise InfrastructureError(
                f"no server speaks gRPC at {self.grpc_address}; nothing was changed."
            )

    def load(self, model: str) -> bool:
        """Tell the server to load ``model``; False where it is not in control mode explicit.

        Returns when it is loaded. Raises InputError with the server's reason.
        """
        try:
            if self.grpc_address is not None:
                load_over_grpc(self.grpc_address, model, self.timeout_s)
            else:
                self._control().load(model)
        except InputError as error:
            if _NOT_EXPLICIT.search(str(error)):
                return False
            raise InputError(f"the server at {self.address}: {error}") from error
        return True

    def wait_until_served(self, model: str, versions: Sequence[int]) -> bool:
        """Whether all ``versions`` of ``model`` are ready within the time limit.

        Raises InputError as soon as the server says that it cannot load one of them.
        """
        started = time.monotonic()
        with self._endpoint() as endpoint:
            while not all(endpoint.is_version_ready(model, str(v)) for v in versions):
                self._raise_load_error(model, versions)
                if time.monotonic() >= started + self.timeout_s:
                    return False
                time.sleep(_POLL_S)
        return True

    def _raise_load_error(self, model: str, versions: Sequence[int]) -> None:
        """A server in mode poll tells in its index alone that it could not load a version."""
        wanted = set(map(str, versions))
        for entry in self._control().index():
            if entry["name"] == model and entry.get("version") in wanted:
                reason = entry.get("reason", "")
                if entry.get("state") == "UNAVAILABLE" and reason not in ("", "unloaded"):
                    raise InputError(
                        f"the server at {self.address}: version {entry['version']} of {model!r} "
                        f"cannot be loaded: {one_sentence(reason)}"
                    )

    def check_answers(
        self,
        model: str,
        version: int,
        recorded: Recorded,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
    ) -> float:
        """Ask for what was recorded; returns the largest difference, see ``difference``.

        Raises WrongAnswerError where it is over ``tolerance``, where the server answers with an
        error, or where it takes smaller batches than were measured: completing a configuration, a
        server leaves batching out for a model whose first dimension is fixed.
        """
        largest = 0.0
        with self._endpoint() as endpoint:
            try:
                specs = endpoint.model_metadata(model).inputs
                batch = endpoint.max_batch_size(model) or 0
                if batch < (recorded.max_batch_size or 0):
                    raise WrongAnswerError(
                        f"version {version} of {model!r} at {self.address} has a max_batch_size of "
                        f"{batch}, but {recorded.max_batch_size} was measured; write it into "
                        "config.pbtxt."
                    )
                batch = max(batch, 1)
                for start in range(0, len(recorded), batch):
                    part = recorded.part(start, start + batch)
                    answer = endpoint.infer(model, part.inputs, specs, version=str(version))
                    for name, expected in part.outputs.items():
                        largest = max(largest, difference(expected, answer.get(name)))
            except InputError as error:
                raise WrongAnswerError(
                    f"version {version} of {model!r} refuses a recorded request: {error}"
                ) from error
        if largest > tolerance:
            raise WrongAnswerError(
                f"version {version} of {model!r} at {self.address} answers differently than in "
                f"the run (by {largest:.2%} of the largest value; {tolerance:.2%} is allowed)."
            )
        return largest

    def _control(self) -> ControlClient:
        return ControlClient(self.address, self.timeout_s)

    def _endpoint(self) -> Endpoint:
        return Endpoint(self.address, timeout_s=self.timeout_s)


def difference(expected: Array, observed: Array | None) -> float:
    """How far an output is from the recorded one, as a share; infinite where it cannot be compared.

    Floating-point: the largest difference over the largest magnitude. Others: the share of values
    that differ.
    """
    if observed is None or expected.shape != observed.shape:
        return float("inf")
    if expected.dtype.kind != "f":
        texts = [as_text(a) if a.dtype == object else a for a in (expected, observed)]
        return float(np.mean(texts[0] != texts[1])) if expected.size else 0.0
    before, after = expected.astype(np.float64), observed.astype(np.float64)
    finite = np.isfinite(before)
    if not np.isfinite(after[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    gap = float(np.abs(after[finite] - before[finite]).max())
    magnitude = float(np.abs(before[finite]).max())
    return gap / magnitude if magnitude else (float("inf") if gap else 0.0)

"""What loads without a proof although a repository is guarded: bypasses of the agent, and the mend.

Triton asks the agent only where the configuration in force names it. The files of a repository say
so of what will be loaded; a running server says so of what it has loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from trimton.core.errors import InputError
from trimton.plugin.agent.build import AGENT_NAME
from trimton.plugin.proof import agent_parameters, bypass_reason
from trimton.plugin.repository import CONFIG_NAME, Repository, RepositoryModel, config_from_json
from trimton.plugin.server.control import READY, ControlClient

# A load request for a name that no repository has changes nothing, whatever the answer is.
_NOBODY = "trimton-doctor-asks-whether-loads-are-allowed"
_LOADS_ARE_REFUSED = re.compile(r"not allowed|[Ff]orbidden|restricted", re.ASCII)


@dataclass(frozen=True)
class Bypass:
    """How something is, or can be, loaded without a proof; ``model`` None = any of the server."""

    model: str | None
    reason: str


def repository_bypasses(repository: Repository) -> Iterator[Bypass]:
    """The models of ``repository`` that a server would load without a proof."""
    for name in repository.names():
        try:
            model = repository.model(name)
        except InputError as error:
            yield Bypass(name, str(error))
            continue
        if reason := bypass_reason(model) or _leniency(model):
            yield Bypass(name, reason)


def server_bypasses(control: ControlClient, repository: Repository) -> Iterator[Bypass]:
    """What the server behind ``control`` has loaded, and would load, without a proof.

    Raises InfrastructureError where it does not answer.
    """
    here = set(repository.names())
    for name in sorted({m["name"] for m in control.index() if m.get("state") == READY}):
        if name not in here:
            yield Bypass(name, f"is served, but is not in {repository.path}.")
        elif agent_parameters(config_from_json(control.model_config(name))) is None:
            path = repository.path / name / CONFIG_NAME
            yield Bypass(
                name,
                "is served under a configuration that does not name the agent, so it was loaded "
                f"without asking; run 'touch {path}' and load it again.",
            )
    if _takes_load_requests(control):
        yield Bypass(
            None,
            "the server takes load requests, which may bring a configuration of their own; keep "
            "clients from them with --http-restricted-api=model-repository:KEY=VALUE and "
            "--grpc-restricted-protocol, or start it with --model-control-mode=poll or none.",
        )


def _leniency(model: RepositoryModel) -> str | None:
    parameters = agent_parameters(model.config) or {}
    if parameters.get("mode") == "warn":
        return (
            f"{model.folder / CONFIG_NAME}: its agent {AGENT_NAME!r} only warns; set mode to "
            "enforce, or TRIMTON_AGENT_MODE in the server's environment."
        )
    return None


def _takes_load_requests(control: ControlClient) -> bool:
    try:
        control.load(_NOBODY)
    except InputError as error:
        return not _LOADS_ARE_REFUSED.search(str(error))
    return True

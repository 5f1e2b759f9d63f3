"""Models that the agent guards: their proofs are there before the configuration that needs them.

A proof covers the configuration, so a change of the version policy needs new ones, of every
version that it serves. They are named by the configuration they are for and lie beside the old
ones: a server finds the right ones before the commit and after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from trimton.core.errors import InputError
from trimton.plugin.agent import check
from trimton.plugin.promotion.candidate import Candidate, NotPromotedError
from trimton.plugin.proof import ProofTerms, agent_parameters, policy_digest, prove_version
from trimton.plugin.repository import RepositoryModel


def refuse_unprovable(candidate: Candidate, model: RepositoryModel, key: bytes | None) -> None:
    """Refuse a guarded model without a key, with a redirect, or that insists on another policy."""
    parameters = agent_parameters(model.config)
    if parameters is None:
        return
    if key is None:
        raise InputError(
            f"{model.folder}: is guarded by the agent, which would not load the new version; "
            "give --key-file to prove it."
        )
    if parameters.get("redirect"):
        raise InputError(
            f"{model.folder}: its agent redirects to another folder, where versions are not "
            "promoted; remove the redirect."
        )
    wanted, found = parameters.get("policy", ""), policy_digest(candidate.verdict)
    if wanted and wanted != found:
        raise NotPromotedError(
            f"{model.folder}: its agent insists on the policy {wanted}, but "
            f"{candidate.verdict_file} is of {found}; judge the run by that policy."
        )


def prove_change(
    run: Path,
    model: RepositoryModel,
    versions: Sequence[int],
    config: str,
    key: bytes | None,
    terms: ProofTerms,
) -> None:
    """Prove ``versions`` for the coming text of config.pbtxt; nothing for an unguarded model.

    Raises InputError for a version that ``run`` has not judged.
    """
    if key is None or agent_parameters(model.config) is None:
        return
    for version in versions:
        prove_version(run, model, version, key, terms=terms, next_config=config)


def refuse_unproven_versions(model: RepositoryModel, versions: Sequence[int], config: str) -> None:
    """NotPromotedError unless proofs of ``versions`` for the coming configuration lie there.

    Nothing for an unguarded model.
    """
    if agent_parameters(model.config) is None:
        return
    sha = hashlib.sha256(config.encode()).hexdigest()
    for version in versions:
        proof = model.folder / check.proof_name(str(version), sha)
        if not proof.exists():
            raise NotPromotedError(
                f"{proof}: is missing, so the agent would not load version {version}; "
                "make it with 'trimton agent prove' after setting the version policy by hand."
            )

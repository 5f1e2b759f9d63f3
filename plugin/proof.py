"""Proofs: a run's verdict, signed for exactly the bytes of one version of a model.

The agent in the server checks them when it loads the model. What a proof says, and how it is
signed and checked, stands in trimton.plugin.agent.check, which the agent runs by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from pydantic import ValidationError

from trimton.core.errors import EXIT_FAIL, InputError, TrimtonError
from trimton.core.files import write_error, write_text
from trimton.perf.hardware import INSTRUCTION_SETS
from trimton.perf.verdict import Verdict
from trimton.plugin import run_directory
from trimton.plugin.agent import check
from trimton.plugin.agent.build import AGENT_NAME
from trimton.plugin.repository import (
    CONFIG_NAME,
    DEFAULT_MODEL_FILENAME,
    ModelConfig,
    RepositoryModel,
    parse_config,
    path_digest,
)

SECONDS_PER_DAY = 86400
ROLE_BASELINE = "baseline"
ROLE_VARIANT = "variant"


class UnprovenModelError(TrimtonError):
    """The agent would not load a model, or would not be asked about it."""

    exit_code = EXIT_FAIL


@dataclass(frozen=True)
class ProofTerms:
    """What a proof holds for, besides the bytes.

    ``instruction_sets``: what a processor must have to load the model; None = all that the
    verdict's machine had, for speed was measured with those.
    """

    valid_days: float = 90.0
    instruction_sets: Sequence[str] | None = None


@dataclass(frozen=True)
class Proof:
    """A proof that was written. ``policy`` is the digest that an agent can insist on."""

    path: Path
    model: str
    version: int
    role: str
    policy: str
    expires: str
    key_id: str


def new_key(path: Path) -> str:
    """Write a new random key, for its owner's eyes only; returns the key's id.

    Raises InputError if the file exists: proofs of a lost key are void.
    """
    key = secrets.token_bytes(check.KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.hex() + "\n")
    except FileExistsError as error:
        raise InputError(
            f"{path}: exists, and proofs may depend on it; name a new file."
        ) from error
    except OSError as error:
        raise write_error(path, error) from error
    return check.key_id(key)


def read_key(path: Path) -> bytes:
    """The key in a file that new_key wrote; InputError if it is none or open to all users."""
    try:
        return check.read_key(str(path.absolute()))
    except check.UnprovenError as error:
        raise InputError(str(error)) from error


def policy_digest(verdict: Verdict) -> str:
    """SHA-256 (hex) of the policy that a verdict was reached by, as canonical JSON."""
    policy = json.dumps(verdict.settings.get("policy"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(policy.encode()).hexdigest()


def prove_version(
    run: Path,
    model: RepositoryModel,
    version: int,
    key: bytes,
    *,
    folder: Path | None = None,
    terms: ProofTerms = ProofTerms(),
    next_config: str | None = None,
) -> Proof:
    """Write the proof that ``version`` of ``model`` is what the verdict of ``run`` judged.

    ``next_config`` is the text of the ``config.pbtxt`` that is about to come into force (default:
    the one that is): the proof for it lies beside that for the present one.
    ``folder`` holds the version where the model's configuration redirects to it (default: the
    model's own folder); the proof goes there, beside the version. A version can be proven whose
    bytes are those of a variant that passed, or of the baseline that variants were compared with.

    Raises InputError for a run without a verdict, a verdict of another model, bytes that it did
    not judge or that did not pass, and a configuration that does not name the agent.
    """
    if reason := bypass_reason(model):
        raise InputError(reason)
    verdict_file = run_directory.verdict_file(run)
    verdict = read_verdict(verdict_file)
    if verdict.model != model.name:
        raise InputError(f"{verdict_file}: is a verdict on {verdict.model}, not on {model.name}.")
    folder = folder or model.folder
    covered = _subjects(model.folder, folder, version)
    role = _role(verdict_file, verdict, folder / str(version), model.filename)
    config, name = model.config, check.proof_name(str(version))
    if next_config is not None:
        covered[CONFIG_NAME] = hashlib.sha256(next_config.encode()).hexdigest()
        config = parse_config(next_config, model.folder / CONFIG_NAME)
        name = check.proof_name(str(version), covered[CONFIG_NAME])
    now = time.time()
    predicate = {
        "model": model.name,
        "version": version,
        "role": role,
        "created": check.timestamp(now),
        "expires": check.timestamp(now + _valid_days(terms) * SECONDS_PER_DAY),
        "policy": policy_digest(verdict),
        "verdict": {
            "sha256": check.file_digest(str(verdict_file)),
            "outcome": verdict.outcome,
            "created": verdict.created,
        },
        "processor": _processor(verdict_file, verdict, terms),
        "config": config_json(config),
    }
    statement = {
        "_type": check.STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha}} for name, sha in covered.items()],
        "predicateType": check.PREDICATE_TYPE,
        "predicate": predicate,
    }
    path = folder / name
    write_text(path, check.seal(statement, key))
    return Proof(
        path=path,
        model=model.name,
        version=version,
        role=role,
        policy=str(predicate["policy"]),
        expires=str(predicate["expires"]),
        key_id=check.key_id(key),
    )


def check_model(
    model: RepositoryModel, *, key_file: Path | None = None, policy: str | None = None
) -> str:
    """What the agent would answer on this host to a load of ``model``, in words.

    ``key_file`` and ``policy`` are the configuration's own parameters if they are not given.
    Raises UnprovenModelError with the reason of a veto, or why the agent would not be asked.
    """
    if reason := bypass_reason(model):
        raise UnprovenModelError(reason)
    parameters = agent_parameters(model.config) or {}
    try:
        word, text = check.check_model(
            str(model.folder.absolute()),
            config_json(model.config),
            str(key_file.absolute()) if key_file else parameters.get("key_file", ""),
            parameters.get("policy", "") if policy is None else policy,
            parameters.get("redirect", ""),
        )
    except check.UnprovenError as error:
        raise UnprovenModelError(f"{model.folder}: {error}") from error
    except OSError as error:
        raise UnprovenModelError(f"{model.folder}: {error.filename} cannot be read.") from error
    return f"{word}: {text}"


def read_verdict(path: Path) -> Verdict:
    """The verdict of a run; InputError where there is none or it is not one."""
    try:
        return Verdict.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: no verdict; give the directory of a finished run.") from error
    except ValidationError as error:
        raise InputError(f"{path}: is no verdict ({error.errors()[0]['msg']}).") from error


def config_json(config: ModelConfig) -> dict[str, Any]:
    """A configuration as the server gives it to agents: every field, with its default."""
    document: dict[str, Any] = json_format.MessageToDict(
        config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def bypass_reason(model: RepositoryModel) -> str | None:
    """Why a server would load ``model`` without asking the agent, and the mend; None if it asks."""
    path = model.folder / CONFIG_NAME
    if model.config is None:
        return f"{path}: is missing, so a server loads the model without asking; write one."
    if agent_parameters(model.config) is None:
        return (
            f"{path}: does not name the agent, so a server loads the model without asking; "
            f'add model_repository_agents {{ agents [ {{ name: "{AGENT_NAME}" }} ] }}.'
        )
    return None


def agent_parameters(config: ModelConfig | None) -> dict[str, str] | None:
    """The parameters of the agent in a configuration; None where it does not name the agent."""
    agents = () if config is None else config.model_repository_agents.agents
    for agent in agents:
        if agent.name == AGENT_NAME:
            return dict(agent.parameters)
    return None


def _subjects(model: Path, folder: Path, version: int) -> dict[str, str]:
    try:
        return check.subjects(str(model), str(folder), str(version))
    except check.UnprovenError as error:
        raise InputError(str(error)) from error
    except FileNotFoundError as error:
        raise InputError(f"{folder}: has no version {version} ({error.filename}).") from error


def _role(verdict_file: Path, verdict: Verdict, version: Path, filename: str) -> str:
    digest = path_digest(version, {filename: DEFAULT_MODEL_FILENAME})
    judged = [variant for variant in verdict.variants if variant.digest == digest]
    if any(variant.outcome == "pass" for variant in judged):
        return ROLE_VARIANT
    if digest == verdict.baseline_digest:
        return ROLE_BASELINE
    if judged:
        raise InputError(
            f"{verdict_file}: {judged[0].variant}, which {version} holds, did not pass "
            f"({judged[0].outcome})."
        )
    raise InputError(f"{verdict_file}: judged other bytes than those in {version}.")


def _processor(verdict_file: Path, verdict: Verdict, terms: ProofTerms) -> dict[str, Any]:
    hardware = verdict.environment.get("hardware")
    if not isinstance(hardware, dict) or not {"architecture", "instruction_sets"} <= set(hardware):
        raise InputError(f"{verdict_file}: does not say on which processor it was reached.")
    if terms.instruction_sets is None:
        sets = list(hardware["instruction_sets"])
    else:
        sets = list(terms.instruction_sets)
        for name in sets:
            if name not in INSTRUCTION_SETS:
                have = ", ".join(INSTRUCTION_SETS)
                raise InputError(f"there is no instruction set {name!r} (known: {have}).")
    return {"architecture": hardware["architecture"], "instruction_sets": sets}


def _valid_days(terms: ProofTerms) -> float:
    if not 0 < terms.valid_days <= 3650:
        raise InputError(f"a proof is valid for up to 3650 days, not {terms.valid_days:g}.")
    return terms.valid_days

"""What the verdicts say of one version of a model, as a hook needs it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimton.core.errors import InputError
from trimton.perf.verdict import CheckOutcome, Verdict
from trimton.plugin.hooks.verdicts import Found, VerdictBook
from trimton.plugin.proof import ROLE_BASELINE, ROLE_VARIANT, policy_digest
from trimton.plugin.repository import Repository

DIGEST_PREFIX = "sha256:"

# unknown: no verdict says anything that counts.
RulingOutcome = Literal["pass", "fail", "inconclusive", "unknown"]


@dataclass(frozen=True)
class Ruling:
    """The answer about one version, as it is sent, too; only ``pass`` lets a version go on.

    ``reason`` is a sentence for whoever waits for it.
    """

    outcome: RulingOutcome
    reason: str
    model: str
    version: str
    digest: str | None = None
    role: str | None = None
    run: str | None = None
    policy: str | None = None
    created: str | None = None


@dataclass(frozen=True)
class Judge:
    """Rules by the newest verdict on a version's bytes.

    ``repository`` holds the versions that are asked for by number. Verdicts count that are not
    older than ``max_age_days`` and, where ``policy`` is given, of the policy with that digest.
    """

    book: VerdictBook
    repository: Repository | None = None
    policy: str | None = None
    max_age_days: float = 30.0

    def rule(self, model: str, version: str) -> Ruling:
        """The ruling on ``version``: a number, or the digest of its bytes.

        Raises InfrastructureError where the runs cannot be read.
        """
        try:
            digest = version if version.startswith(DIGEST_PREFIX) else self._digest(model, version)
        except InputError as error:
            return Ruling("unknown", str(error), model, version)
        found = self.book.newest(model, digest)
        if found is None:
            reason = f"no verdict covers version {version} of {model!r}; run its recipe."
            return Ruling("unknown", reason, model, version, digest)
        outcome, role, reason = self._weigh(found, digest)
        return Ruling(
            outcome=outcome,
            reason=reason,
            model=model,
            version=version,
            digest=digest,
            role=role,
            run=found.run,
            policy=policy_digest(found.verdict),
            created=found.verdict.created,
        )

    def _digest(self, model: str, version: str) -> str:
        if self.repository is None:
            raise InputError(
                "versions are asked for by digest here; start with --repository for numbers."
            )
        found = self.repository.model(model)
        if int(version) not in found.versions:
            raise InputError(f"{model!r} has no version {version}.")
        try:
            return found.version_digest(int(version))
        except OSError as error:
            raise InputError(f"version {version} of {model!r} cannot be read.") from error

    def _weigh(self, found: Found, digest: str) -> tuple[RulingOutcome, str | None, str]:
        run, verdict = found.run, found.verdict
        age = datetime.datetime.now(datetime.UTC) - found.created
        if age > datetime.timedelta(days=self.max_age_days):
            reason = f"the verdict of {run} is {age.days} days old; run the recipe again."
            return "unknown", None, reason
        if self.policy is not None and policy_digest(verdict) != self.policy:
            return "unknown", None, f"the verdict of {run} is of another policy; judge it again."
        return _outcome(run, verdict, digest)


def _outcome(run: str, verdict: Verdict, digest: str) -> tuple[CheckOutcome, str, str]:
    judged = [variant for variant in verdict.variants if variant.digest == digest]
    passed = [variant for variant in judged if variant.outcome == "pass"]
    if passed:
        return "pass", ROLE_VARIANT, f"{passed[0].variant} passed in {run}."
    if digest == verdict.baseline_digest:
        return "pass", ROLE_BASELINE, f"it is the baseline that {run} compared with."
    variant = judged[0]
    broken = [c for c in variant.checks if c.outcome == variant.outcome]
    first = f": {broken[0].metric}, {broken[0].why}" if broken else ""
    reason = f"{variant.variant} did not pass in {run} ({variant.outcome}{first})."
    return variant.outcome, ROLE_VARIANT, reason


def open_judge(
    runs: Path, repository: Path | None, policy: str | None, max_age_days: float
) -> Judge:
    """A judge by the runs in a folder; InputError for folders that are not there."""
    for folder in (runs, repository):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: is no folder.")
    if not max_age_days > 0:
        raise InputError(f"--max-age-days must be more than 0, not {max_age_days:g}.")
    where = None if repository is None else Repository(repository.absolute())
    return Judge(VerdictBook(runs.absolute()), where, policy, max_age_days)

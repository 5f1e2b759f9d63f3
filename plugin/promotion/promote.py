"""Promotion: the variant that a run proved goes into service as a new version.

    read and refuse -> lock -> install -> prove -> commit -> load, wait, ask -> confirm
                                                          `-> roll back if a server objects

Nothing that a server serves changes before the commit, and the version that served stays where
it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from trimton.plugin.ensembles import insisted_versions
from trimton.plugin.promotion.candidate import (
    DEFAULT_MAX_AGE_DAYS,
    Candidate,
    NotPromotedError,
    read_candidate,
    refuse_unproven,
)
from trimton.plugin.promotion.confirm import (
    ServerAnswer,
    ServerCheck,
    confirm,
    undoing,
)
from trimton.plugin.promotion.guarded import prove_change, refuse_unprovable
from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.lock import model_lock
from trimton.plugin.promotion.servers import DEFAULT_TOLERANCE, RunningServer
from trimton.plugin.promotion.versions import (
    config_text,
    install_version,
    pin_served_versions,
    remove_leftovers,
    reread,
    set_served_versions,
)
from trimton.plugin.promotion.writable import repository_of, writable_model
from trimton.plugin.proof import ProofTerms
from trimton.plugin.repository import CONFIG_NAME, Repository, RepositoryModel, config_digest
from trimton.plugin.rollout.canary import CanaryResult
from trimton.plugin.rollout.trial import Trial, end_killed_canary
from trimton.plugin.version_policy import is_pinned, served_versions


@dataclass(frozen=True)
class PromotionTerms:
    """How a promotion is to be done.

    With ``trial`` the variant has to pass a canary first.
    ``force`` is the reason why a variant may ship whose verdict is no pass, is old, or was rolled
    back before; the journal keeps it. ``key`` signs proofs for a model that the agent guards.
    """

    servers: Sequence[RunningServer] = ()
    force: str | None = None
    key: bytes | None = None
    proof: ProofTerms = field(default_factory=ProofTerms)
    max_age_days: float = DEFAULT_MAX_AGE_DAYS
    tolerance: float = DEFAULT_TOLERANCE
    lock_timeout_s: float = 300.0
    trial: Trial | None = None


@dataclass(frozen=True)
class Promotion:
    """What a promotion did. ``changed`` is False where the variant was in service already."""

    model: str
    version: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    changed: bool
    servers: tuple[ServerAnswer, ...] = ()
    notes: tuple[str, ...] = ()
    canary: CanaryResult | None = None


def promote(
    run: Path, repositories: Sequence[Path] = (), terms: PromotionTerms = PromotionTerms()
) -> Promotion:
    """Put the candidate of ``run`` into service in the one of ``repositories`` that has its model.

    Without any, it is the repository that the run read its baseline from. A second call does
    nothing but ask the servers again. Raises NotPromotedError for a variant that must not ship,
    InputError for wrong input, and whatever a server objects with, after what served before is back
    in service.
    """
    candidate = read_candidate(run)
    if terms.force is None:
        refuse_unproven(candidate, terms.max_age_days)
    repository = repository_of(repositories or [candidate.repository()], candidate.model)
    writable_model(repository, candidate.model)
    check = ServerCheck(
        terms.servers, candidate.recorded() if terms.servers else None, terms.tolerance
    )
    if terms.trial is not None:
        terms.trial.require_server(check)
    check.require_live()
    journal = Journal(repository.path)
    with model_lock(repository.path, candidate.model, timeout_s=terms.lock_timeout_s):
        model = writable_model(repository, candidate.model)
        remove_leftovers(model.folder)
        journal.settle(model.name, served_versions(model.config, model.versions))
        model = end_killed_canary(journal, model)
        served = served_versions(model.config, model.versions)
        digests = {version: model.version_digest(version) for version in served}
        same = [version for version, digest in digests.items() if digest == candidate.digest]
        if same:
            answers = confirm(check, model.name, (same[-1],), same[-1])
            return Promotion(model.name, same[-1], served, served, changed=False, servers=answers)
        replaced = _baseline(candidate, model, digests)
        _refuse_other_config(candidate, model, terms)
        _refuse_again(candidate, journal, terms)
        return _Change(candidate, repository, journal, terms, check).make(model, served, replaced)


@dataclass(frozen=True)
class _Change:
    candidate: Candidate
    repository: Repository
    journal: Journal
    terms: PromotionTerms
    check: ServerCheck

    def make(self, model: RepositoryModel, served: tuple[int, ...], replaced: int) -> Promotion:
        """Install, prove, commit and confirm. The caller holds the lock."""
        candidate, terms = self.candidate, self.terms
        insisted = insisted_versions(self.repository, model.name)
        kept = tuple(v for v in served if v != replaced or v in insisted)
        refuse_unprovable(candidate, model, terms.key)
        # Also for the way back: these proofs are what a rollback finds.
        self._prove(model, served)
        model = self._pin(model, served)
        model, version = self._install(model)
        after = (*kept, version)
        self._prove(model, after)
        details = candidate.details() | ({"forced": terms.force} if terms.force else {})
        with self._tried(model, (replaced, version), served, details) as canary:
            change = self.journal.begin(
                model.name, "promote", served, after, version=version, **details
            )
            model = set_served_versions(reread(model), after)
            self.journal.note(change, "committed")
            with undoing(self.journal, model, change, self.check):
                answers = confirm(self.check, model.name, after, version)
            if answers:
                self.journal.note(change, "confirmed", servers=[a.address for a in answers])
        notes = tuple(
            f"version {v} stays in service, because the ensemble {insisted[v]} insists on it"
            for v in kept
            if v in insisted
        )
        return Promotion(model.name, version, served, after, True, answers, notes, canary)

    def _tried(
        self,
        model: RepositoryModel,
        pair: tuple[int, int],
        served: tuple[int, ...],
        details: dict[str, str],
    ) -> AbstractContextManager[CanaryResult | None]:
        """The canary that the terms ask for, passed."""
        if self.terms.trial is None:
            return nullcontext()
        return self.terms.trial.passed(
            model,
            pair,
            served,
            check=self.check,
            journal=self.journal,
            details=details,
            prove=self._prove,
        )

    def _prove(self, model: RepositoryModel, versions: Sequence[int]) -> None:
        """Prove ``versions`` for the configuration that serves exactly them."""
        run, terms = self.candidate.run, self.terms
        text = config_text(model, versions)
        prove_change(run, model, versions, text, terms.key, terms.proof)

    def _pin(self, model: RepositoryModel, served: tuple[int, ...]) -> RepositoryModel:
        """Name the served versions in the policy, so that a new one is not served by itself."""
        if is_pinned(model.config):
            return model
        change = self.journal.begin(model.name, "pin", served, served)
        default = self.candidate.config_text() if model.config is None else ""
        model = pin_served_versions(model, default)
        self.journal.note(change, "committed")
        return model

    def _install(self, model: RepositoryModel) -> tuple[RepositoryModel, int]:
        """A version with the candidate's bytes: one that a killed promotion left, or a new one."""
        newest = model.latest()
        changes = self.journal.changes(model.name)
        once_served = {v for c in changes if c.is_done for v in (*c.before, *c.after)}
        served = served_versions(model.config, model.versions)
        is_left = newest not in (*once_served, *served)
        if is_left and model.version_digest(newest) == self.candidate.digest:
            return model, newest
        return install_version(model, self.candidate.folder, digest=self.candidate.digest)


def _baseline(candidate: Candidate, model: RepositoryModel, digests: dict[int, str]) -> int:
    """The served version that the candidate was measured against."""
    wanted = candidate.verdict.baseline_digest
    same = [version for version, digest in digests.items() if digest == wanted]
    if not same:
        serves = ", ".join(map(str, digests)) or "none"
        raise NotPromotedError(
            f"{model.folder}: serves other bytes (version {serves}) than {candidate.verdict_file} "
            "was measured against; run the recipe again."
        )
    return same[-1]


def _refuse_other_config(
    candidate: Candidate, model: RepositoryModel, terms: PromotionTerms
) -> None:
    """What was measured under other threads, batches or instances proves nothing for these."""
    measured = candidate.verdict.settings.get("model", {}).get("config")
    if terms.force is None and measured not in (None, config_digest(model.config)):
        raise NotPromotedError(
            f"{model.folder / CONFIG_NAME}: has changed since {candidate.verdict_file}, not in its "
            "version policy alone; run the recipe again."
        )


def _refuse_again(candidate: Candidate, journal: Journal, terms: PromotionTerms) -> None:
    """What was taken out of service does not come back on the same measurements."""
    if terms.force is not None:
        return
    measured = {key: candidate.details()[key] for key in ("digest", "run")}
    for change, by in journal.history(candidate.model).withdrawn:
        is_same = measured.items() <= change.details.items()
        if (is_same or change.details.get("verdict") == candidate.verdict_digest) and not (
            by.details.get("may_be_repeated")
        ):
            raise NotPromotedError(
                f"{candidate.verdict_file}: what it proved was taken out of service on {by.time} "
                f"({by.details.get('reason') or 'no reason given'}); run the recipe again, "
                "or give --force with a reason."
            )

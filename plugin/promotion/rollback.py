"""Rollback: what served before serves again. Nothing is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimton.core.errors import InputError
from trimton.plugin.ensembles import insisted_versions
from trimton.plugin.promotion.confirm import ServerAnswer, ServerCheck, confirm, undoing
from trimton.plugin.promotion.guarded import refuse_unproven_versions
from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.lock import model_lock
from trimton.plugin.promotion.servers import RunningServer
from trimton.plugin.promotion.versions import config_text, remove_leftovers, set_served_versions
from trimton.plugin.promotion.writable import repository_of, writable_model
from trimton.plugin.version_policy import served_versions


@dataclass(frozen=True)
class RollbackTerms:
    """How a rollback is to be done. ``to``: this version, instead of what served before."""

    to: int | None = None
    reason: str = ""
    servers: Sequence[RunningServer] = ()
    lock_timeout_s: float = 300.0


@dataclass(frozen=True)
class Rollback:
    """What a rollback did: ``model`` served the versions ``before`` it and ``after`` it."""

    model: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    changed: bool
    servers: tuple[ServerAnswer, ...] = ()


def roll_back(
    repositories: Sequence[Path], name: str, terms: RollbackTerms = RollbackTerms()
) -> Rollback:
    """Let ``name`` serve what it served before the last promotion.

    Again and again it goes back further. Raises InputError where the journal knows of nothing
    before, or a version is no longer there; and what a server objects with, after the state that
    was found is restored.
    """
    repository = repository_of(repositories, name)
    check = ServerCheck(terms.servers)
    check.require_live()
    journal = Journal(repository.path)
    with model_lock(repository.path, name, timeout_s=terms.lock_timeout_s):
        model = writable_model(repository, name)
        remove_leftovers(model.folder)
        served = served_versions(model.config, model.versions)
        journal.settle(name, served)
        after = (terms.to,) if terms.to is not None else journal.history(name).served_before
        if after is None:
            raise InputError(
                f"{journal.path}: knows of nothing that {name!r} served before; "
                "name a version with --to."
            )
        if missing := set(after) - set(model.versions):
            have = ", ".join(map(str, model.versions))
            raise InputError(f"{model.folder}: has no version {min(missing)} (versions: {have}).")
        if after == served:
            answers = confirm(check, name, after, after[-1])
            return Rollback(name, served, after, changed=False, servers=answers)
        for version, ensemble in insisted_versions(repository, name).items():
            if version in served and version not in after:
                raise InputError(
                    f"{model.folder}: the ensemble {ensemble} insists on version {version}; let it "
                    "take another one first."
                )
        refuse_unproven_versions(model, after, config_text(model, after))
        change = journal.begin(name, "rollback", served, after, reason=terms.reason)
        model = set_served_versions(model, after)
        journal.note(change, "committed")
        with undoing(journal, model, change, check):
            answers = confirm(check, name, after, after[-1])
        if answers:
            journal.note(change, "confirmed", servers=[a.address for a in answers])
    return Rollback(name, served, after, changed=True, servers=answers)

"""Both versions in service for a canary, and back to what served before.

A request that names no version gets the highest. So a copy of the version in service lies on top
of the canary meanwhile: clients keep getting the same bytes, and only recorded requests, with the
version in their URL, reach the canary.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trimton.core.errors import EXIT_FAIL, EXIT_INCONCLUSIVE, InputError, TrimtonError
from trimton.plugin.promotion.confirm import ServerCheck, confirm, undoing
from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.versions import (
    ASIDE_PREFIX,
    flush_folder,
    install_version,
    reread,
    set_served_versions,
)
from trimton.plugin.repository import RepositoryModel
from trimton.plugin.rollout.canary import CanaryResult, Step, run_canary
from trimton.plugin.rollout.plan import CanaryPlan
from trimton.plugin.rollout.traffic import version_arms
from trimton.plugin.version_policy import served_versions

Prove = Callable[[RepositoryModel, Sequence[int]], None]


class CanaryError(TrimtonError):
    """A canary did not pass; what served before serves again."""

    def __init__(self, result: CanaryResult) -> None:
        last = result.steps[-1]
        super().__init__(f"the canary was stopped at {last.share_pct:g} %: {last.why}.")
        self.result = result
        self.exit_code = EXIT_FAIL if result.outcome == "fail" else EXIT_INCONCLUSIVE


@dataclass(frozen=True)
class Trial:
    """A canary as a step of a promotion. ``on_step`` hears of each of its steps."""

    plan: CanaryPlan
    on_step: Callable[[Step], None] = lambda step: None

    def require_server(self, check: ServerCheck) -> None:
        """InputError without a server to try it on."""
        if not check.servers:
            raise InputError("--canary tries a version on a running server; name it with --server.")

    @contextlib.contextmanager
    def passed(
        self,
        model: RepositoryModel,
        pair: tuple[int, int],
        served: tuple[int, ...],
        *,
        check: ServerCheck,
        journal: Journal,
        details: Mapping[str, str],
        prove: Prove,
    ) -> Iterator[CanaryResult]:
        """Enter the block, with both of ``pair`` in service, if the canary passes.

        ``pair``: the version in service that it replaces, one of the ``served``, and its own.
        ``prove`` signs versions for the configuration that serves them. The block moves the
        version policy on. Raises RolledBackError where the canary does not pass or a server
        objects, with the old state in service again. The caller holds the model's lock.
        """
        replaced, version = pair
        model, top = install_version(model, model.folder / str(replaced))
        both = (*served, version, top)
        try:
            prove(model, both)
            change = journal.begin(
                model.name, "canary", served, both, version=version, copy=top, **details
            )
            model = set_served_versions(model, both)
            journal.note(change, "committed")
            with undoing(journal, model, change, check):
                answers = confirm(check, model.name, both, version)
                if any(answer.how == "at_next_start" for answer in answers):
                    raise InputError(
                        "a server that loads only at its start cannot try a version; use control "
                        "mode explicit or poll."
                    )
                result = self._try(model.name, (top, version), check)
            journal.note(change, "confirmed", seconds=round(result.seconds, 1))
            yield result
        finally:
            _remove_copy(reread(model), top)

    def _try(self, model: str, versions: tuple[int, int], check: ServerCheck) -> CanaryResult:
        assert check.recorded is not None, "a promotion with servers has recorded requests"
        with version_arms(check.servers[0].address, model, versions, check.recorded) as arms:
            result = run_canary(arms, self.plan, on_step=self.on_step)
        if result.outcome != "pass":
            raise CanaryError(result)
        return result


def end_killed_canary(journal: Journal, model: RepositoryModel) -> RepositoryModel:
    """Put back what served before a canary that was killed, if the last change is one.

    The caller holds the model's lock and has settled the journal.
    """
    changes = journal.changes(model.name)
    if not changes or changes[-1].action != "canary":
        return model
    last = changes[-1]
    if last.phase != "abandoned":
        back = journal.begin(
            model.name,
            "undo",
            last.after,
            last.before,
            undoes=last.id,
            reason="the canary was killed",
            may_be_repeated=True,
        )
        model = set_served_versions(model, last.before)
        journal.note(back, "committed")
    _remove_copy(model, last.details["copy"])
    return reread(model)


def _remove_copy(model: RepositoryModel, version: int) -> None:
    """Remove the copy of a version that lay on top; nothing where it is gone or in service."""
    folder = model.folder / str(version)
    if not folder.is_dir() or version in served_versions(model.config, model.versions):
        return
    for proof in model.folder.glob(f"{version}.*proof.json"):
        proof.unlink(missing_ok=True)
    aside = model.folder / f"{ASIDE_PREFIX}{version}"
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    flush_folder(model.folder)

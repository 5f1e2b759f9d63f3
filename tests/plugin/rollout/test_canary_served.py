"""A canary on a real server: a slower version is stopped and taken out, an equal one takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from trimton.core.errors import EXIT_FAIL, InputError
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.promotion.confirm import RolledBackError
from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.promote import PromotionTerms, promote
from trimton.plugin.promotion.rollback import RollbackTerms, roll_back
from trimton.plugin.promotion.servers import RunningServer
from trimton.plugin.repository import Repository
from trimton.plugin.rollout.canary import Step
from trimton.plugin.rollout.plan import CanaryPlan
from trimton.plugin.rollout.trial import Trial
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer
from trimton.plugin.version_policy import served_versions

pytestmark = pytest.mark.server

WriteRun = Callable[[Path, Path, int], Path]
SHARES = (25.0, 100.0)


@dataclass(frozen=True)
class Site:
    """A repository with the model ``net``, its server, and runs about it."""

    folder: Path
    server: TritonServer
    write_run: WriteRun

    @property
    def repository(self) -> Path:
        return self.folder / "models"

    def run(self, name: str, products: int) -> Path:
        """A run whose verdict says pass, whatever its candidate costs."""
        return self.write_run(self.folder / "runs" / name, self.repository, products)

    def served(self) -> tuple[int, ...]:
        model = Repository(self.repository).model("net")
        return served_versions(model.config, model.versions)


@pytest.fixture(scope="module")
def site(
    installation: Installation,
    write_repository: Callable[..., None],
    write_run: WriteRun,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """One server in mode explicit; the tests of this module follow each other on it."""
    folder = tmp_path_factory.mktemp("site")
    write_repository(folder / "models")
    with TritonServer.start(
        folder / "models", load=["net"], log_file=folder / "log", installation=installation
    ) as server:
        yield Site(folder, server, write_run)


def canary(site: Site, on_step: Callable[[Step], None]) -> PromotionTerms:
    plan = CanaryPlan(SHARES, hold_s=1.0, rate_rps=200, max_regression_pct=80, patience=25)
    return PromotionTerms(servers=[RunningServer(site.server.http_url)], trial=Trial(plan, on_step))


def ready_versions(site: Site) -> set[str]:
    index = site.server.control.index()
    return {entry["version"] for entry in index if entry.get("state") == "READY"}


def test_a_slower_version_is_stopped_and_taken_out(site: Site) -> None:
    steps: list[Step] = []
    meanwhile: list[tuple[str, ...]] = []

    def look(step: Step) -> None:
        steps.append(step)
        with Endpoint(site.server.http_url) as endpoint:
            meanwhile.append(endpoint.model_metadata("net").versions)

    with pytest.raises(RolledBackError, match=r"stopped at \d+ %: .* above 1\.8x") as stopped:
        promote(site.run("slow", products=40), [site.repository], canary(site, look))

    assert stopped.value.exit_code == EXIT_FAIL
    assert steps[-1].outcome == "fail"
    # A copy of the old version lay on top, for requests that name none.
    assert set(meanwhile) == {("1", "2", "3")}
    assert site.served() == (1,)
    assert Repository(site.repository).model("net").versions == (1, 2)
    assert ready_versions(site) == {"1"}
    assert [c.action for c in Journal(site.repository).changes("net")] == ["pin", "canary", "undo"]


def test_an_equal_version_takes_over_and_can_be_rolled_back(site: Site) -> None:
    steps: list[Step] = []
    servers = [RunningServer(site.server.http_url)]

    done = promote(site.run("equal", products=4), [site.repository], canary(site, steps.append))

    assert [(step.share_pct, step.outcome) for step in steps] == [(25, "pass"), (100, "pass")]
    assert steps[1].rate_rps == pytest.approx(4 * steps[0].rate_rps)
    assert done.canary is not None
    assert done.canary.steps == tuple(steps)
    assert site.served() == (done.version,)
    assert ready_versions(site) == {str(done.version)}
    assert done.version in Repository(site.repository).model("net").versions
    assert not (site.repository / "net" / str(done.version + 1)).exists()

    roll_back([site.repository], "net", RollbackTerms(servers=servers))
    assert site.served() == (1,)
    assert ready_versions(site) == {"1"}


def test_a_canary_needs_a_server(site: Site) -> None:
    run = site.run("nowhere", products=4)
    before = site.served()

    with pytest.raises(InputError, match="--server"):
        promote(run, [site.repository], PromotionTerms(trial=Trial(CanaryPlan((100.0,)))))

    assert site.served() == before

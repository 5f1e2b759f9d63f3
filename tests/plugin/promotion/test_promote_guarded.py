"""Promotion of a model that the agent guards: the agent is content before, between and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from trimton.core.errors import InputError
from trimton.plugin.agent.build import build_agent
from trimton.plugin.promotion import promote as promotion
from trimton.plugin.promotion.candidate import NotPromotedError
from trimton.plugin.promotion.promote import PromotionTerms, promote
from trimton.plugin.promotion.rollback import RollbackTerms, roll_back
from trimton.plugin.promotion.servers import RunningServer
from trimton.plugin.proof import check_model, new_key, prove_version, read_key
from trimton.plugin.repository import Repository
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer

if TYPE_CHECKING:
    from tests.plugin.promotion.conftest import Shop


@pytest.fixture
def key_file(shop: Shop) -> Path:
    """The key of an agent that guards the shop's model, whose version 1 is proven."""
    path = shop.folder / "proof.key"
    new_key(path)
    guard(shop, path)
    return path


def guard(shop: Shop, key_file: Path, **parameters: str) -> None:
    lines = "".join(
        f'parameters {{ key: "{name}" value: "{value}" }} '
        for name, value in {"key_file": str(key_file), **parameters}.items()
    )
    with shop.config.open("a") as file:
        file.write(f'model_repository_agents {{ agents [ {{ name: "trimton" {lines} }} ] }}\n')
    model = Repository(shop.repository).model("net")
    prove_version(shop.run(f"proving{len(parameters)}"), model, 1, read_key(key_file))


def verdict_of_agent(shop: Shop) -> str:
    return check_model(Repository(shop.repository).model("net"))


def test_the_agent_is_content_after_each_move(shop: Shop, key_file: Path) -> None:
    terms = PromotionTerms(key=read_key(key_file))
    assert verdict_of_agent(shop) == "allow: proven: version 1"

    promote(shop.run("first"), [shop.repository], terms)
    assert verdict_of_agent(shop) == "allow: proven: version 2"
    promote(shop.run("second"), [shop.repository], terms)
    assert verdict_of_agent(shop) == "allow: proven: version 3"
    roll_back([shop.repository], "net")
    assert verdict_of_agent(shop) == "allow: proven: version 2"
    roll_back([shop.repository], "net")
    assert verdict_of_agent(shop) == "allow: proven: version 1"


@pytest.mark.parametrize("step", ["pin_served_versions", "install_version", "set_served_versions"])
def test_the_agent_is_content_wherever_a_promotion_stops(
    shop: Shop, key_file: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run = shop.run()
    terms = PromotionTerms(key=read_key(key_file))
    with monkeypatch.context() as patched:
        patched.setattr(promotion, step, stop)
        with pytest.raises(KeyboardInterrupt):
            promote(run, [shop.repository], terms)

    assert verdict_of_agent(shop) == "allow: proven: version 1"
    promote(run, [shop.repository], terms)
    assert verdict_of_agent(shop) == "allow: proven: version 2"


def test_a_guarded_model_is_not_promoted_without_the_key(shop: Shop, key_file: Path) -> None:
    with pytest.raises(InputError, match=r"is guarded by the agent.* give --key-file"):
        promote(shop.run(), [shop.repository])

    assert shop.served() == (1,)


def test_a_rollback_to_what_is_not_proven_is_refused(shop: Shop, key_file: Path) -> None:
    promote(shop.run(), [shop.repository], PromotionTerms(key=read_key(key_file)))
    for proof in shop.model.glob("1.*proof.json"):
        proof.unlink()

    with pytest.raises(NotPromotedError, match="the agent would not load version 1"):
        roll_back([shop.repository], "net")

    assert shop.served() == (2,)


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [("policy", "0" * 64, "insists on the policy"), ("redirect", "other", "redirects")],
)
def test_what_the_agent_would_veto_is_refused_before(
    shop: Shop, parameter: str, value: str, words: str
) -> None:
    path = shop.folder / "proof.key"
    new_key(path)
    guard(shop, path, **{parameter: value})

    with pytest.raises((InputError, NotPromotedError), match=words):
        promote(shop.run(), [shop.repository], PromotionTerms(key=read_key(path)))

    assert Repository(shop.repository).model("net").versions == (1,)


@pytest.mark.server
def test_a_server_with_the_agent_follows(
    shop: Shop, key_file: Path, installation: Installation, tmp_path: Path
) -> None:
    def factor() -> float:
        tensor = grpcclient.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), dtype=np.float32))
        return float(client.infer("net", [tensor]).as_numpy("y")[0, 0])

    agents = tmp_path / "agents"
    build_agent(agents)
    with (
        TritonServer.start(
            shop.repository,
            load=["net"],
            log_file=tmp_path / "log",
            installation=installation,
            repoagents=agents,
        ) as server,
        grpcclient.InferenceServerClient(server.grpc_url) as client,
    ):
        servers = [RunningServer(server.http_url)]
        terms = PromotionTerms(servers=servers, key=read_key(key_file))

        promote(shop.run(factor=3.0), [shop.repository], terms)
        assert factor() == 3
        roll_back([shop.repository], "net", RollbackTerms(servers=servers))
        assert factor() == 2

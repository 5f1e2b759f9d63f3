"""Promotion and rollback on real servers in every control mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from trimton.core.errors import EXIT_FAIL, EXIT_INFRASTRUCTURE, InfrastructureError, InputError
from trimton.plugin.promotion.confirm import RolledBackError
from trimton.plugin.promotion.journal import Journal
from trimton.plugin.promotion.promote import PromotionTerms, promote
from trimton.plugin.promotion.rollback import RollbackTerms, roll_back
from trimton.plugin.promotion.servers import RunningServer
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.launch import ControlMode
from trimton.plugin.server.process import TritonServer

if TYPE_CHECKING:
    from tests.plugin.promotion.conftest import Shop

pytestmark = pytest.mark.server


def factor(server: TritonServer) -> float:
    """The factor of the model that answers requests without a version."""
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        tensor = grpcclient.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), dtype=np.float32))
        return float(client.infer("net", [tensor]).as_numpy("y")[0, 0])


def ready_versions(server: TritonServer) -> set[str]:
    return {e["version"] for e in server.control.index() if e.get("state") == "READY"}


def terms(
    server: TritonServer, timeout_s: float = 60.0, *, over_grpc: bool = False
) -> PromotionTerms:
    port = f",{server.grpc_url.rpartition(':')[2]}" if over_grpc else ""
    return PromotionTerms(servers=[RunningServer.parse(f"{server.http_url}{port}", timeout_s)])


@pytest.fixture(scope="module")
def explicit(
    installation: Installation,
    new_shop: Callable[[Path], Shop],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Shop, TritonServer]]:
    """One server in mode explicit; the tests of this module follow each other on it."""
    shop = new_shop(tmp_path_factory.mktemp("explicit"))
    with TritonServer.start(
        shop.repository, load=["net"], log_file=shop.folder / "log", installation=installation
    ) as server:
        yield shop, server


def test_an_explicit_server_is_told_and_asked(explicit: tuple[Shop, TritonServer]) -> None:
    shop, server = explicit
    run = shop.run("good", factor=3.0)

    done = promote(run, [shop.repository], terms(server))

    assert factor(server) == 3
    (answer,) = done.servers
    assert (answer.how, answer.difference) == ("told", 0)
    assert Journal(shop.repository).changes("net")[-1].phase == "confirmed"

    back = roll_back(
        [shop.repository], "net", RollbackTerms(servers=terms(server).servers, reason="test")
    )

    assert back.servers[0].how == "told"
    assert factor(server) == 2


def test_a_version_that_answers_differently_is_rolled_back(
    explicit: tuple[Shop, TritonServer],
) -> None:
    shop, server = explicit
    run = shop.run("differs", factor=4.0, recorded_factor=2.0)

    with pytest.raises(
        RolledBackError, match=r"answers differently .* Version 1 was put back"
    ) as error:
        promote(run, [shop.repository], terms(server))

    assert error.value.exit_code == EXIT_FAIL
    assert shop.served() == (1,)
    assert factor(server) == 2
    assert Journal(shop.repository).changes("net")[-1].action == "undo"


@pytest.mark.parametrize("over_grpc", [False, True])
def test_a_version_that_cannot_be_loaded_never_serves(
    explicit: tuple[Shop, TritonServer], over_grpc: bool
) -> None:
    shop, server = explicit
    run = shop.run(f"broken {over_grpc}", spoil=True)

    with pytest.raises(RolledBackError, match=r"cannot be loaded: .* Version 1 was put back"):
        promote(run, [shop.repository], terms(server, over_grpc=over_grpc))

    assert shop.served() == (1,)
    assert factor(server) == 2


def test_a_configuration_from_a_load_request_does_not_outlive_the_promotion(
    explicit: tuple[Shop, TritonServer],
) -> None:
    shop, server = explicit
    run = shop.run("sticky", factor=5.0)
    override = '{"backend": "onnxruntime", "version_policy": {"specific": {"versions": [1]}}}'
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        client.load_model("net", config=override)
        assert client.get_model_config("net").config.max_batch_size != 8

        promote(run, [shop.repository], terms(server, over_grpc=True))

        assert client.get_model_config("net").config.max_batch_size == 8
    assert factor(server) == 5


def test_a_variant_that_would_lose_batching_is_rolled_back(
    explicit: tuple[Shop, TritonServer],
) -> None:
    shop, server = explicit
    shop.config.write_text('backend: "onnxruntime"\nversion_policy { specific { versions: 1 } }\n')
    run = shop.run("unbatched", batch=1)

    with pytest.raises(RolledBackError, match="has a max_batch_size of 0, but 4 was measured"):
        promote(run, [shop.repository], terms(server))

    assert shop.served() == (1,)
    assert server.control.model_config("net")["max_batch_size"] == 4


def test_a_server_that_is_gone_stops_everything_before_it_begins(
    shop: Shop, content: Callable[[Path], dict[str, bytes]]
) -> None:
    run = shop.run()
    before = content(shop.repository)
    gone = PromotionTerms(servers=[RunningServer("127.0.0.1:1")])

    with pytest.raises(InfrastructureError, match="nothing was changed") as error:
        promote(run, [shop.repository], gone)

    assert error.value.exit_code == EXIT_INFRASTRUCTURE
    assert content(shop.repository) == before


def test_a_grpc_port_that_speaks_none_is_found_before_anything_begins(
    explicit: tuple[Shop, TritonServer], shop: Shop
) -> None:
    _, server = explicit
    port = server.metrics_url.rpartition(":")[2]
    wrong = PromotionTerms(servers=[RunningServer.parse(f"{server.http_url},{port}")])

    with pytest.raises(InfrastructureError, match="no server speaks gRPC at"):
        promote(shop.run(), [shop.repository], wrong)


@pytest.mark.parametrize(
    "text", ["host:8000,", "host:8000,x", "host:8000,70000", "a,b,c", "ftp://x"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no server address"):
        RunningServer.parse(text)


@pytest.mark.parametrize(("mode", "how"), [("poll", "looked"), ("none", "at_next_start")])
def test_servers_in_other_modes_are_waited_for_and_told_apart(
    shop: Shop, installation: Installation, mode: ControlMode, how: str
) -> None:
    with TritonServer.start(
        shop.repository,
        control_mode=mode,
        log_file=shop.folder / "log",
        installation=installation,
        extra_arguments=["--repository-poll-secs=1"] if mode == "poll" else [],
    ) as server:
        if mode == "poll":
            with pytest.raises(RolledBackError, match=r"version 2 .* cannot be loaded.* 1 was put"):
                promote(shop.run("broken", spoil=True), [shop.repository], terms(server))
        done = promote(
            shop.run(factor=3.0), [shop.repository], terms(server, 60 if mode == "poll" else 1)
        )

        assert done.servers[0].how == how
        assert factor(server) == (3 if mode == "poll" else 2)
        if mode == "poll":
            deadline = time.monotonic() + 60
            while ready_versions(server) != {"3"} and time.monotonic() < deadline:
                time.sleep(0.1)
            assert ready_versions(server) == {"3"}

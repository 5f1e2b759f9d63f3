"""The hook server in a process of its own: what it answers, and what it refuses."""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from trimton.plugin.cli.main import main
from trimton.plugin.hooks import serving
from trimton.plugin.repository import path_digest

if TYPE_CHECKING:
    from tests.plugin.hooks.conftest import HookServer, Runs

BASE, GOOD, BAD = (f"sha256:{number:064x}" for number in (1, 2, 3))
NEVER = "sha256:" + "f" * 64
HOOKS = ("confirm-rollout", "pre-rollout", "confirm-promotion")


def exchange(hooks: HookServer, data: bytes, timeout_s: float = 30.0) -> bytes:
    """Send raw bytes and read until the server closes."""
    url = urlsplit(hooks.url)
    assert url.hostname is not None
    with socket.create_connection((url.hostname, url.port or 80), timeout=timeout_s) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def authorised(hooks: HookServer, head: str) -> bytes:
    token = hooks.client.headers["authorization"]
    return f"{head}\r\nhost: x\r\nauthorization: {token}\r\n".encode()


@pytest.mark.parametrize("hook", HOOKS)
def test_flagger_goes_on_with_what_passed_only(hooks: HookServer, hook: str) -> None:
    statuses = [
        hooks.flagger(hook, model="net", version=version).status_code
        for version in (GOOD, BASE, BAD, NEVER)
    ]

    assert statuses == [200, 200, 403, 403]


def test_flagger_rolls_back_what_failed_only(hooks: HookServer) -> None:
    # A rollback hook that succeeds makes Flagger roll back.
    statuses = [
        hooks.flagger("rollback", model="net", version=version).status_code
        for version in (BAD, GOOD, NEVER)
    ]

    assert statuses == [200, 403, 403]


def test_argo_reads_the_outcome_of_any_version(hooks: HookServer) -> None:
    def outcome(version: str) -> str:
        answer = hooks.client.get("/argo/verdict", params={"model": "net", "version": version})
        assert answer.status_code == 200
        return str(answer.json()["outcome"])

    assert [outcome(v) for v in (GOOD, BAD, NEVER, "7")] == ["pass", "fail", "unknown", "unknown"]


def test_a_refusal_says_why_and_is_logged(hooks: HookServer) -> None:
    answer = hooks.flagger("pre-rollout", model="net", version=BAD)

    assert "small did not pass in net-1" in answer.json()["reason"]
    assert "POST /flagger/pre-rollout 403 from 127.0.0.1" in hooks.log()
    assert answer.json()["reason"] in hooks.log()


@pytest.mark.parametrize(
    "header",
    [None, "Bearer wrong", "Bearer", "Basic !!!", "Basic " + base64.b64encode(b"a:b").decode(),
     "Digest x", "Bearer \xe9"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/argo/verdict", "/metrics", "/openapi.json", "/nowhere"])
def test_nothing_is_told_without_the_token(
    hooks: HookServer, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = httpx.get(hooks.url + path, headers=headers)

    assert answer.status_code == 401
    assert "token" in answer.json()["error"]


def test_the_token_may_be_the_password_of_the_url(hooks: HookServer) -> None:
    token = hooks.client.headers["authorization"].removeprefix("Bearer ")
    url = hooks.url.replace("://", f"://flagger:{token}@")

    assert httpx.get(url + "/argo/verdict", params={"model": "net", "version": GOOD}).is_success


def test_health_and_metrics(hooks: HookServer) -> None:
    assert httpx.get(hooks.url + "/healthz").json() == {"verdicts": 2}
    hooks.flagger("pre-rollout", model="net", version=GOOD)
    hooks.client.get("/some/path")
    text = hooks.client.get("/metrics").text

    assert 'trimton_hooks_rulings_total{hook="pre-rollout",outcome="pass"}' in text
    assert 'trimton_hooks_requests_total{path="other",status="404"}' in text
    assert "/some/path" not in text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "body"),
        (b"{", "JSON"),
        (b"\xff\xfe", "body"),
        (b"[]", "body"),
        (b'{"name": "n", "namespace": "p"}', "body.metadata"),
        (b'{"name": "n", "namespace": "p", "metadata": {"model": "net"}}', "metadata.version"),
        (
            b'{"name": "n", "namespace": "p", "metadata": {"model": "../net", "version": "1"}}',
            "metadata.model",
        ),
        (
            b'{"name": "n", "namespace": "p", "metadata": {"model": "net", "version": "../1"}}',
            "metadata.version",
        ),
        (b"[" * 50_000, "body"),
    ],
)
def test_a_wrong_body_is_refused_in_one_sentence(hooks: HookServer, body: bytes, says: str) -> None:
    answer = hooks.client.post(
        "/flagger/pre-rollout", content=body, headers={"content-type": "application/json"}
    )

    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_large_body_is_refused_by_its_length_or_as_it_comes(hooks: HookServer) -> None:
    announced = authorised(hooks, "POST /flagger/pre-rollout HTTP/1.1")
    assert b" 413 " in exchange(hooks, announced + b"content-length: 1000000000\r\n\r\n")

    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    chunked = announced + b"transfer-encoding: chunked\r\n\r\n" + chunk + b"1\r\nx\r\n"
    assert b" 413 " in exchange(hooks, chunked)
    assert "the body is over 65536 bytes" in hooks.log()


def test_a_slow_body_and_a_slow_head_are_refused(hooks: HookServer) -> None:
    head = authorised(hooks, "POST /flagger/pre-rollout HTTP/1.1")

    with ThreadPoolExecutor() as pool:
        body = pool.submit(exchange, hooks, head + b"content-length: 100\r\n\r\n{")
        assert exchange(hooks, head) == b""
    assert b" 408 " in body.result()
    assert "sent no whole request" in hooks.log()


def test_an_endless_head_is_refused(hooks: HookServer) -> None:
    head = b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * (serving.HEAD_BYTES_MAX + 1)

    assert b" 400 " in exchange(hooks, head)


@pytest.mark.parametrize("path", ["/argo/../metrics", "//metrics", "/..%2f..%2fetc/passwd", "/%00"])
def test_a_path_leads_nowhere_but_to_hooks(hooks: HookServer, path: str) -> None:
    answer = exchange(
        hooks, authorised(hooks, f"GET {path} HTTP/1.1") + b"connection: close\r\n\r\n"
    )

    assert b" 404 " in answer


def test_the_log_keeps_to_one_line_whatever_is_asked(hooks: HookServer) -> None:
    hooks.client.get("/evil%0AINFO%20forged%1b[31m")

    assert "\nINFO forged" not in hooks.log()
    assert "/evil?INFO forged?[31m 404" in hooks.log()


def test_nothing_is_written_into_the_runs(hooks: HookServer, shared_runs: Runs) -> None:
    hooks.flagger("pre-rollout", model="net", version=GOOD)

    assert sorted(os.listdir(shared_runs.folder)) == ["net-0", "net-1"]
    assert {tuple(os.listdir(run)) for run in shared_runs.folder.iterdir()} == {("verdict.json",)}


@pytest.mark.parametrize(
    ("token", "mode", "says"),
    [
        ("x" * 31, 0o600, "32 to 4096"),
        ("x" * 32, 0o644, "chmod o="),
        ("x y" * 20, 0o600, "without spaces"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_a_token_that_is_none_is_named(
    tmp_path: Path,
    runs: Runs,
    capsys: pytest.CaptureFixture[str],
    token: str | None,
    mode: int,
    says: str,
) -> None:
    file = tmp_path / "token"
    if token is not None:
        file.write_text(token)
        file.chmod(mode)
    with pytest.raises(SystemExit) as ended:
        main(["serve-hooks", str(runs.folder), "--token-file", str(file)])

    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith(f"trimton: {file}: ")
    assert says in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with serving.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(serving.InputError, match=rf"127\.0\.0\.1:{port} \(address already"):
            serving.listen("127.0.0.1", port)


CERTIFICATES = Path(__file__).parents[2] / "perf" / "targets" / "certificates"


def test_it_speaks_tls_and_numbers_are_versions_of_the_repository(
    serve_hooks: Callable[..., AbstractContextManager[HookServer]], runs: Runs, tmp_path: Path
) -> None:
    version = tmp_path / "models" / "net" / "2"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"weights")
    runs.judge("pass", path_digest(version))
    options = [
        *("--tls-cert", str(CERTIFICATES / "server.pem")),
        *("--tls-key", str(CERTIFICATES / "server.key")),
        *("--repository", str(tmp_path / "models")),
    ]
    trust = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    trust.check_hostname = False

    with serve_hooks(runs, tmp_path, *options, verify=trust) as server:
        assert server.url.startswith("https://")
        assert server.flagger("pre-rollout", model="net", version="2").status_code == 200
        assert server.flagger("pre-rollout", model="net", version="3").status_code == 403
        for model in ("..", ".hidden"):
            assert server.flagger("pre-rollout", model=model, version="2").status_code == 400


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tls-cert", "x.pem"], "both or not at all"),
        (["--tls-cert", "/no/x.pem", "--tls-key", "/no/x.key"], "no certificate"),
        (["--repository", "/no/models"], "/no/models: is no folder"),
        (["--max-age-days", "0"], "--max-age-days"),
        (["--host", "no.such.host.invalid"], "cannot listen"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_served(
    tmp_path: Path,
    runs: Runs,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    says: str,
) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 40)
    token.chmod(0o600)
    with pytest.raises(SystemExit) as ended:
        main(["serve-hooks", str(runs.folder), "--token-file", str(token), "--port", "0", *options])

    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1

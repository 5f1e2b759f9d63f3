"""The files for pipelines: valid by the schemas of who reads them, and calling what Trimton has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import typer
import yaml

from trimton.plugin import hooks
from trimton.plugin.cli.main import build_app
from trimton.plugin.hooks.app import FLAGGER_HOOKS
from trimton.plugin.hooks.calls import FlaggerCall, Subject

FOLDER = Path(hooks.__file__).parent
GITHUB, GITLAB = FOLDER / "github" / "action.yml", FOLDER / "gitlab" / "trimton.gitlab-ci.yml"
KUBERNETES = sorted(FOLDER.glob("*/*.yaml"))
Resources = dict[str, dict[str, Any]]
DOCS = Path(__file__).parents[3] / "docs"


def called(arguments: Sequence[str]) -> str:
    """Parse a command line of Trimton without running it; returns the command's name."""
    command: Any = typer.main.get_command(build_app())
    context = command.make_context("trimton", list(arguments))
    names = []
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        names.append(name)
        context = command.make_context(name, rest, parent=context)
    return " ".join(names)


def containers(value: Any) -> Iterator[dict[str, Any]]:
    """Everything below ``value`` that has an image and runs Trimton."""
    if isinstance(value, dict):
        if "image" in value and value.get("command") == ["trimton"]:
            yield value
        for below in value.values():
            yield from containers(below)
    elif isinstance(value, list):
        for below in value:
            yield from containers(below)


def commands_of_script(script: str, folder: Path, environment: dict[str, str]) -> list[list[str]]:
    """Run a script with a ``trimton`` that only writes down how it is called."""
    stub = folder / "trimton"
    stub.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "open(os.environ['CALLS'], 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "sys.exit(int(os.environ.get('ANSWER_' + sys.argv[1], '0')))\n"
    )
    stub.chmod(0o755)
    calls = folder / "calls"
    calls.write_text("")
    variables = {
        **environment,
        "CALLS": str(calls),
        "GITHUB_OUTPUT": str(folder / "output"),
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], env=variables, capture_output=True, check=False
    )
    (folder / "status").write_text(str(done.returncode))
    return [json.loads(line) for line in calls.read_text().splitlines()]


def test_the_forges_own_schemas_hold() -> None:
    for schema, path in {"vendor.github-actions": GITHUB, "vendor.gitlab-ci": GITLAB}.items():
        done = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_has_its_page() -> None:
    for path in [GITHUB, GITLAB, *KUBERNETES]:
        text = path.read_text(encoding="utf-8")
        pages = [page for page in DOCS.rglob("*.md") if f"docs/{page.relative_to(DOCS)}" in text]
        assert pages, f"{path} names no page"
        assert path.name in pages[0].read_text(encoding="utf-8")


def test_containers_call_commands_that_exist(resources: Resources) -> None:
    found = {
        called(container["args"])
        for resource in resources.values()
        for container in containers(resource)
    }

    assert found == {"gate", "agent check", "serve-hooks"}


def test_a_mount_has_its_volume(resources: Resources) -> None:
    for name, resource in resources.items():
        pod = pod_of(resource)
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        mounts = {
            mount["name"]
            for container in [*pod.get("initContainers", ()), *pod.get("containers", ())]
            for mount in container.get("volumeMounts", ())
        }
        assert mounts <= volumes, name


def pod_of(resource: dict[str, Any]) -> dict[str, Any]:
    """The specification of the pods that a resource makes; nothing where it makes none."""
    spec = resource["spec"]
    pod: dict[str, Any] = spec.get("template", {}).get("spec") or spec.get("predictor") or {}
    return pod


def test_flagger_asks_hooks_that_exist_with_what_they_take(resources: Resources) -> None:
    canary = resources["flagger/canary.yaml: Canary"]
    webhooks = canary["spec"]["analysis"]["webhooks"]

    assert [webhook["type"] for webhook in webhooks] == list(FLAGGER_HOOKS)
    for webhook in webhooks:
        url = urlsplit(webhook["url"])
        assert url.path == f"/flagger/{webhook['type']}"
        assert url.password == "TOKEN"
        assert_is_the_service(resources, url.hostname, url.port)
        FlaggerCall(name="n", namespace="p", metadata=Subject(**webhook["metadata"]))


def test_argo_asks_what_exists_and_rollouts_give_it_its_arguments(resources: Resources) -> None:
    template = resources["argo_rollouts/analysis-template.yaml: AnalysisTemplate"]
    [metric] = template["spec"]["metrics"]
    url = urlsplit(metric["provider"]["web"]["url"])

    assert url.path == "/argo/verdict"
    assert set(parse_qs(url.query)) == set(Subject.model_fields)
    assert_is_the_service(resources, url.hostname, url.port)
    assert metric["provider"]["web"]["jsonPath"] == "{$.outcome}"

    rollout = resources["argo_rollouts/rollout.yaml: Rollout"]
    analysis = rollout["spec"]["strategy"]["canary"]["steps"][0]["analysis"]
    assert analysis["templates"] == [{"templateName": template["metadata"]["name"]}]
    Subject(**{argument["name"]: argument["value"] for argument in analysis["args"]})


def assert_is_the_service(resources: Resources, host: str | None, port: int | None) -> None:
    service = resources["kubernetes/hook-server.yaml: Service"]
    assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}"
    assert port == service["spec"]["ports"][0]["port"]


def github_step(name: str) -> str:
    steps = yaml.safe_load(GITHUB.read_text())["runs"]["steps"]
    return str(next(step["run"] for step in steps if step["name"] == name))


@pytest.mark.parametrize(
    ("answer", "status"), [("0", "0"), ("1", "0"), ("3", "0"), ("2", "2"), ("4", "4")]
)
def test_githubs_measuring_step_leaves_verdicts_to_the_next(
    tmp_path: Path, answer: str, status: str
) -> None:
    environment = {"RECIPE": "my recipe.yaml", "RUN": "out", "ANSWER_run": answer}
    calls = commands_of_script(github_step("Compress and measure"), tmp_path, environment)

    assert [called(call) for call in calls] == ["run"]
    assert calls[0][1] == "my recipe.yaml"
    assert (tmp_path / "status").read_text() == status
    assert (tmp_path / "output").read_text() == f"status={answer}\n"


@pytest.mark.parametrize("environment", ["", "production; rm -rf /"])
def test_githubs_judging_step_passes_its_inputs_as_they_are(
    tmp_path: Path, environment: str
) -> None:
    values = {"RUN": "out", "POLICY": "$(id).yaml", "ENVIRONMENT": environment, "ANSWER_gate": "3"}
    [call] = commands_of_script(github_step("Judge by the policy"), tmp_path, values)

    assert called(call) == "gate"
    expected = ["gate", "out", "--policy", "$(id).yaml"]
    assert call == expected + (["--env", environment] if environment else [])
    assert (tmp_path / "status").read_text() == "3"


def test_githubs_script_of_no_step_holds_an_expression() -> None:
    # Expressions are put into a script as text: whoever names a branch could run commands.
    steps = yaml.safe_load(GITHUB.read_text())["runs"]["steps"]

    assert not [step["name"] for step in steps if "${{" in step.get("run", "")]


@pytest.mark.parametrize(("answer", "status"), [("0", "0"), ("1", "0"), ("4", "4")])
def test_gitlabs_job_measures_then_gates(tmp_path: Path, answer: str, status: str) -> None:
    job = yaml.safe_load(GITLAB.read_text())[".trimton-gate"]
    variables = {**job["variables"], "ANSWER_run": answer}
    calls = commands_of_script("\n".join(job["script"]), tmp_path, variables)

    assert [called(call) for call in calls] == ["run", "gate"][: 2 if status == "0" else 1]
    assert (tmp_path / "status").read_text() == status
    assert [called(line.split()[1:]) for line in job["before_script"][1:]] == ["server install"]

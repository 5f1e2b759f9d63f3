"""``trimton doctor`` finds what is there and says how to get what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from trimton.perf.hardware import describe
from trimton.plugin.server.installation import Installation


def doctor(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "trimton.plugin.cli.main", "doctor", *arguments],
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def findings(**environment: str) -> dict[str, dict[str, Any]]:
    report = json.loads(doctor("--json", **environment))
    return {finding["name"]: finding for finding in report["findings"]}


def test_hardware_and_versions_are_this_machines() -> None:
    report = json.loads(doctor("--json"))
    assert report["hardware"]["cpu_model"] == describe().cpu_model
    assert report["hardware"]["int8_dot_product"] == describe().int8_dot_product
    versions = {finding["name"]: finding["value"] for finding in report["findings"]}
    assert versions["onnxruntime"] == metadata.version("onnxruntime")


@pytest.mark.server
def test_installed_server_is_found_with_its_version(installation: Installation) -> None:
    server = findings()["triton server"]
    assert server["found"] is True
    assert server["value"].startswith(installation.triton_version)


def test_missing_server_comes_with_the_command_that_installs_it(tmp_path: Path) -> None:
    server = findings(TRIMTON_HOME=str(tmp_path))["triton server"]
    assert server["found"] is False
    assert server["mend"] == "trimton server install"


def test_perf_analyzer_is_looked_for_on_the_path(tmp_path: Path) -> None:
    assert findings(PATH=str(tmp_path))["perf_analyzer"]["found"] is False
    program = tmp_path / "perf_analyzer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = findings(PATH=str(tmp_path))["perf_analyzer"]
    assert found["found"] is True
    assert found["value"] == str(program)


def test_text_for_people_says_what_int8_means_here(tmp_path: Path) -> None:
    text = doctor(TRIMTON_HOME=str(tmp_path))
    assert describe().int8_meaning in text
    assert "trimton server install" in text

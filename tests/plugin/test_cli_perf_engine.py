"""``trimton perf --engine perf_analyzer``: its figures in our tables, and what it cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from command_line import Program

from trimton.plugin.cli.main import main
from trimton.plugin.server.probe import probe_model

INSTALLER = Path(__file__).parents[2] / "benchmarks" / "perf_analyzer_binary.py"


@pytest.fixture
def run(capsys):
    return Program(capsys, ("perf",), ("--engine", "perf_analyzer"))


@pytest.fixture
def model_file(tmp_path: Path) -> str:
    onnx.save(probe_model(), tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


@pytest.mark.server
def test_a_rule_of_stability_and_a_percentile_are_passed_on(run, shared_triton):
    subprocess.run([sys.executable, str(INSTALLER)], check=True, capture_output=True)
    code, out, err = run(
        *(
            "probe",
            "--url",
            shared_triton.server.grpc_url,
            "--protocol",
            "grpc",
            "--concurrency",
            "1,2",
        ),
        *("-p", "200", "-s", "1000", "--percentile", "95", "--json"),
    )
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert [level["concurrency"] for level in document["levels"]] == [1, 2]
    for level in document["levels"]:
        assert level["throughput_rps"] > 0
        assert level["latency_ms"]["mean"] > 0
        assert level["server"]["requests"] == level["requests"] > 0
        assert "perf_analyzer" in level["notes"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--request-rate", "10"], "not for a rate, a ramp, a trace or --peak"),
        (["--concurrency-range", "1:0", "--latency-threshold", "5"], "not for a range without END"),
        (["--request-count", "10"], "not for --request-count"),
        (["--warmup", "auto"], "not for --warmup auto"),
        (["--save-trace", "t"], "not for --save-trace"),
        (["--compress"], "not for TLS, headers, compression, shared memory, sequences or workers"),
        (["-i", "grpc", "--streaming"], "not for --streaming"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(run, model_file, options, message):
    code, out, err = run(model_file, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_program_is_one_sentence(run, model_file, monkeypatch):
    monkeypatch.setenv("TRIMTON_PERF_ANALYZER", "/bin/true")
    code, _, err = run(model_file)
    assert code == 2
    assert "/bin/true, which is no perf_analyzer" in err


def test_a_model_in_this_process_is_refused(run, model_file, monkeypatch, tmp_path):
    program = tmp_path / "perf_analyzer"
    program.write_text("#!/bin/sh\necho 'Perf Analyzer Version 9.9'\n")
    program.chmod(0o755)
    monkeypatch.setenv("TRIMTON_PERF_ANALYZER", str(program))
    code, _, err = run(model_file)
    assert code == 2
    assert "perf_analyzer loads models on a server only" in err


def test_an_unknown_engine_is_one_sentence(capsys, model_file):
    with pytest.raises(SystemExit) as ended:
        main(["perf", model_file, "--engine", "wrk"])
    assert ended.value.code == 2
    assert "choose trimton or perf_analyzer" in capsys.readouterr().err

"""perf_analyzer as an engine: a scripted program for its ways to end, the real one for figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.engines.input_data import write_input_data
from trimton.perf.engines.levels import summarise_analyzer
from trimton.perf.engines.perf_analyzer import (
    AnalyzerSettings,
    Target,
    run_perf_analyzer,
)
from trimton.perf.engines.program import VARIABLE, Program, cached_program, find_program
from trimton.perf.load.feeds import random_feeds
from trimton.perf.targets.endpoint import Endpoint
from trimton.perf.targets.tensors import TensorSpec

REPORT = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
    "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
    "p50 latency,p90 latency,p95 latency,p99 latency,Avg latency,request/response,response wait\n"
    "2,1000,65,288,90,11,252,32,0,1500,2000,2500,9000,1900,65,671\n"
)
INSTALLER = Path(__file__).parents[3] / "benchmarks" / "perf_analyzer_binary.py"


def write_program(path: Path, body: str) -> Program:
    """A program that answers ``--version`` as perf_analyzer does and then runs ``body``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "Perf Analyzer Version 9.9 (commit x)"; exit; fi\n'
        f"{body}\n"
    )
    path.chmod(0o755)
    program = Program.at(path)
    assert program is not None
    return program


class NoStatistics:
    """An endpoint of a server that keeps no statistics."""

    def model_statistics(self, model):
        return None


def target(endpoint=None, **fields):
    values = {
        "variant": "m",
        "model": "m",
        "url": "127.0.0.1:1",
        "protocol": "http",
        "endpoint": endpoint or NoStatistics(),
        "specs": (TensorSpec("x", "FP32", (None, 2)),),
        "feeds": [{"x": np.zeros((1, 2), np.float32)}],
        "batch": 1,
        "batches": True,
    }
    return Target(**values | fields)


def test_a_named_program_wins_over_path_and_cache(tmp_path):
    named = write_program(tmp_path / "named", "")
    write_program(tmp_path / "bin" / "perf_analyzer", "")
    write_program(cached_program(tmp_path), "")
    path = {"PATH": str(tmp_path / "bin")}
    assert find_program(tmp_path, path | {VARIABLE: str(named.path)}) == named
    assert find_program(tmp_path, path).path == tmp_path / "bin" / "perf_analyzer"
    assert find_program(tmp_path, {"PATH": ""}).path == cached_program(tmp_path)


def test_a_program_on_path_that_does_not_start_is_passed_over(tmp_path):
    broken = tmp_path / "bin" / "perf_analyzer"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'libb64.so.0d: cannot open'; exit 127\n")
    broken.chmod(0o755)
    write_program(cached_program(tmp_path), "")
    environment = {"PATH": str(broken.parent)}
    assert find_program(tmp_path, environment).path == cached_program(tmp_path)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({VARIABLE: "/bin/true"}, "/bin/true, which is no perf_analyzer that starts here"),
        ({}, "no perf_analyzer is on PATH"),
    ],
)
def test_a_missing_program_is_one_sentence(tmp_path, environment, words):
    with pytest.raises(InputError, match=words):
        find_program(tmp_path, {"PATH": ""} | environment)


def test_its_settings_are_those_of_the_load_and_its_figures_stand_in_the_summary(tmp_path):
    script = f"""
printf '%s\\n' "$@" > {tmp_path}/arguments
for last; do :; done
printf '{REPORT.replace(chr(10), chr(92) + "n")}' > "$last"
"""
    program = write_program(tmp_path / "perf_analyzer", script)
    loaded = target(protocol="grpc", batch=2, feeds=[{"x": np.ones((2, 2), np.float32)}])
    seen = []
    measured = run_perf_analyzer(
        program,
        loaded,
        levels=[2],
        rounds=3,
        settings=AnalyzerSettings.like_one_window(1.5),
        on_round=seen.append,
    )
    arguments = (tmp_path / "arguments").read_text().split("\n")
    pairs = dict(pairwise(arguments))
    assert pairs["-u"] == "127.0.0.1:1"
    assert pairs["-i"] == "grpc"
    assert pairs["-b"] == "2"
    assert pairs["--concurrency-range"] == "2"
    assert pairs["--measurement-interval"] == "500"  # three windows are one of ours
    assert seen == list(measured)

    [level] = summarise_analyzer(measured, program, loaded)
    assert (level.concurrency, level.batch, level.rounds) == (2, 2, 3)
    assert level.throughput_rps.value == pytest.approx(1000)
    assert level.latency_ms.mean.value == pytest.approx(1.9)
    assert level.latency_ms.p95.value == pytest.approx(2.5)
    assert level.latency_ms.p99.value == pytest.approx(9)
    assert level.stable
    assert "perf_analyzer 9.9 over grpc" in level.notes[0]


def test_its_own_rule_of_stability_can_be_asked_for(tmp_path):
    script = f"""
printf '%s\\n' "$@" > {tmp_path}/arguments
for last; do :; done
printf '{REPORT.replace(chr(10), chr(92) + "n")}' > "$last"
"""
    program = write_program(tmp_path / "perf_analyzer", script)
    rule = AnalyzerSettings(interval_ms=700, spread_pct=5, trials_max=6, percentile=95)
    measured = run_perf_analyzer(program, target(), levels=[2], rounds=1, settings=rule)
    arguments = (tmp_path / "arguments").read_text().split("\n")
    pairs = dict(pairwise(arguments))
    assert pairs["--measurement-interval"] == "700"
    assert pairs["--stability-percentage"] == "5"
    assert pairs["--max-trials"] == "6"
    assert pairs["--percentile"] == "95"
    [level] = summarise_analyzer(measured, program, target())
    assert level.stable  # it reports nothing else


def test_without_a_column_for_the_mean_it_is_the_sum_of_its_parts(tmp_path):
    report = REPORT.replace("Avg latency,", "").replace("9000,1900,65,671", "9000,65,671")
    script = f"""
for last; do :; done
printf '{report.replace(chr(10), chr(92) + "n")}' > "$last"
"""
    program = write_program(tmp_path / "perf_analyzer", script)
    [one] = run_perf_analyzer(
        program, target(), levels=[2], rounds=1, settings=AnalyzerSettings.like_one_window(1)
    )
    assert one.latencies_ms["mean"] == pytest.approx(0.736)


def test_its_percentiles_need_as_many_requests_as_ours(tmp_path):
    script = f"""
for last; do :; done
printf '{REPORT.replace(chr(10), chr(92) + "n")}' > "$last"
"""
    program = write_program(tmp_path / "perf_analyzer", script)
    [one] = run_perf_analyzer(
        program, target(), levels=[2], rounds=1, settings=AnalyzerSettings.like_one_window(0.45)
    )
    assert one.requests == 450
    assert set(one.latencies_ms) == {"mean", "p50", "p90", "p95"}


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("echo 'error: Thread [0] had error: no'; exit 99", InfrastructureError, "Thread .0."),
        ("echo 'bad option'; exit 3", InputError, "exit code 3: bad option"),
        ("exit 0", InfrastructureError, "without a report"),
        ("kill -9 $$", InfrastructureError, "exit code -9: no message"),
    ],
)
def test_every_bad_end_is_one_sentence(tmp_path, body, kind, words):
    program = write_program(tmp_path / "perf_analyzer", body)
    with pytest.raises(kind, match=words) as raised:
        run_perf_analyzer(
            program, target(), levels=[2], rounds=1, settings=AnalyzerSettings.like_one_window(0.1)
        )
    assert "\n" not in str(raised.value)


def test_input_data_holds_one_entry_for_each_sample_of_a_batch(tmp_path):
    specs = (TensorSpec("x", "FP32", (None, 2)), TensorSpec("s", "BYTES", (None,)))
    feeds = [
        {"x": np.array([[1, 2], [3, 4]], np.float32), "s": np.array([b"a", "b"], dtype=object)}
    ]
    write_input_data(tmp_path / "batched.json", feeds, specs, batches=True)
    entries = json.loads((tmp_path / "batched.json").read_text())["data"]
    assert entries == [
        {"x": {"b64": "AACAPwAAAEA=", "shape": [2]}, "s": {"content": ["a"], "shape": [1]}},
        {"x": {"b64": "AABAQAAAgEA=", "shape": [2]}, "s": {"content": ["b"], "shape": [1]}},
    ]
    write_input_data(tmp_path / "whole.json", feeds, specs, batches=False)
    [entry] = json.loads((tmp_path / "whole.json").read_text())["data"]
    assert entry["x"]["shape"] == [2, 2]
    assert entry["s"] == {"content": ["a", "b"], "shape": [2]}


@pytest.fixture(scope="module")
def real_program() -> Program:
    subprocess.run([sys.executable, str(INSTALLER)], check=True, env=os.environ)
    from trimton.plugin.server.installation import home

    return find_program(home())


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_real_program_sends_our_inputs_and_its_count_is_the_servers(
    shared_triton, real_program, protocol
):
    name = "probe"
    server = shared_triton.server
    with Endpoint(server.http_url) as endpoint:
        specs = endpoint.model_metadata(name).inputs
        loaded = target(
            endpoint,
            variant=name,
            model=name,
            url=server.grpc_url if protocol == "grpc" else server.http_url,
            protocol=protocol,
            specs=specs,
            feeds=random_feeds(specs, batch=2, count=8, seed=0),
            batch=2,
        )
        measured = run_perf_analyzer(
            real_program,
            loaded,
            levels=[1, 2],
            rounds=1,
            settings=AnalyzerSettings.like_one_window(0.6),
        )
    assert [one.concurrency for one in measured] == [1, 2]
    for one in measured:
        assert one.server is not None
        assert one.server.inferences == 2 * one.server.requests
        assert one.client_cpu_us_per_request > 0
        assert one.latencies_ms["p50"] <= one.latencies_ms["p95"]

"""The profile export has the schema of perf_analyzer's."""

from __future__ import annotations

import json

from trimton.perf.formats.profile_export import write_profile_export
from trimton.perf.load.request_log import RequestLog
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.results import LoadWindow


def window(**fields) -> LoadWindow:
    values = {
        "variant": "m",
        "concurrency": 2,
        "batch": 1,
        "round": 0,
        "duration_s": 1.0,
        "requests": 2,
        "errors": {},
        "throughput_rps": 2.0,
        "latency_histogram": LatencyHistogram().encode(),
        "latency_mean_ms": 1.0,
        "client_cpu_us_per_request": 1.0,
    }
    return LoadWindow(**values | fields)


def export(tmp_path, log: RequestLog):
    path = tmp_path / "export.json"
    write_profile_export(path, log.windows, epoch_offset_ns=1_000_000, version="1.2")
    return json.loads(path.read_text())


def test_each_level_is_one_experiment_with_all_its_requests(tmp_path):
    log = RequestLog()
    for index, start in enumerate((100, 300)):
        log.on_request(start + 20, start + 90)
        log.on_request(start, start + 60)
        log.on_window(window(round=index))
    log.on_request(500, 570)
    log.on_window(window(requests=1, concurrency=0, arrivals="poisson", rate_rps=12.5))
    document = export(tmp_path, log)
    assert set(document) == {"experiments", "version", "service_kind", "endpoint"}
    assert (document["service_kind"], document["endpoint"]) == ("triton", "")
    by_mode = {e["experiment"]["mode"]: e for e in document["experiments"]}
    closed = by_mode["concurrency"]
    assert closed["experiment"] == {"mode": "concurrency", "value": 2}
    assert closed["requests"][0] == {
        "timestamp": 1_000_100,
        "request_inputs": {},
        "response_timestamps": [1_000_160],
        "response_outputs": [],
    }
    assert [r["timestamp"] for r in closed["requests"]] == [
        1_000_100,
        1_000_120,
        1_000_300,
        1_000_320,
    ]
    assert closed["window_boundaries"] == [1_000_100, 1_000_300, 1_000_390]
    rate = by_mode["request_rate"]
    assert rate["experiment"] == {"mode": "request_rate", "value": 12.5, "arrivals": "poisson"}
    assert len(rate["requests"]) == 1


def test_no_requests_make_a_valid_file(tmp_path):
    assert export(tmp_path, RequestLog())["experiments"] == []
    log = RequestLog()
    log.on_window(window(requests=0))
    [experiment] = export(tmp_path, log)["experiments"]
    assert experiment["requests"] == experiment["window_boundaries"] == []

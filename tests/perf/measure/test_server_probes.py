"""Everything that is measured of a server around one window."""

from __future__ import annotations

import numpy as np
import pytest

from trimton.perf.load.window import Window
from trimton.perf.measure.probes import Probe
from trimton.perf.measure.server_probes import ServerProbes, WatchedServer
from trimton.perf.results import LoadWindow
from trimton.perf.targets.endpoint import Endpoint

FIELDS = {
    "variant": "m",
    "concurrency": 1,
    "batch": 1,
    "round": 0,
    "duration_s": 1.0,
    "requests": 1,
    "errors": {},
    "throughput_rps": 1.0,
    "latency_histogram": "",
    "latency_mean_ms": 1.0,
    "client_cpu_us_per_request": 1.0,
}


@pytest.fixture
def served(shared_triton):
    return shared_triton.server


def infer_times(endpoint, count):
    specs = endpoint.model_metadata("probe").inputs
    window = Window(0, settle=0)
    for _ in range(count):
        endpoint.infer("probe", {"x": np.zeros((2, 3), np.float32)}, specs)
        window.answered(1, 2)
    return window


@pytest.mark.server
def test_a_local_server_tells_all_but_what_its_machine_lacks(served):
    with Endpoint(served.http_url) as endpoint:
        probes = ServerProbes(WatchedServer(endpoint, "probe", 2, served.pid, served.metrics_url))
        probes.before()
        found = probes.after(infer_times(endpoint, 7))
    record = LoadWindow(**FIELDS, **found)
    assert record.server.requests == 7
    assert record.metrics.counters["nv_inference_count"] == 14
    assert record.metrics.counters["nv_inference_request_success"] == 7
    assert record.metrics.gauges["nv_cpu_memory_used_bytes"].mean > 0
    assert record.pss_bytes > 10 << 20
    assert record.cpu_ms_per_inference > 0
    # Energy is measured or its absence named, never both and never neither.
    assert (record.energy_j is None) == ("energy" in record.missing or "gpu" not in record.missing)
    assert (record.energy_mj_per_inference is None) == (record.energy_j is None)
    assert "gpu" in record.missing or any("gpu" in name for name in record.metrics.gauges)
    assert LoadWindow.model_validate_json(record.model_dump_json()) == record


@pytest.mark.server
def test_of_a_remote_server_each_missing_source_is_named(served):
    with Endpoint(served.http_url) as endpoint:
        probes = ServerProbes(WatchedServer(endpoint, "probe"))
        probes.before()
        found = probes.after(infer_times(endpoint, 3))
    assert found.keys() == {"server", "missing"}
    assert found["missing"].keys() == {"cpu", "memory", "energy", "metrics"}


def test_energy_of_several_counters_adds_up_per_inference(monkeypatch):
    class Fixed(Probe):
        def __init__(self, found):
            self.found = found

        def after(self, window):
            return self.found

    sources = [
        lambda server: Fixed({"energy_j": {"package-0": 3.0}, "missing": {"gpu": "none"}}),
        lambda server: Fixed({"energy_j": {"dram-0": 1.0}, "missing": {"cpu": "remote"}}),
    ]
    monkeypatch.setattr("trimton.perf.measure.server_probes.SOURCES", sources)
    probes = ServerProbes(WatchedServer(None, "m", batch=4))
    window = Window(0, settle=0)
    for _ in range(10):
        window.answered(1, 2)
    found = probes.after(window)
    assert found["energy_j"] == {"package-0": 3.0, "dram-0": 1.0}
    assert found["missing"] == {"gpu": "none", "cpu": "remote"}
    assert found["energy_mj_per_inference"] == pytest.approx(100)

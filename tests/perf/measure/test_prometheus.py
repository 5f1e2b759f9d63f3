"""Prometheus' text format, and the probe that samples a server's metrics."""

from __future__ import annotations

import itertools
import threading

import pytest

from trimton.perf.load.window import Window
from trimton.perf.measure.metrics_probe import MetricsPage, MetricsProbe
from trimton.perf.measure.prometheus import Series, increase, parse_metrics
from trimton.perf.measure.server_metrics import merge_metrics
from trimton.perf.results import GaugeUse, ServerMetrics


def window_of(seconds):
    window = Window(int(seconds * 1e9), settle=0)
    window.answered(1, 2)
    window.answered(2, int(seconds * 1e9) + 2)
    assert window.is_closed
    return window


def pages(*texts):
    """A page that changes with each fetch and stays at the last."""
    left = list(texts)
    lock = threading.Lock()

    def fetch():
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return fetch


def test_labels_values_and_comments_are_read():
    text = (
        "# HELP nv_inference_count Number of inferences\n"
        "# TYPE nv_inference_count counter\n"
        'nv_inference_count{model="a",version="1"} 12\n'
        'odd{path="C:\\\\x \\"y\\" {z},w"} 1e3 1700000000000\n'
        "nv_cpu_utilization 0.25\n"
        "broken{ 1\n"
        "nan NaN\n"
    )
    assert parse_metrics(text) == {
        Series("nv_inference_count", (("model", "a"), ("version", "1"))): 12.0,
        Series("odd", (("path", 'C:\\x "y" {z},w'),)): 1000.0,
        Series("nv_cpu_utilization"): 0.25,
    }


def test_a_counter_grows_and_one_that_fell_counts_from_zero():
    a, b, new = Series("a"), Series("b"), Series("new")
    assert increase({a: 5, b: 9}, {a: 8, b: 2, new: 3}) == {a: 3, b: 2, new: 3}


def test_counters_of_the_model_add_up_over_versions_and_other_models_stay_out():
    before = (
        'nv_inference_count{model="a",version="1"} 10\n'
        'nv_inference_count{model="a",version="2"} 1\n'
    )
    after = (
        'nv_inference_count{model="a",version="1"} 15\n'
        'nv_inference_count{model="a",version="2"} 4\n'
        'nv_inference_count{model="b",version="1"} 99\n'
        'nv_inference_request_failure{model="a",reason="OTHER",version="1"} 2\n'
    )
    probe = MetricsProbe(pages(before, after), "a", interval_s=60)
    probe.before()
    found = probe.after(window_of(1))
    assert found["metrics"].counters == {
        "nv_inference_count": 8,
        'nv_inference_request_failure{reason="OTHER"}': 2,
    }


def test_gauges_are_sampled_during_the_window_and_not_at_its_edges():
    fetched = threading.Event()
    values = iter([100, 1, 3])

    def fetch():
        value = next(values, None)
        if value is None:
            fetched.set()
            value = 100
        return f'nv_inference_pending_request_count{{model="a",version="1"}} {value}\n'

    probe = MetricsProbe(fetch, "a", interval_s=0.01)
    probe.before()
    assert fetched.wait(10)
    metrics = probe.after(window_of(1))["metrics"]
    gauge = metrics.gauges["nv_inference_pending_request_count"]
    assert gauge.samples >= 3
    assert gauge.highest == 100
    # 1 and 3 were read inside, and the 100 before the window was not.
    assert gauge.mean == pytest.approx((4 + 100 * (gauge.samples - 2)) / gauge.samples)


def test_a_long_window_keeps_a_bounded_number_of_texts(monkeypatch):
    monkeypatch.setattr("trimton.perf.measure.metrics_probe._TEXTS_MAX", 8)
    fetched = threading.Event()
    numbers = itertools.count()

    def fetch():
        number = next(numbers)
        if number == 40:
            fetched.set()
        return f"nv_cpu_utilization {number}\n"

    probe = MetricsProbe(fetch, "a", interval_s=0.001)
    probe.before()
    assert fetched.wait(20)
    gauge = probe.after(window_of(1))["metrics"].gauges["nv_cpu_utilization"]
    assert 3 <= gauge.samples <= 8
    assert gauge.highest <= next(numbers)


def test_a_window_that_fails_leaves_no_thread_behind():
    probe = MetricsProbe(lambda: "a 1\n", "a", interval_s=0.01)
    probe.before()
    assert any(thread.name == "metrics" for thread in threading.enumerate())
    probe.close()
    assert not any(thread.name == "metrics" for thread in threading.enumerate())


def test_a_page_that_cannot_be_fetched_is_named_and_ends_nothing(scripts):
    server = scripts.always("ok")
    probe = MetricsProbe(MetricsPage(str(server.address)), "a")
    server.stop()
    probe.before()
    found = probe.after(window_of(1))
    assert found.keys() == {"missing"}
    assert found["missing"]["metrics"].startswith("the server's metrics cannot be read: ")


@pytest.mark.parametrize("reaction", ["not_http", "half_then_close"])
def test_a_page_that_is_no_page_is_an_error_of_the_system(scripts, reaction):
    page = MetricsPage(f"http://{scripts.always(reaction).address}/metrics")
    with pytest.raises(OSError, match="no HTTP answer"):
        page()


def test_a_page_of_another_status_is_named(scripts):
    server = scripts.start(lambda number: scripts.answer(404, {}))
    with pytest.raises(OSError, match="HTTP 404"):
        MetricsPage(str(server.address))()


GPU = 'nv_energy_consumption{{gpu_uuid="GPU-1"}} {}\nnv_gpu_power_usage{{gpu_uuid="GPU-1"}} 70\n'


def test_a_gpu_is_measured_where_it_is_reported():
    probe = MetricsProbe(pages(GPU.format(1000), GPU.format(1700)), "a", interval_s=60)
    probe.before()
    found = probe.after(window_of(12))
    assert found["energy_j"] == {"gpu GPU-1": 700}
    assert found["metrics"].gauges['nv_gpu_power_usage{gpu_uuid="GPU-1"}'].mean == 70


def test_a_window_too_short_for_the_energy_of_a_gpu_says_so():
    probe = MetricsProbe(pages(GPU.format(1000), GPU.format(1700)), "a", interval_s=60)
    probe.before()
    found = probe.after(window_of(2))
    assert "energy_j" not in found
    assert found["missing"] == {"gpu energy": "needs windows of 10 s or more, this one has 2.0 s"}


def test_windows_merge_by_readings():
    def part(count, mean, samples):
        return ServerMetrics(
            counters={"n": count},
            gauges={"g": GaugeUse(mean=mean, highest=mean + 1, samples=samples)},
        )

    assert merge_metrics([]) is None
    merged = merge_metrics([part(1, 2.0, 1), part(2, 5.0, 2)])
    assert merged.counters == {"n": 3}
    assert merged.gauges == {"g": GaugeUse(mean=4.0, highest=6.0, samples=3)}

"""The in-process arm: concurrency is threads, and nothing is lost or invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.arms import Load
from trimton.perf.load.schedules import ConstantRate
from trimton.perf.load.threads import InProcessArm
from trimton.perf.measure.histogram import LatencyHistogram
from trimton.perf.targets.in_process import InProcessModel


@pytest.fixture
def model(tmp_path: Path) -> InProcessModel:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])
    weights = onnx.numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    path = tmp_path / "m.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return InProcessModel(path)


def test_every_inference_of_every_thread_counts(model):
    arm = InProcessArm("m", model, [{"x": np.ones((2, 64), np.float32)}], batch=2)
    window = arm.measure(Load(concurrency=3, round=5, window_s=0.3, warmup_s=0.05))
    assert (window.variant, window.concurrency, window.batch, window.round) == ("m", 3, 2, 5)
    assert window.duration_s >= 0.3
    assert window.requests == len(LatencyHistogram.decode(window.latency_histogram)) > 0
    assert window.throughput_rps == pytest.approx(2 * window.requests / window.duration_s)
    assert not window.errors
    assert window.cpu_ms_per_inference is not None
    assert window.cpu_ms_per_inference > 0
    assert window.client_cpu_us_per_request > 0


def test_a_request_that_fails_is_counted_and_the_threads_go_on(model):
    good, bad = np.ones((1, 64), np.float32), np.ones((1, 63), np.float32)
    arm = InProcessArm("m", model, [{"x": good}, {"x": bad}])
    window = arm.measure(Load(concurrency=1, round=0, window_s=0.1, warmup_s=0))
    [(kind, count)] = window.errors.items()
    assert kind == "refused by the model"
    assert abs(count - window.requests) <= 1
    assert window.error_example is not None
    assert "63" in window.error_example


def test_a_model_that_refuses_everything_is_an_error(model):
    arm = InProcessArm("m", model, [{"x": np.ones((1, 63), np.float32)}])
    with pytest.raises(InfrastructureError, match="answered no request for 'm'"):
        arm.measure(Load(concurrency=2, round=0, window_s=0.1, warmup_s=0))


def test_a_given_number_of_requests_is_made_exactly(model):
    arm = InProcessArm("m", model, [{"x": np.ones((1, 64), np.float32)}])
    load = Load(concurrency=3, round=0, window_s=1, warmup_s=0, request_count=50)
    window = arm.measure(load)
    assert window.requests == 50
    assert window.throughput_rps == pytest.approx(50 / window.duration_s)


def test_a_rate_needs_a_server(model):
    arm = InProcessArm("m", model, [{"x": np.ones((1, 64), np.float32)}])
    load = Load(concurrency=0, round=0, window_s=1, warmup_s=0, arrivals=ConstantRate(10))
    with pytest.raises(InputError, match="loaded by concurrency"):
        arm.measure(load)

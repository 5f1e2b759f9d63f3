"""Verifying an installed server: it loads a small model and answers with the right numbers."""

from __future__ import annotations

import http.client
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from trimton.core.errors import InfrastructureError
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer

_WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)


def probe_model() -> onnx.ModelProto:
    """``y = x @ W`` with x [batch, 3] and a fixed W [3, 2], in float32."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    weights = onnx.numpy_helper.from_array(_WEIGHTS, "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "probe", [x], [y], [weights]
    )
    # Old enough for every ONNX Runtime that a server may bring.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def verify(installation: Installation) -> str:
    """Serve the probe model with ``installation``; return the version that the server tells.

    Raises InfrastructureError if the server does not start or answers wrongly.
    """
    with tempfile.TemporaryDirectory(prefix="trimton-probe-") as name:
        repository = Path(name) / "models"
        (repository / "probe" / "1").mkdir(parents=True)
        onnx.save(probe_model(), repository / "probe" / "1" / "model.onnx")
        with TritonServer.start(
            repository, log_file=Path(name) / "server.log", installation=installation
        ) as server:
            x = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]], dtype=np.float32)
            answer = _infer(server.http_url, x)
            if not np.array_equal(answer, x @ _WEIGHTS):
                raise InfrastructureError(
                    f"the installed Triton server answered {answer.tolist()} to a probe model, "
                    f"where {(x @ _WEIGHTS).tolist()} is right; run 'trimton server install'."
                )
            return server.control.version()


def _infer(
    address: str, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.ravel().tolist()}
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", "/v2/models/probe/infer", json.dumps({"inputs": [tensor]}))
        reply = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if "error" in reply:
        raise InfrastructureError(f"the installed Triton server refused a probe: {reply['error']}")
    (output,) = reply["outputs"]
    return np.array(output["data"], dtype=np.float32).reshape(output["shape"])

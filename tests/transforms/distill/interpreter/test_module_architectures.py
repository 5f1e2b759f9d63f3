"""Whole networks: gradients as their PyTorch source has them, values as ONNX Runtime has them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F

from trimton.transforms.distill.interpreter import OnnxModule

REPOSITORY = Path(__file__).parents[4]


def load(path: Path) -> Iterator[ModuleType]:
    specification = importlib.util.spec_from_file_location(f"of_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules[specification.name]


@pytest.fixture(scope="module")
def source() -> Iterator[ModuleType]:
    """The script that trained fashion_resnet."""
    yield from load(REPOSITORY / "model_repository" / "fashion_resnet" / "train.py")


@pytest.fixture(scope="module")
def real_models() -> Iterator[ModuleType]:
    """The architectures that the onnx package brings."""
    yield from load(REPOSITORY / "benchmarks" / "real_models.py")


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_a_training_step_is_that_of_the_pytorch_source(
    fashion_resnet: ir.Model, source: ModuleType, batch_norm
) -> None:
    module = OnnxModule(fashion_resnet, batch_norm=batch_norm).train()
    network = source.FashionResNet()
    arrays = fashion_resnet.graph.initializers
    state = {name: torch.from_numpy(arrays[name].const_value.numpy().copy()) for name in arrays}
    network.load_state_dict(state, strict=False)
    network.train(batch_norm == "train")
    images, labels = torch.randn(8, 1, 28, 28), torch.arange(8)
    F.cross_entropy(module({"input": images})["logits"], labels).backward()
    F.cross_entropy(network(images), labels).backward()
    theirs = dict(network.named_parameters())
    for name, weight in module.weights():
        scale = float(theirs[name].grad.abs().max())
        torch.testing.assert_close(weight.grad, theirs[name].grad, rtol=0, atol=1e-4 * scale)
    ours = module.to_onnx().graph.initializers
    for name, buffer in network.named_buffers():
        if name in ours:
            np.testing.assert_allclose(ours[name].const_value.numpy(), buffer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["shufflenet", "squeezenet", "densenet121"])
def test_real_architectures_agree_and_train(real_models: ModuleType, name: str) -> None:
    model = real_models.light_model(name).model
    (given,) = model.graph.inputs
    sample = np.random.default_rng(0).standard_normal(tuple(given.shape)).astype(np.float32)
    module = OnnxModule(model, check={given.name: sample})
    assert module.largest_difference < 1e-5
    (made,) = module({given.name: torch.from_numpy(sample)}).values()
    made.square().mean().backward()
    weights = [weight for _, weight in module.weights()]
    assert len(weights) == sum(
        value.const_value.dtype == ir.DataType.FLOAT and not is_statistic(value)
        for value in model.graph.initializers.values()
    )
    assert all(weight.grad is not None for weight in weights)


def is_statistic(value: ir.Value) -> bool:
    return any(
        node.op_type == "BatchNormalization" and index in (3, 4) for node, index in value.uses()
    )

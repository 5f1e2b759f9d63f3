"""What integer models are worth on a processor without 8-bit dot products, emulated by QEMU.

    python benchmarks/emulated_avx2.py

ONNX Runtime takes the kernels that the processor has instructions for. QEMU (user mode, Debian's
qemu-user) shows it a Haswell, which has AVX2 and neither AVX-512 nor VNNI: products of uint8 and
int8 saturate there. Each model runs on the same inputs here and emulated; the columns are the root
mean squares of what its outputs are off, relative to those of the float model. Weights of one sign,
as in the first models, are the worst case; MiniLM is a real one. Nothing is timed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from evaluation.catalogue import EVALUATIONS
from evaluation.evaluation import Array, Feed

from trimton.transforms.graph.load import load_model
from trimton.transforms.graph.save import save_model
from trimton.transforms.quantize.dynamic import DynamicSettings, quantize_dynamic
from trimton.transforms.quantize.weight_only import WeightOnlySettings, quantize_weights

EMULATOR, PROCESSOR = "qemu-x86_64", "Haswell"
REQUESTS = 8
# Runs models on their inputs and keeps the last outputs: (folder) with <name>.onnx, <name>.npz.
CHILD = """
import sys, pathlib, numpy, onnxruntime
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options)
    feeds = numpy.load(path.parent / (path.stem.split("@")[0] + ".npz"))
    count = 1 + max(int(name.split("/")[0]) for name in feeds)
    names = [given.name for given in session.get_inputs()]
    answers = [session.run(None, {n: feeds[f"{i}/{n}"] for n in names})[-1] for i in range(count)]
    numpy.savez(pathlib.Path(sys.argv[2]) / path.stem, *answers)
"""
VARIANTS: Mapping[str, Callable[[ir.Model], ir.Model]] = {
    "dynamic, for avx2": lambda m: quantize_dynamic(m, DynamicSettings("avx2"))[0],
    "dynamic, for avx512_vnni": lambda m: quantize_dynamic(m, DynamicSettings("avx512_vnni"))[0],
    "8 bits in blocks": lambda m: quantize_weights(m, WeightOnlySettings(bits=8))[0],
    "4 bits in blocks": lambda m: quantize_weights(m, WeightOnlySettings(bits=4))[0],
}
GRAPHS = {
    "product": "g (float[16,128] x, float[128,96] w) => (float[16,96] y) { y = MatMul(x, w) }",
    "LSTM": "g (float[8,4,64] x, float[1,256,64] w, float[1,256,64] r) => (float[8,1,4,64] y)"
    "{ y = LSTM<hidden_size=64>(x, w, r) }",
}
SHAPES = {"product": {"w": (128, 96)}, "LSTM": {"w": (1, 256, 64), "r": (1, 256, 64)}}


@dataclass(frozen=True)
class Subject:
    """A float model and the requests to compare on."""

    name: str
    model: ir.Model
    requests: tuple[Feed, ...]


def one_sign(name: str) -> Subject:
    """A model of one node whose weights all have one sign and nearly one size."""
    rng = np.random.default_rng(0)

    def near(size: float, *shape: int) -> Array:
        return (size * (1 + 0.05 * rng.standard_normal(shape))).astype(np.float32)

    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {GRAPHS[name]}')
    (given,) = [value for value in proto.graph.input if value.name == "x"]
    del proto.graph.input[:]
    proto.graph.input.append(given)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(near(0.02, *shape), key) for key, shape in SHAPES[name].items()
    )
    shape = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    return Subject(name, ir.from_proto(proto), ({"x": near(1.0, *shape)},))


def minilm() -> Subject:
    """MiniLM-L3 on sentences."""
    evaluation = EVALUATIONS["minilm_l3"]()
    return Subject("MiniLM", load_model(evaluation.model), evaluation.calibration[:REQUESTS])


def write(subject: Subject, folder: Path) -> Iterator[str]:
    """Save the model, its variants and its requests; gives the names of the variants."""
    feeds = {f"{i}/{k}": v for i, feed in enumerate(subject.requests) for k, v in feed.items()}
    np.savez(folder / subject.name, **feeds)
    save_model(subject.model, folder / f"{subject.name}.onnx")
    for variant, make in VARIANTS.items():
        if subject.name == "LSTM" and not variant.startswith("dynamic"):
            continue
        save_model(make(subject.model), folder / f"{subject.name}@{variant}.onnx")
        yield variant


def answers(models: Path, result: Path, *emulator: str) -> None:
    """Run all models, under ``emulator`` where there is one."""
    result.mkdir()
    packages = Path(np.__file__).parents[1]
    subprocess.run(
        [*emulator, os.path.realpath(sys.executable), "-c", CHILD, models, result],
        env={**os.environ, "PYTHONPATH": str(packages)},
        stderr=subprocess.DEVNULL,  # QEMU's warnings of what it does not emulate
        check=True,
    )


def error(new: Path, old: Path) -> float:
    """Root mean square of the difference of two files of answers, relative to ``old``."""
    with np.load(new) as a, np.load(old) as b:
        pairs = [(a[name], b[name]) for name in b]
    noise = sum(float(np.square(x - y).sum()) for x, y in pairs)
    return float(np.sqrt(noise / sum(float(np.square(y).sum()) for _, y in pairs)))


def main() -> None:
    if shutil.which(EMULATOR) is None:
        sys.exit(f"{EMULATOR} is not installed (Debian: apt-get install qemu-user)")
    with tempfile.TemporaryDirectory(prefix="trimton-") as text:
        folder = Path(text)
        (folder / "models").mkdir()
        written = {
            one.name: list(write(one, folder / "models"))
            for one in (one_sign("product"), one_sign("LSTM"), minilm())
        }
        answers(folder / "models", folder / "here")
        answers(folder / "models", folder / "emulated", EMULATOR, "-cpu", PROCESSOR)
        print(f"{'':<36} {'here':>8} {PROCESSOR:>8}")
        for name, variants in written.items():
            reference = folder / "here" / f"{name}.npz"
            for variant in variants:
                file = f"{name}@{variant}.npz"
                here, there = (error(folder / f / file, reference) for f in ("here", "emulated"))
                print(f"{name + ', ' + variant:<36} {here:>8.4f} {there:>8.4f}")


if __name__ == "__main__":
    main()

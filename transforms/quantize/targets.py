"""Targets: what computes a quantised model, as data.

Sources: ONNX Runtime's documentation of quantisation (data types by processor) and of its
providers; MLAS, whose U8S8 kernels add pairs of products with ``vpmaddubsw`` where the processor
has no 8-bit dot product; TensorRT's developer guide, "Working with Quantized Types".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from trimton.core.errors import InputError
from trimton.transforms.quantize.clipping import ABSORBED
from trimton.transforms.quantize.kernels import KERNELS
from trimton.transforms.quantize.roles import Kernel, Role


@dataclass(frozen=True)
class Target:
    """One set of 8-bit kernels.

    ``instruction_sets`` are those (as trimton.perf.hardware names them) that a processor needs.
    ``activation`` is the type of activations, with the zero point in the middle if ``symmetric``;
    weights are int8 and symmetric everywhere, with a scale for each output channel.
    ``saturates`` says whether two neighbouring products are added in 16 bits. ``integer_bias``
    asks for biases in int32. ``least_product`` is how large every known dimension of a product of
    two activations must be for 8 bits to make up for the conversions, None if they never do.
    ``sums_norms`` asks for sums before layer normalisations in a form that is not fused with them
    (see norm_sums). ``fuses_here`` says whether ONNX Runtime's CPU provider of an x86
    machine fuses the same kernels. ``refusal`` is why nothing can be quantised for it, if so.
    """

    name: str
    description: str
    instruction_sets: tuple[str, ...] = ()
    kernels: Mapping[str, Kernel] = field(default_factory=lambda: KERNELS)
    absorbed: frozenset[str] = ABSORBED
    activation: ir.DataType = ir.DataType.UINT8
    symmetric: bool = False
    saturates: bool = False
    integer_bias: bool = True
    least_product: int | None = 64
    sums_norms: bool = True
    fuses_here: bool = True
    refusal: str | None = None


# TensorRT fuses layers with what follows them by itself: only what layers read is quantised.
_TENSORRT_KERNELS = {
    "AveragePool": Kernel(Role.LINK, float_output=True),
    "Conv": Kernel(Role.LAYER, (0, 1), bias=2, float_output=True, refusal=KERNELS["Conv"].refusal),
    "Gemm": Kernel(Role.LAYER, (0, 1), bias=2, float_output=True, refusal=KERNELS["Gemm"].refusal),
    "MatMul": Kernel(Role.LAYER, (0, 1), float_output=True, refusal=KERNELS["MatMul"].refusal),
}

_ALL = (
    Target("amx", "x86 with AMX int8 tiles", ("amx_tile", "amx_int8")),
    Target("avx512_vnni", "x86 with 512-bit int8 dot products", ("avx512_vnni",)),
    Target("avx_vnni", "x86 with 256-bit int8 dot products", ("avx_vnni",)),
    Target(
        "arm_dotprod",
        "Arm with int8 dot products, whose kernels take signed activations",
        ("asimddp",),
        activation=ir.DataType.INT8,
        fuses_here=False,
    ),
    Target(
        "avx512",
        "x86 with AVX-512 without dot products",
        ("avx512f",),
        saturates=True,
        least_product=None,
    ),
    Target(
        "avx2",
        "x86 with AVX2; what it can compute, every CPU can",
        saturates=True,
        least_product=None,
    ),
    Target(
        "tensorrt",
        "TensorRT: signed symmetric activations, biases in float",
        kernels=_TENSORRT_KERNELS,
        absorbed=frozenset(),
        activation=ir.DataType.INT8,
        symmetric=True,
        integer_bias=False,
        least_product=1,
        sums_norms=False,
        fuses_here=False,
    ),
    Target(
        "cuda",
        "ONNX Runtime's CUDA provider",
        kernels={},
        refusal="ONNX Runtime's CUDA provider computes no standard operator in 8 bits, so the "
        "model would be slower; take target tensorrt, or float16",
    ),
)
TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}
ALIASES: Mapping[str, str] = {"vnni": "avx512_vnni"}
TARGET_NAMES = (*TARGETS, *ALIASES)
_FALLBACK = TARGETS["avx2"]


def target_named(name: str) -> Target:
    """The target of that name; raises InputError, naming all, where there is none."""
    target = TARGETS.get(ALIASES.get(name, name))
    if target is None:
        raise InputError(f"unknown target {name!r}; take one of {', '.join(TARGET_NAMES)}.")
    return target


def target_of_processor(instruction_sets: Collection[str]) -> Target:
    """The first target whose instruction sets the processor has, else what suits every CPU."""
    return next(
        (
            target
            for target in _ALL
            if target.instruction_sets and set(target.instruction_sets) <= set(instruction_sets)
        ),
        _FALLBACK,
    )

"""The block of the kernels follows the CPU."""

from __future__ import annotations

import pytest

from trimton.transforms.graph.kernel_block import block_of, kernel_block


@pytest.mark.parametrize(
    ("cpu_info", "block"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx2 avx512f avx512bw\n", 16),
        ("processor\t: 0\nflags\t\t: fpu sse avx2\n", 8),
        ("processor\t: 0\nflags\t\t: fpu avx512fp16_of_another_name\n", 8),
        ("processor\t: 0\nFeatures\t: asimd\n", 8),
        ("", 8),
    ],
)
def test_the_block_is_16_with_avx_512_only(cpu_info: str, block: int) -> None:
    assert block_of(cpu_info) == block


def test_this_machine_has_one_of_the_blocks() -> None:
    assert kernel_block() in (8, 16)

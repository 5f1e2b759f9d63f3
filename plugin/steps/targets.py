"""Which kernels a step quantises for."""

from __future__ import annotations

from collections.abc import Collection

AUTO = "auto"


def resolve_target(name: str, instruction_sets: Collection[str]) -> str:
    """The target that ``name`` means on a machine with these instruction sets."""
    from trimton.transforms.quantize.targets import target_of_processor

    return target_of_processor(instruction_sets).name if name == AUTO else name

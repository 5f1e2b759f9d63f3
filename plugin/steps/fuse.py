"""The step ``fuse``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trimton.plugin.steps.step import Step, TransformContext

if TYPE_CHECKING:
    import onnx_ir as ir

    from trimton.plugin.steps.step import Transformed


class FuseStep(Step):
    """Lossless fusion; see `trimton fuse`."""

    step: Literal["fuse"] = "fuse"

    def apply(self, model: ir.Model, context: TransformContext) -> Transformed:
        from trimton.transforms.fuse import fuse

        probes = None if context.calibration is None else context.calibration.first(8).inputs
        return fuse(model, probes=probes)

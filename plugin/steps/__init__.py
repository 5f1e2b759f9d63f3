"""The transforms that a recipe may ask for, one file each."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from trimton.plugin.steps.cast import CastStep
from trimton.plugin.steps.distill import DistillStep
from trimton.plugin.steps.factorise import FactoriseStep
from trimton.plugin.steps.fuse import FuseStep
from trimton.plugin.steps.prune import PruneStep
from trimton.plugin.steps.quantize import QuantizeStep
from trimton.plugin.steps.quantize_dynamic import QuantizeDynamicStep
from trimton.plugin.steps.quantize_weights import QuantizeWeightsStep
from trimton.plugin.steps.reconstruct import ReconstructStep
from trimton.plugin.steps.sparsify import SparsifyStep

AnyStep = (
    FuseStep
    | PruneStep
    | FactoriseStep
    | SparsifyStep
    | DistillStep
    | QuantizeStep
    | ReconstructStep
    | QuantizeWeightsStep
    | QuantizeDynamicStep
    | CastStep
)
STEPS = tuple(kind.model_fields["step"].default for kind in get_args(AnyStep))
TransformStep = Annotated[AnyStep, Field(discriminator="step")]

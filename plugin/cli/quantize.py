"""``trimton quantize``: static int8 quantisation of one ONNX file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trimton.plugin.cli.output import JsonOption
from trimton.plugin.cli.transform_options import (
    ExcludeOption,
    RequiredDataOption,
    ResultArgument,
    SourceArgument,
)


class Method(StrEnum):
    """How activation ranges are chosen."""

    AUTO = "auto"
    MINMAX = "minmax"
    MOVING_AVERAGE = "moving_average"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


def command(
    source: SourceArgument,
    result: ResultArgument,
    data: RequiredDataOption,
    method: Annotated[
        Method,
        typer.Option(
            help="How activation ranges are chosen from the samples; auto takes the method that "
            "leaves the outputs closest."
        ),
    ] = Method.AUTO,
    percentile: Annotated[
        float, typer.Option(min=50, max=100, help="For --method percentile.")
    ] = 99.99,
    stride: Annotated[
        int,
        typer.Option(
            min=1, help="Count every so-manieth value of large tensors; 1 counts all, slowly."
        ),
    ] = 17,
    per_channel: Annotated[
        bool, typer.Option(help="One weight scale for each output channel.")
    ] = True,
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Kernels to quantise for: amx, avx512_vnni, avx_vnni, arm_dotprod, avx512, avx2, "
            "tensorrt, or auto, which takes those of this machine.",
        ),
    ] = "auto",
    equalise: Annotated[
        bool,
        typer.Option(
            help="Move scales of channels between layers first; exact in float. Helps some models "
            "and harms others."
        ),
    ] = False,
    smooth: Annotated[
        bool,
        typer.Option(help="Move outliers of activations into weights first; exact in float."),
    ] = True,
    compensate: Annotated[
        bool,
        typer.Option(
            help="Round weights of matrix products so that they make up for each other's errors."
        ),
    ] = True,
    correct_bias: Annotated[
        bool,
        typer.Option(help="Take the mean error that rounded weights make out of the biases."),
    ] = True,
    refine: Annotated[
        bool,
        typer.Option(
            help="Round weights so that they make up for each other's errors, and correct biases, "
            "layer by layer on the samples; takes minutes where there are many layers."
        ),
    ] = False,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Leave the most harmful layers in float until so many samples keep their label.",
        ),
    ] = None,
    min_sqnr_db: Annotated[
        float | None,
        typer.Option(metavar="DB", help="The same, by the outputs' ratio of signal to noise."),
    ] = None,
    max_float_macs: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Leave no more than this share of the MACs in float for it."
        ),
    ] = 1.0,
    exclude: ExcludeOption = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write a page that shows every tensor's range and noise, and the harm of each "
            "layer where it was measured.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Quantise a model to int8 (QDQ) with ranges from calibration samples.

    Example: trimton quantize model.onnx model_int8.onnx --data calibration.npz
    """
    from trimton.core.files import write_text
    from trimton.perf.hardware import describe
    from trimton.perf.report.explanation import render_explanation
    from trimton.plugin.cli.transform import run_with_data
    from trimton.plugin.steps.targets import resolve_target
    from trimton.transforms.quantize import QuantizeSettings, quantize
    from trimton.transforms.report import TransformReport

    settings = QuantizeSettings(
        calibration_method=method.value,
        percentile=percentile,
        stride=stride,
        per_channel=per_channel,
        target=resolve_target(target, describe().instruction_sets),
        exclude=tuple(exclude or ()),
        equalise=equalise,
        smooth=smooth,
        compensate=compensate,
        correct_bias=correct_bias,
        refine=refine,
        min_agreement=min_agreement,
        min_sqnr_db=min_sqnr_db,
        max_float_macs=max_float_macs,
    )

    def write_explanation(report: TransformReport) -> None:
        if explain is not None:
            write_text(explain, render_explanation(source.stem, report.to_json()))

    run_with_data(
        source,
        result,
        lambda model, inputs: quantize(model, inputs, settings),
        data=data,
        doing="calibrating and quantising",
        json=json,
        before_saving=write_explanation,
    )

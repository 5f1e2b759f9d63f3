"""Photographs for models that were trained on ImageNet, from Debian's packages; unlabelled.

There is no labelled ImageNet in any package, so what a model says of these images is compared
with what the float model says. Each shows an object of Tux Paint's stamps (photographs of
animals, food, tools, vehicles and others, cut out) at some size and place before a crop of one
of 30-odd photographs (landscapes, plants, animals, scikit-image's examples). Brightness and
contrast vary as between cameras. Calibration and test share no object and no photograph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.packages import cached, debian_files, imaging

Array = npt.NDArray[Any]

# Photographs, and objects to place before them.
_Source = tuple[Sequence[Any], Sequence[Path]]

SIZE = 224
CALIBRATION, TEST = 128, 1024
_SKIMAGE = "usr/lib/python3/dist-packages/skimage/data"
# Debian package -> its photographs.
_SCENES = {
    "mate-backgrounds": ("usr/share/backgrounds/mate/nature/*.jpg",),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds/[FK]*_by_*.jpg",),
    "python3-skimage": tuple(
        f"{_SKIMAGE}/{name}.*"
        for name in (
            *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel"),
            *("motorcycle_left", "motorcycle_right", "retina", "rocket"),
        )
    ),
}
_OBJECTS = ("animals", "food", "household", "plants", "vehicles", "clothes", "hobbies", "sports")


def photographs() -> dict[str, Array]:
    """``calibration`` and ``test``: uint8 [count, 3, 224, 224], RGB."""
    return cached("photographs-1", _render)


def more_photographs(count: int) -> Array:
    """``count`` more images of what calibration shows, for fits of many weights: uint8."""

    def render() -> Mapping[str, Array]:
        rng = np.random.default_rng(0)
        calibration, _ = _shares(rng)
        return {"images": _images(*calibration, count, np.random.default_rng(1))}

    return cached(f"more_photographs-1-{count}", render)["images"]


def normalised(pixels: Array) -> Array:
    """What EfficientNet-Lite reads: float32, ``(pixel - 127) / 128``."""
    return (pixels.astype(np.float32) - 127) / 128


def _render() -> Mapping[str, Array]:
    rng = np.random.default_rng(0)
    calibration, test = _shares(rng)
    return {
        "calibration": _images(*calibration, CALIBRATION, rng),
        "test": _images(*test, TEST, rng),
    }


def _shares(rng: np.random.Generator) -> tuple[_Source, _Source]:
    """The photographs and objects of calibration, a third of all, and those of the test."""
    scenes, objects = _scenes(), _objects()
    rng.shuffle(scenes)
    rng.shuffle(objects)
    few, some = len(scenes) // 3, len(objects) // 3
    return (scenes[:few], objects[:some]), (scenes[few:], objects[some:])


def _scenes() -> list[Any]:
    """The photographs as Pillow images, 1,600 pixels at most."""
    scenes = []
    for package, globs in _SCENES.items():
        folder = debian_files(package)
        for path in sorted(path for glob in globs for path in folder.glob(glob)):
            image = imaging("PIL.Image").open(path).convert("RGB")
            image.thumbnail((1600, 1600))
            scenes.append(image)
    return scenes


def _objects() -> list[Path]:
    stamps = debian_files("tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    paths = [path for folder in _OBJECTS for path in sorted((stamps / folder).rglob("*.png"))]
    return [path for path in paths if "cartoon" not in path.parts]


def _images(
    scenes: Sequence[Any], objects: Sequence[Path], count: int, rng: np.random.Generator
) -> Array:
    return np.stack([_image(index, scenes, objects, rng) for index in range(count)])


def _image(
    index: int, scenes: Sequence[Any], objects: Sequence[Path], rng: np.random.Generator
) -> Array:
    scene = scenes[index % len(scenes)]
    side = int(rng.uniform(0.2, 0.6) * min(scene.size))
    left, top = (int(rng.integers(0, length - side + 1)) for length in scene.size)
    box = (left, top, left + side, top + side)
    image = scene.resize((SIZE, SIZE), imaging("PIL.Image").Resampling.BICUBIC, box=box)
    image = _with_object(image, objects[index % len(objects)], rng)
    pixels = np.asarray(image, np.float32)
    pixels = (pixels - 127) * rng.uniform(0.8, 1.2) + 127 + rng.uniform(-15, 15)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    whole: Array = np.rint(pixels.clip(0, 255)).astype(np.uint8)
    return whole.transpose(2, 0, 1)


def _with_object(image: Any, path: Path, rng: np.random.Generator) -> Any:
    stamp = imaging("PIL.Image").open(path).convert("RGBA")
    scale = rng.uniform(0.85, 1) * SIZE / max(stamp.size)
    stamp = stamp.resize([max(1, int(length * scale)) for length in stamp.size])
    place = [int(rng.integers(0, SIZE - length + 1)) for length in stamp.size]
    image.paste(stamp, place, stamp)
    return image

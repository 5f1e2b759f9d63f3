"""Sample files are read, unpacked and checked against the model's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimton.core.errors import InputError
from trimton.plugin.samples import check_samples, first_available, load_samples
from trimton.transforms.graph.inputs import InputSpec

IMAGE = InputSpec("image", np.dtype(np.float32), (None, 3, 4))
TOKENS = InputSpec("tokens", np.dtype(np.int64), (None, None))


def arrays(**changes: Any) -> dict[str, Any]:
    return {"image": np.zeros((5, 3, 4), np.float32), **changes}


def test_packed_integers_become_floats_as_the_cf_conventions_say(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
    packing = {"image.scale_factor": np.float32(0.5), "image.add_offset": np.float32(-1)}
    np.savez(tmp_path / "a.npz", image=pixels, labels=np.arange(5), **packing)

    samples = load_samples(tmp_path / "a.npz", [IMAGE])

    assert len(samples) == 5
    assert samples.inputs["image"].dtype == np.float32
    np.testing.assert_array_equal(samples.inputs["image"], pixels * 0.5 - 1)
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64


def test_narrower_types_of_the_same_kind_are_widened() -> None:
    given = {"tokens": np.ones((2, 7), np.int32)}

    assert check_samples("x", given, [TOKENS]).inputs["tokens"].dtype == np.int64


def test_a_free_axis_takes_any_length_and_the_first_samples_can_be_cut_off() -> None:
    samples = check_samples("x", {"tokens": np.ones((9, 30), np.int64)}, [TOKENS])

    assert len(samples.first(4)) == 4


def test_an_optional_input_may_be_missing() -> None:
    optional = InputSpec("w", np.dtype(np.float32), (3,), optional=True)

    assert set(check_samples("x", arrays(), [IMAGE, optional]).inputs) == {"image"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"picture": np.zeros((5, 3, 4), np.float32)}, "has no array 'image'"),
        (arrays(other=np.zeros(5)), "'other' is no input"),
        (arrays(image=np.zeros((5, 3, 5), np.float32)), r"shape \(5, 3, 5\)"),
        (arrays(image=np.zeros((5, 12), np.float32)), r"takes \[N, 3, 4\]"),
        (arrays(image=np.float32(3)), "shape"),
        (arrays(image=np.zeros((5, 3, 4), np.uint8)), "is uint8, but the model takes float32"),
        (arrays(image=np.zeros((0, 3, 4), np.float32)), "holds no samples"),
        (arrays(image=np.full((5, 3, 4), np.nan, np.float32)), "NaN or Inf .first in sample 0"),
        (arrays(labels=np.zeros(4, np.int64)), "labels must be integers"),
        (arrays(labels=np.zeros(5)), "labels must be integers"),
    ],
)
def test_wrong_samples_are_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_samples("data.npz", given, [IMAGE])

    assert str(caught.value).startswith("data.npz: ")


def test_inputs_of_different_lengths_are_refused() -> None:
    given = arrays(tokens=np.ones((4, 2), np.int64))

    with pytest.raises(InputError, match="image has 5, tokens has 4"):
        check_samples("x", given, [IMAGE, TOKENS])


def test_values_that_do_not_fit_the_models_type_are_refused() -> None:
    small = InputSpec("tokens", np.dtype(np.int8), (None,))

    with pytest.raises(InputError, match="do not fit"):
        check_samples("x", {"tokens": np.array([1, 1000])}, [small])


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"])
def test_files_that_are_no_npz_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        load_samples(path, [IMAGE])


def test_a_missing_file_a_folder_and_a_single_array_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")

    for name, words in (("none.npz", "no such file"), ("", "folder"), ("single.npz", "single")):
        with pytest.raises(InputError, match=words):
            load_samples(tmp_path / name, [IMAGE])


def test_a_function_in_a_file_yields_batches(tmp_path: Path) -> None:
    module = tmp_path / "data.py"
    module.write_text(
        "import numpy as np\n"
        "def batches():\n"
        "    for _ in range(3):\n"
        "        yield {'image': np.ones((2, 3, 4), np.float32)}\n"
        "def absent():\n"
        "    raise FileNotFoundError('/data')\n"
    )

    assert len(load_samples(f"{module}:batches", [IMAGE])) == 6
    assert len(first_available([f"{module}:absent", f"{module}:batches"], [IMAGE])) == 6
    with pytest.raises(InputError, match="its data is not there"):
        load_samples(f"{module}:absent", [IMAGE])


@pytest.mark.parametrize("source", ["no.such:thing", "os:nothing", "none.py:f", "os:sep"])
def test_what_cannot_be_called_is_refused(source: str) -> None:
    with pytest.raises(InputError, match=r"cannot be imported|is no function"):
        load_samples(source, [IMAGE])

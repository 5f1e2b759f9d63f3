"""perf_analyzer's input data is read as perf_analyzer reads it."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from trimton.core.errors import InputError
from trimton.perf.engines.input_data import write_input_data
from trimton.perf.formats.input_data import read_input_data, read_validation_data
from trimton.perf.targets.tensors import NUMPY_TYPES, TensorSpec

PAIR = [TensorSpec("x", "FP32", (None, 2)), TensorSpec("n", "INT64", (None, 1))]


@pytest.fixture
def write(tmp_path):
    def put(data):
        path = tmp_path / "data.json"
        path.write_text(json.dumps({"data": data}))
        return path

    return put


def step(a: float, b: float, n: int):
    return {"x": [a, b], "n": {"content": [n], "shape": [1]}}


def test_each_step_is_one_request_of_one_sample(write):
    feeds = read_input_data(write([step(1, 2, 3), step(4, 5, 6)]), PAIR, batch=1)
    assert [feed["x"].tolist() for feed in feeds] == [[[1, 2]], [[4, 5]]]
    assert [feed["n"].tolist() for feed in feeds] == [[[3]], [[6]]]
    assert feeds[0]["x"].dtype == np.float32


def test_streams_are_read_one_after_the_other(write):
    path = write([[step(1, 2, 3), step(4, 5, 6)], [step(7, 8, 9)]])
    assert [feed["n"].item() for feed in read_input_data(path, PAIR, batch=1)] == [3, 6, 9]


def test_a_batch_takes_consecutive_steps_and_wraps(write):
    path = write([step(i, i, i) for i in range(5)])
    assert [f["n"].ravel().tolist() for f in read_input_data(path, PAIR, batch=2)] == [
        [0, 1],
        [2, 3],
    ]
    assert [f["n"].ravel().tolist() for f in read_input_data(path, PAIR, batch=7)] == [
        [0, 1, 2, 3, 4, 0, 1]
    ]


def test_packed_bytes_and_nested_lists_are_values_too(write):
    packed = base64.b64encode(np.array([1.5, -2], "<f4").tobytes()).decode()
    path = write([{"x": {"b64": packed}, "n": [[7]]}])
    [feed] = read_input_data(path, PAIR, batch=1)
    assert feed["x"].tolist() == [[1.5, -2]]
    assert feed["n"].tolist() == [[7]]


def test_free_dimensions_come_from_the_file_or_the_option(write):
    specs = [TensorSpec("t", "INT32", (None, None))]
    path = write([{"t": {"content": [1, 2, 3], "shape": [3]}}, {"t": [4, 5]}])
    feeds = read_input_data(path, specs, batch=1, shapes={"t": (2,)})
    assert [feed["t"].shape for feed in feeds] == [(1, 3), (1, 2)]
    with pytest.raises(InputError, match="differ in inputs or shapes"):
        read_input_data(path, specs, batch=2, shapes={"t": (2,)})
    with pytest.raises(InputError, match=r"entry 2 of data, t: needs a shape .* --shape t:DIMS"):
        read_input_data(path, specs, batch=1)


def test_a_model_without_a_batch_axis_takes_a_step_as_it_is(write):
    specs = [TensorSpec("x", "FP32", (2, 2))]
    [feed] = read_input_data(write([{"x": [1, 2, 3, 4]}]), specs, batch=2)
    assert feed["x"].tolist() == [[1, 2], [3, 4]]


def test_what_is_written_for_perf_analyzer_reads_back_equal(tmp_path):
    generator = np.random.default_rng(0)
    names = [name for name in NUMPY_TYPES if name != "BYTES"]
    specs = [TensorSpec(name, name, (None, 3)) for name in names]
    specs.append(TensorSpec("s", "BYTES", (None, 1)))
    feeds = [
        {
            **{spec.name: generator.integers(0, 2, (1, 3)).astype(spec.dtype) for spec in specs},
            "s": np.array([["é✓"]], object),
        }
        for _ in range(3)
    ]
    write_input_data(tmp_path / "d.json", feeds, specs, batches=True)
    for feed, again in zip(
        feeds, read_input_data(tmp_path / "d.json", specs, batch=1), strict=True
    ):
        for name, values in feed.items():
            assert np.array_equal(values, again[name])


def test_a_folder_holds_raw_values_and_lines_of_text(tmp_path):
    specs = [TensorSpec("x", "FP32", (None, 2)), TensorSpec("s", "BYTES", (None, 2))]
    (tmp_path / "x").write_bytes(np.array([1, 2], "<f4").tobytes())
    (tmp_path / "s").write_text("one\ntwo\n")
    [feed] = read_input_data(tmp_path, specs, batch=3)
    assert feed["x"].tolist() == [[1, 2]] * 3
    assert feed["s"].tolist() == [["one", "two"]] * 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], 'has no list "data"'),
        ({"x": 1}, 'has no list "data"'),
        ([3], "entry 1 of data: is no object"),
        ([step(1, 2, 3), {"x": [1, 2]}], "entry 2 of data: gives no 'n'"),
        ([[step(1, 2, 3), {}]], "stream 1, step 2: gives no 'x'"),
        ([step(1, 2, 3) | {"z": [1]}], "no input 'z'"),
        ([step(1, 2, 3) | {"x": [1]}], r"entry 1 of data, x: has 1 values, but the shape \[1, 2\]"),
        ([step(1, 2, 3) | {"x": ["a", "b"]}], "are no FP32"),
        ([step(1, 2, 3) | {"n": [1.5]}], "are no INT64"),
        ([step(1, 2, 3) | {"n": [None]}], "are no INT64"),
        ([step(1, 2, 3) | {"x": {"b64": "!"}}], "b64 is not base64"),
        ([step(1, 2, 3) | {"x": {"b64": "AAAA"}}], "3 bytes do not fit FP32"),
        ([step(1, 2, 3) | {"x": {"shape": [2]}}], "give a list of values"),
        ([step(1, 2, 3) | {"x": {"content": [1, 2], "shape": [3]}}], "needs a shape that fits"),
        ([step(1, 2, 3) | {"x": {"content": [1, 2], "shape": "2"}}], "needs a shape that fits"),
    ],
)
def test_wrong_data_is_one_sentence_with_its_place(write, data, message):
    with pytest.raises(InputError, match=message):
        read_input_data(write(data), PAIR, batch=1)


def test_a_file_that_is_not_there_or_no_json_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_input_data(tmp_path / "missing.json", PAIR, batch=1)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        read_input_data(tmp_path / "bad.json", PAIR, batch=1)
    (tmp_path / "x").write_bytes(b"123")
    with pytest.raises(InputError, match="3 bytes do not fit"):
        read_input_data(tmp_path, PAIR, batch=1)


OUTPUTS = [TensorSpec("y", "FP32", (None, 2)), TensorSpec("z", "INT64", (None, None))]


@pytest.fixture
def write_both(tmp_path):
    def put(validation_data, steps: int = 3):
        path = tmp_path / "data.json"
        data = [step(i, i, i) for i in range(steps)]
        path.write_text(json.dumps({"data": data, "validation_data": validation_data}))
        return path

    return put


def test_validation_data_stands_beside_the_requests(write_both):
    path = write_both([[{"y": [i, i + 0.5]} for i in range(3)]])
    single = read_validation_data(path, OUTPUTS, batch=1)
    assert [expected["y"].tolist() for expected in single] == [[[i, i + 0.5]] for i in range(3)]
    assert single[0].keys() == {"y"}
    [pair] = read_validation_data(path, OUTPUTS, batch=2)
    assert pair["y"].tolist() == [[0, 0.5], [1, 1.5]]
    assert len(read_input_data(path, PAIR, batch=2)) == 1


def test_a_file_or_a_folder_may_expect_nothing(write, tmp_path):
    assert read_validation_data(write([step(1, 2, 3)]), OUTPUTS, batch=1) is None
    assert read_validation_data(tmp_path, OUTPUTS, batch=1) is None


@pytest.mark.parametrize(
    ("validation_data", "message"),
    [
        ([{"y": [1, 2]}], "validation_data has 1 entries, but data has 3"),
        ({}, 'has no list "validation_data"'),
        ([{"y": [1, 2]}, {"q": [1]}], "entry 2 of validation_data: the model has no output 'q'"),
        ([{"y": [1]}], r"entry 1 of validation_data, y: has 1 values"),
        ([{"z": [1]}], r"entry 1 of validation_data, z: needs a shape .*; give it in the file\.$"),
    ],
)
def test_validation_data_that_does_not_fit_is_one_sentence(write_both, validation_data, message):
    with pytest.raises(InputError, match=message):
        read_validation_data(write_both(validation_data), OUTPUTS, batch=1)

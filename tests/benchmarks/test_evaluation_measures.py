"""What the evaluations of real models measure, on data small enough to check by hand."""

import pickle
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from evaluation.checkpoint import read_checkpoint
from evaluation.evaluation import accuracy, agreement, answers, one_by_one, predictor
from evaluation.files import features_of
from evaluation.sentences import head, told
from evaluation.speech import CONTEXT, FRAME, area_under_curve, frames
from evaluation.text_lines import decoded
from evaluation.wordpiece import encode
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

TOKENS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "play": 4, "##ing": 5, "cafe": 6, ".": 7}


def test_words_become_their_longest_pieces_without_case_and_accents():
    ids, mask = encode(["Playing Café."], 8, TOKENS)
    assert ids.tolist() == [[2, 4, 5, 6, 7, 3, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]


def test_a_word_of_unknown_pieces_is_one_unknown_token():
    ids, _ = encode(["playx"], 4, TOKENS)
    assert ids.tolist() == [[2, 1, 3, 0]]


def test_a_long_sentence_is_cut_before_its_end_token():
    ids, mask = encode(["play play play play"], 4, TOKENS)
    assert ids.tolist() == [[2, 4, 4, 3]]
    assert mask.all()


def test_decoding_drops_repeats_but_keeps_what_a_blank_parts():
    steps = np.eye(4)[[[1, 1, 0, 1, 2, 2, 3, 0]]]
    assert decoded(steps, ("", "a", "b", " ")) == ["aab"]


def test_file_features_pad_the_middle_and_drop_white_space_outside():
    features = features_of(b"\n ab \n")
    assert features[:4].tolist() == [97, 98, 32, 10]
    assert features[-4:].tolist() == [10, 32, 97, 98]
    assert (features[4:-4] == 256).all()


def test_file_features_are_the_first_and_the_last_kibibyte():
    features = features_of(bytes([1]) * 5000 + bytes([2]) * 5000)
    assert (features[:1024] == 1).all()
    assert (features[1024:] == 2).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_area_under_curve_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]):
    scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
    if labels.all() or not labels.any():
        return
    above = scores[labels][:, None] - scores[~labels][None, :]
    expected = ((above > 0) + 0.5 * (above == 0)).mean()
    assert area_under_curve(scores, labels) == pytest.approx(expected)


def test_frames_begin_with_the_end_of_the_frame_before():
    stream = np.arange(3 * FRAME, dtype=np.float32)[None]
    cut = frames(stream)
    assert cut.shape == (3, 1, FRAME + CONTEXT)
    assert (cut[0, 0, :CONTEXT] == 0).all()
    assert (cut[2, 0, :CONTEXT] == stream[0, 2 * FRAME - CONTEXT : 2 * FRAME]).all()


def test_a_head_tells_labels_that_embeddings_separate():
    labels = np.arange(60) % 3
    embeddings = np.eye(8)[labels] + 0.1 * np.random.default_rng(0).standard_normal((60, 8))
    assert (told(embeddings, head(embeddings[:30], labels[:30])) == labels).all()


def test_quality_counts_samples_whose_largest_output_is_right(tmp_path):
    path = tmp_path / "identity.onnx"
    shape = ["N", 2]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    inputs = {"x": np.array([[0, 1], [1, 0], [2, 3]] * 20, np.float32)}
    predict = predictor(path)
    assert accuracy(inputs, "y", np.array([1, 0, 0] * 20))(predict) == pytest.approx(2 / 3)
    assert agreement(path, inputs, "y")(predict) == 1
    swapped = agreement(path, inputs, "y")(lambda feed: {"y": feed["x"][:, ::-1]})
    assert swapped == 0
    unclear = {"x": np.array([[0, 5], [0, 0.1]], np.float32)}

    def far(feed):
        return {"y": feed["x"] + np.float32([1, 0])}

    assert agreement(path, unclear, "y")(far) == 0.5
    assert agreement(path, unclear, "y", least_probability=0.9)(far) == 1
    assert (answers(predict, inputs, "y") == inputs["x"]).all()
    assert [feed["x"].shape for feed in one_by_one(inputs)[:2]] == [(1, 2), (1, 2)]


class _Storage:
    """Stands where PyTorch has the numbers of tensors: a pickle names it, and holds none."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        if not isinstance(obj, _Storage):
            return None
        return ("storage", sys.modules["torch"].FloatStorage, "key", "cpu", 6, None)


class _Tensor:
    def __reduce__(self) -> tuple[object, ...]:
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        offset, shape, strides = 1, (2, 2), (1, 2)
        return rebuild, (_Storage(), offset, shape, strides, False, None)


@pytest.fixture
def torch_names(monkeypatch):
    """The two names of PyTorch that a checkpoint holds."""

    def rebuild() -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    storage = type("FloatStorage", (), {"__module__": "torch"})
    names = {"torch": ("FloatStorage", storage), "torch._utils": ("_rebuild_tensor_v2", rebuild)}
    for module_name, (name, thing) in names.items():
        module = ModuleType(module_name)
        setattr(module, name, thing)
        monkeypatch.setitem(sys.modules, module_name, module)


def _checkpoint(path, state, numbers=()) -> None:
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {}, state, ["key"]):
            _Pickler(file, 2).dump(part)
        file.write(struct.pack("<q", len(numbers)) + np.array(numbers, "<f4").tobytes())


def test_a_checkpoint_gives_tensors_by_offset_and_stride(tmp_path, torch_names):
    path = tmp_path / "small.pth"
    _checkpoint(path, {"weight": _Tensor()}, range(6))
    assert read_checkpoint(path)["weight"].tolist() == [[1, 3], [2, 4]]


def test_a_checkpoint_with_any_other_object_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    _checkpoint(path, {"weight": Path("evil")})
    with pytest.raises(pickle.UnpicklingError, match=r"pathlib\.\w+ has no place"):
        read_checkpoint(path)


def test_a_file_without_the_magic_number_is_no_checkpoint(tmp_path):
    path = tmp_path / "other.pth"
    path.write_bytes(pickle.dumps(7))
    with pytest.raises(ValueError, match="no PyTorch checkpoint"):
        read_checkpoint(path)

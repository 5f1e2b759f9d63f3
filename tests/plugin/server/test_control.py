"""What the server says about a failure, without the layers around it."""

from __future__ import annotations

import pytest

from trimton.plugin.server.control import one_sentence


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (
            "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: "
            "TritonModelException: no file x\n\nAt:\n  /b/model.py(3): initialize\n;",
            "no file x.",
        ),
        ("Invalid argument: max_batch_size is wrong", "max_batch_size is wrong."),
        ("Internal: KeyError: 'name'\n\nAt:\n  /b/model.py(3): initialize", "KeyError: 'name'."),
        ("two\nlines of\n   text.", "two lines of text."),
    ],
)
def test_reason_is_one_sentence(reason: str, sentence: str) -> None:
    assert one_sentence(reason) == sentence

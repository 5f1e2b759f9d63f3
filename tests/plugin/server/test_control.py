"""What the server says about a failure, without the layers around it."""

from __future__ import annotations

import pytest

from trimton.plugin.server.control import one_sentence

STATE = "version 1 is at UNAVAILABLE state: "
PLACE = "\n\nAt:\n  /b/model.py(3): initialize\n"


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (
            f"load failed for model 'm': {STATE}Internal: TritonModelException: no x{PLACE};",
            "no x.",
        ),
        ("Invalid argument: max_batch_size is wrong", "max_batch_size is wrong."),
        (f"Internal: KeyError: 'name'{PLACE}", "KeyError: 'name'."),
        ("two\nlines of\n   text.", "two lines of text."),
    ],
)
def test_reason_is_one_sentence(reason: str, sentence: str) -> None:
    assert one_sentence(reason) == sentence

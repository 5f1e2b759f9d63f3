"""Traces come back to the nanosecond, and a bad line is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimton.core.errors import InputError
from trimton.perf.formats.traces import read_intervals, read_trace, write_trace


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=50))
def test_a_written_trace_reads_back_exactly(tmp_path_factory, instants):
    path = tmp_path_factory.mktemp("trace") / "t.txt"
    write_trace(path, np.array(instants, np.int64))
    expected = np.sort(instants) - min(instants)
    assert np.array_equal(read_trace(path).offsets_ns, expected)


def test_seconds_since_1970_keep_their_nanoseconds(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("# recorded\n1700000000.000000001\n\n1700000000.000000002\n1700000001\n")
    assert read_trace(path).offsets_ns.tolist() == [0, 1, 999_999_999]


def test_intervals_are_microseconds_between_requests(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("1000\n500\n0.5\n")
    assert read_intervals(path).offsets_ns.tolist() == [0, 1_000_000, 1_500_000, 1_500_500]


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_trace, "1\nx\n", "line 2: 'x' is no number; give seconds"),
        (read_trace, "1\n1e-3\n", "line 2: '1e-3' is no number"),
        (read_trace, "# nothing\n", "holds no numbers"),
        (read_trace, "2\n1\n", "arrival 2 comes before the one above it"),
        (read_intervals, "5\n-1\n", "interval 2 is negative"),
        (read_intervals, "5\n1.-1\n", "line 2: '1.-1' is no number; give microseconds"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, read, text, message):
    path = tmp_path / "t.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_missing_or_binary_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_trace(tmp_path / "binary")

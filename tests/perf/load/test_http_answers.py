"""Answers over HTTP are counted the same however they come, known head or not."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trimton.perf.load.http_connection import HttpConnection


class Transport:
    """Stands for a socket."""

    def __init__(self) -> None:
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True


def answer(status: int, body: bytes, *, is_chunked: bool = False) -> bytes:
    reason = {200: "OK", 400: "Bad Request"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\n"
    if is_chunked:
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def bodies() -> st.SearchStrategy[bytes]:
    """Of few sizes, so that the next answer is often like the last; some look like a head."""
    end = b"\r\n\r\n"
    return st.sampled_from([b"a" * 20, b"b" * 20, end * 5, b"c" * 7, b"Content-Length: 9" + end])


@given(st.lists(st.tuples(bodies(), st.booleans(), st.integers(1, 80)), min_size=1, max_size=25))
@settings(max_examples=150, deadline=None)
def test_every_answer_is_reported_once_and_whole(sent: list[tuple[bytes, bool, int]]) -> None:
    answered: list[bytes] = []
    connection = HttpConnection(
        lambda c, at_ns: answered.append(connection.answer),
        lambda c, *why: answered.append(repr(why).encode()),
    )
    connection.connection_made(Transport())  # type: ignore[arg-type]
    expected = []
    for body, is_chunked, cut in sent:
        whole = answer(200, body, is_chunked=is_chunked)
        connection.send(b"request")
        connection.data_received(whole[:cut])
        if whole[cut:]:
            assert len(answered) == len(expected)
            connection.data_received(whole[cut:])
        expected.append(whole)
        assert answered == expected
        assert not connection.in_flight


def ended(*answers: bytes) -> tuple[list[Any], HttpConnection]:
    outcomes: list[Any] = []
    connection = HttpConnection(
        lambda c, at_ns: outcomes.append("ok"), lambda c, *why: outcomes.append(why)
    )
    connection.connection_made(Transport())  # type: ignore[arg-type]
    for data in answers:
        if connection.reusable:
            connection.send(b"request")
        connection.data_received(data)
    return outcomes, connection


def test_a_failure_after_answers_alike_is_a_failure():
    good = answer(200, b"a" * 20)
    bad = answer(400, json.dumps({"error": "no"}).encode())
    outcomes, connection = ended(good, good, bad, good)
    assert outcomes == ["ok", "ok", ("HTTP 400", "no"), "ok"]
    assert connection.reusable


def test_an_answer_alike_that_nobody_asked_for_ends_the_connection():
    good = answer(200, b"a" * 20)
    outcomes, connection = ended(good, good, good + good)
    assert outcomes[:2] == ["ok", "ok"]
    assert outcomes[2][0] == "malformed response"
    assert not connection.reusable

"""What an HTTP answer says, for the few whose content matters: errors, and outputs to check."""

from __future__ import annotations

import json

import httptools

from trimton.perf.targets.answers import outputs_of_body
from trimton.perf.targets.tensors import Array

HEAD_LENGTH = b"inference-header-content-length"


class HttpAnswer:
    """One whole answer, taken apart."""

    def __init__(self, message: bytes) -> None:
        self._body: list[bytes] = []
        self.head_length: int | None = None
        httptools.HttpResponseParser(self).feed_data(message)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name.lower() == HEAD_LENGTH:
            self.head_length = int(value)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    @property
    def body(self) -> bytes:
        """The content without its framing."""
        return b"".join(self._body)


def outputs_of_answer(message: bytes) -> dict[str, Array]:
    """The outputs in a whole answer; InfrastructureError where it holds no binary tensors."""
    answer = HttpAnswer(message)
    return outputs_of_body(answer.body, answer.head_length)


def error_text(message: bytes) -> str:
    """What the server says in an error answer (KServe: ``{"error": "..."}``)."""
    text = HttpAnswer(message).body.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return text.strip()
    if isinstance(answer, dict) and "error" in answer:
        return str(answer["error"])
    return text.strip()

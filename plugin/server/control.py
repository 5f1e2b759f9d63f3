"""The server's control plane over HTTP (KServe v2 and Triton's repository extension)."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any
from urllib.parse import quote

from trimton.core.errors import InfrastructureError, InputError

READY = "READY"


class ControlClient:
    """A few blocking calls to one server; ``address`` is ``host:port`` without a scheme.

    Loopback must not go through a proxy of the environment, so the calls use plain sockets.
    """

    def __init__(self, address: str, timeout_s: float = 60.0) -> None:
        self._address = address
        self._timeout_s = timeout_s

    def is_live(self) -> bool:
        """Whether the server answers; it does so once the models of its start have been tried."""
        try:
            return self._request("GET", "/v2/health/live")[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def version(self) -> str:
        """The server's version as it tells it."""
        return str(self._call("GET", "/v2")["version"])

    def model_config(self, name: str) -> dict[str, Any]:
        """The resolved configuration of a loaded model, completed by the server."""
        config: dict[str, Any] = self._call("GET", f"/v2/models/{quote(name, '')}/config")
        return config

    def index(self) -> list[dict[str, str]]:
        """All models of the repository: ``name``, and where tried ``version, state, reason``."""
        models: list[dict[str, str]] = self._call("POST", "/v2/repository/index", {})
        return models

    def load_errors(self) -> dict[str, str]:
        """For each model that failed to load: why, in one sentence."""
        return {
            model["name"]: one_sentence(model["reason"])
            for model in self.index()
            if model.get("state", READY) != READY and model.get("reason", "unloaded") != "unloaded"
        }

    def load(self, name: str) -> None:
        """Load or reload a model (control mode explicit).

        Raises InputError with the reason in one sentence.
        """
        self._change(name, "load")

    def unload(self, name: str) -> None:
        """Ask for a model to be unloaded (control mode explicit); returns before it is done."""
        self._change(name, "unload")

    def _change(self, name: str, verb: str) -> None:
        status, body = self._exchange("POST", f"/v2/repository/models/{quote(name, '')}/{verb}", {})
        if status != http.client.OK:
            raise InputError(f"model {name!r} cannot be {verb}ed: {_error_text(body)}")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        status, text = self._exchange(method, path, body)
        if status != http.client.OK:
            raise InfrastructureError(f"{method} {path}: {_error_text(text)}")
        return json.loads(text)

    def _exchange(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """A request's status and body; InfrastructureError where nothing answers."""
        try:
            return self._request(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise InfrastructureError(
                f"the Triton server at {self._address} does not answer "
                f"({error or type(error).__name__})."
            ) from error

    def _request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=self._timeout_s)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def one_sentence(reason: str) -> str:
    """A load error of the server without the layers of prefixes and tracebacks around it.

    >>> one_sentence("Internal: TritonModelException: no file x.\\n\\nAt:\\n  model.py(3): f")
    'no file x.'
    """
    text = re.split(r"\n+\s*At:\n", reason, maxsplit=1)[0]
    text = re.sub(
        r"^(?:load failed for model|Poll failed for model directory) '[^']*': ", "", text.strip()
    )
    text = re.sub(r"^version \d+ is at \w+ state: ", "", text)
    text = re.sub(r"^(?:\w+ ?\w*: )?TritonModelException: ", "", text)
    text = re.sub(r"^(?:Internal|Invalid argument|Not found|Unavailable|Unsupported): ", "", text)
    text = " ".join(text.split()).rstrip(";")
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _error_text(body: bytes) -> str:
    try:
        return one_sentence(str(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError):
        return one_sentence(body.decode("utf-8", "replace") or "no reason given")

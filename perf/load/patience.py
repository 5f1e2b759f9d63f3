"""How long a load waits for a server before it gives up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """When to give up.

    ``request_timeout_s`` ends one request (counted as "timed out"); ``server_gone_s`` is how
    long no connection can be made before the server counts as gone; ``is_alive`` says whether
    a local server's process still runs, which ends a load at once when it does not.
    """

    request_timeout_s: float = 60.0
    server_gone_s: float = 5.0
    is_alive: Callable[[], bool] = lambda: True

"""TCP ports: is a given one free, and three free ones."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from trimton.core.errors import InputError

_REASONS = {
    errno.EADDRINUSE: "is in use; choose another one",
    errno.EACCES: "may be opened by root only; choose one above 1023",
}


@dataclass(frozen=True)
class Ports:
    """The ports of one server; 0 stands for any free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0


def choose_ports(host: str, wanted: Ports) -> Ports:
    """``wanted`` with every 0 replaced by a free port of ``host``.

    Raises InputError, naming the port or the address, if one cannot be opened or is given twice.
    """
    given = [("http", wanted.http), ("grpc", wanted.grpc), ("metrics", wanted.metrics)]
    chosen: dict[str, int] = {}
    with ExitStack() as held:  # all are held open until the last is chosen, so they differ
        for name, port in sorted(given, key=lambda item: item[1] == 0):
            probe = held.enter_context(socket.socket())
            # As the server does: a port whose last connections are in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            chosen[name] = _bind(probe, host, name, port)
    return Ports(**chosen)


def _bind(probe: socket.socket, host: str, name: str, port: int) -> int:
    try:
        probe.bind((host, port))
        probe.listen(1)  # a port that is bound but not listened on can be bound again
    except OverflowError as error:
        raise InputError(f"{name} port {port} is no port; give 0 to 65535.") from error
    except socket.gaierror as error:
        raise InputError(f"host {host!r} is unknown; give an address of this machine.") from error
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise InputError(
                f"host {host!r} cannot be listened on ({error.strerror}); "
                "give an address of this machine."
            ) from error
        raise InputError(f"{name} port {port} on {host} {reason}.") from error
    return int(probe.getsockname()[1])

"""Keeps a server's processes from outliving the program that started it.

Runs as a program of its own, on the standard library alone:

    supervisor.py OWNER_PID GRACE_S RUN_FOLDER SHM_PREFIX -- COMMAND...

It starts COMMAND, whose output goes to the supervisor's standard error, and prints its
process id. COMMAND ends when it wants to; when the supervisor gets SIGTERM (it is asked to,
and killed after GRACE_S seconds or at a second signal) or SIGINT (killed at once); and when
process OWNER_PID is gone, however it went (killed at once). Then every descendant is killed,
and RUN_FOLDER and the shared memory whose name begins with SHM_PREFIX are removed.

Why so: a stub of the server is a child of the server's, so the owner cannot tie it to its own
life; as a *subreaper* the supervisor inherits every orphan, and "no child left" is exact.
Should the supervisor itself be killed, the kernel kills the server (PR_SET_PDEATHSIG), whose
stubs leave when their parent is gone; what stays on disk is removed by the next start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

SHARED_MEMORY = Path("/dev/shm")
EXIT_OWNER_GONE = 71


def main(arguments: list[str]) -> int:
    """Supervise as the module's text says; the exit code is the command's (128 + n: signal n)."""
    owner_pid, grace_s, run_folder, shm_prefix, _, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup = _wake_up_on(signal.SIGTERM, signal.SIGINT)
    try:
        # The owner's death is seen as such, by any thread's fork and without inherited pipes.
        owner = os.pidfd_open(int(owner_pid))
        if os.getppid() != int(owner_pid):
            return EXIT_OWNER_GONE
        return _supervise(command, owner, wakeup, float(grace_s), libc)
    except ProcessLookupError:
        return EXIT_OWNER_GONE
    finally:
        kill_descendants()
        remove_leftovers(Path(run_folder), shm_prefix)


def _supervise(
    command: list[str], owner: int, wakeup: int, grace_s: float, libc: ctypes.CDLL
) -> int:
    def die_with_supervisor() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=die_with_supervisor
    )
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    ended = os.pidfd_open(server.pid)
    ready, _, _ = select.select([owner, wakeup, ended], [], [])
    if ready == [wakeup] and os.read(wakeup, 1) == bytes([signal.SIGTERM]):
        server.terminate()
        select.select([owner, wakeup, ended], [], [], grace_s)
    server.kill()  # does nothing to a process that has ended
    code = server.wait()
    return code if code >= 0 else 128 - code


def _wake_up_on(*signals: signal.Signals) -> int:
    """A file descriptor that becomes readable when one of ``signals`` arrives."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer)
    return reader


def kill_descendants() -> None:
    """Kill and reap until this process has no child; a subreaper's children are all its orphans."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in _descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)


def _descendants(pid: int) -> Iterator[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(c) for t in tasks for c in (t / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield child
        yield from _descendants(child)


def remove_leftovers(run_folder: Path, shm_prefix: str) -> None:
    """Remove a dead server's folder and its stubs' shared memory."""
    for region in SHARED_MEMORY.glob(f"{shm_prefix}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(run_folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

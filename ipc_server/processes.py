"""What a worker sees to before it runs the code of users: what that prints, and the children it forks."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def settle_in(control: socket.socket) -> None:
    """Have prints go where the log goes, and forked children keep away from what is the worker's."""
    # Standard output is the daemon's, and whoever reads that expects nothing of a model.
    os.dup2(sys.stderr.fileno(), 1)
    sys.stdout = sys.stderr
    # Whoever forks: the worker, or a child of it that does so in turn.
    parent = os.getpid()

    def remember() -> None:
        nonlocal parent
        parent = os.getpid()

    os.register_at_fork(before=remember, after_in_child=lambda: _leave(control, parent))


def _leave(control: socket.socket, parent: int) -> None:
    # With its copy the supervisor would hear from a worker that is gone. A child ends with its worker, as one
    # that never returns would otherwise stay behind.
    control.close()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that died before this could be asked for will send no signal.
    if os.getppid() != parent:
        os._exit(1)

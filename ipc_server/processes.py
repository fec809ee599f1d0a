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
    os.register_at_fork(after_in_child=lambda: _leave(control))


def _leave(control: socket.socket) -> None:
    # With its copy the supervisor would hear from a worker that is gone. A child ends with its worker, as one
    # that never returns would otherwise stay behind.
    control.close()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

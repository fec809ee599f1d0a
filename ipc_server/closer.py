"""Closes descriptors that clients have a hold on, where nobody waits for it.

Closing may take as long as whoever opened a file wants: a TCP connection that lingers, a file of a file
system that a program of theirs serves. Closed on the event loop, it would hold everybody up.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterable

from ipc_server import segment

_NO_LINGER = struct.pack("ii", 0, 0)


class Closer:
    """A thread that closes what it is handed, in order; there is none before it is needed."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._work: queue.SimpleQueue[tuple[int, Callable[[int], None]]] = queue.SimpleQueue()
        self._started = False

    def close(self, fds: Iterable[int]) -> None:
        """Close these, soon."""
        for fd in fds:
            self._put(fd, _forget_to_linger)

    def give_back(self, fd: int) -> None:
        """Give back the pages of shared memory, soon, whoever else may hold it, and close it."""
        self._put(fd, segment.give_back)

    def _put(self, fd: int, before: Callable[[int], None]) -> None:
        self._work.put((fd, before))
        if not self._started:
            self._start()

    def _start(self) -> None:
        # Where no thread can be had, what is to be closed waits for the next attempt.
        with contextlib.suppress(RuntimeError):
            # Nobody waits for it when the process ends either.
            threading.Thread(target=self._run, name="closer", daemon=True).start()
            self._started = True

    def _run(self) -> None:
        while True:
            fd, before = self._work.get()
            with contextlib.suppress(OSError):
                before(fd)
            with contextlib.suppress(OSError):
                os.close(fd)


def _forget_to_linger(fd: int) -> None:
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        with socket.socket(fileno=os.dup(fd)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


closer = Closer()
# What is ours takes no time: it never waits behind what a client has a hold on.
giver = Closer()

"""sd_notify: states, descriptors for systemd's store, and barriers; nothing blocks the event loop."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence

from ipc_server.time_limit import time_limit

log = logging.getLogger(__name__)

# A service manager that reads nothing for so many messages is not there any more.
MAX_OUTBOX = 4096
_MICROSECOND_NS = 1000
_PATIENCE_S = 1.0


class Notifier:
    """The service manager's socket; without one, everything said is forgotten."""

    def __init__(self, address: str) -> None:
        """Connect to $NOTIFY_SOCKET; an empty address is nobody's."""
        self._sock = _connected(address) if address else None
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        # Why the last message with descriptors that waited was never sent.
        self._lost: OSError | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Notifier:
        """Take the address from the environment."""
        return cls(environment.get("NOTIFY_SOCKET", ""))

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to talk to."""
        return self._sock is not None

    def say(self, *assignments: str, fds: Sequence[int] = ()) -> bool:
        """Send assignments, such as `READY=1`, now or as soon as there is room; False for too many that wait.

        The descriptors stay the caller's. OSError when they cannot be sent, or too many messages wait: a
        message without any is lost then. Those that are lost while they wait, `barrier` tells of.
        """
        if self._sock is None:
            return True
        data = "\n".join(assignments).encode()
        if not self._outbox and self._try(data, fds):
            return True
        if len(self._outbox) >= MAX_OUTBOX:
            if fds:
                raise OSError(
                    errno.ENOBUFS, f"{MAX_OUTBOX} messages wait for the service manager to read them"
                )
            log.error("the service manager does not read: %s is not said", assignments[0])
            return False
        self._outbox.append((data, [os.dup(fd) for fd in fds]))
        self._send_later()
        return True

    def reloading(self) -> None:
        """Say that the configuration is being read again."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // _MICROSECOND_NS}")

    async def barrier(self, timeout_s: float) -> bool:
        """Wait until all that was said so far has been dealt with; False when that takes longer.

        OSError when descriptors, which may be those said before, were lost on the way.
        """
        if self._sock is None:
            return True
        lost = self._lost
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()
        passed = asyncio.Event()
        try:
            try:
                self.say("BARRIER=1", fds=[writing])
            finally:
                os.close(writing)
            # The other end is closed when the last copy of it is: end-of-file.
            loop.add_reader(reading, passed.set)
            async with time_limit(timeout_s):
                await passed.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(reading)
            os.close(reading)
        # The pipe also ends when the message that it went with is lost.
        if self._lost and self._lost is not lost:
            raise OSError(self._lost.errno, self._lost.strerror)
        return True

    def close(self) -> None:
        """Close the socket, and forget what cannot be sent soon."""
        if self._sock is None:
            return
        if self._outbox:
            select.select([], [self._sock], [], _PATIENCE_S)
            self._send_waiting()
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_writer(self._sock)
        for _, fds in self._outbox:
            _close_all(fds)
        self._outbox.clear()
        self._sock.close()
        self._sock = None

    def _send_later(self) -> None:
        assert self._sock
        try:
            asyncio.get_running_loop().add_writer(self._sock, self._writable)
        except RuntimeError:
            # Before the event loop runs nobody waits for it.
            select.select([], [self._sock], [], _PATIENCE_S)
            self._send_waiting()

    def _writable(self) -> None:
        if self._send_waiting():
            assert self._sock
            asyncio.get_running_loop().remove_writer(self._sock)

    def _send_waiting(self) -> bool:
        """Send what waits; whether that was all of it."""
        while self._outbox:
            data, fds = self._outbox[0]
            try:
                if not self._try(data, fds):
                    return False
            except OSError as error:
                log.error("systemd was not given descriptors: %s", error.strerror)
                self._lost = error
            self._outbox.popleft()
            _close_all(fds)
        return True

    def _try(self, data: bytes, fds: Sequence[int]) -> bool:
        """Send; False when there is no room yet."""
        assert self._sock
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if fds:
                raise
            log.warning("the service manager was not told %s: %s", data.decode(), error.strerror)
        return True


def watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    """Give half the time that may pass between two signs of life; None when nobody waits for any."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) > 0 else None


def _connected(address: str) -> socket.socket | None:
    if address[0] not in "/@":
        log.warning("NOTIFY_SOCKET=%s is no Unix socket: the service manager is told nothing", address)
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect("\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        sock.close()
        log.warning("the service manager cannot be told anything: %s: %s", address, error.strerror)
        return None
    return sock


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)

"""The daemon's socket: taken by one daemon at a time, stale ones replaced, removed at the end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from ipc_server.messages import refuse_descriptors

log = logging.getLogger(__name__)

BACKLOG = 128
_LOCK_PATIENCE_S = 5.0
_PEER = struct.Struct("iII")


class ListenError(Exception):
    """The socket cannot be had: says which, why, and what to do."""


class Listener:
    """A listening socket; ours by its inode, if we made it."""

    def __init__(self, path: Path, sock: socket.socket, identity: tuple[int, int] | None) -> None:
        """Take over a socket that listens at the path; without `identity` its file is somebody else's."""
        sock.setblocking(False)
        refuse_descriptors(sock)
        self.path = path
        self.sock = sock
        self.identity = identity

    @classmethod
    def bind(cls, path: Path, mode: int = 0o600, group: int | None = None) -> Listener:
        """Take the path with this mode and group, replacing a socket that nobody listens to.

        Raises ListenError.
        """
        with _sole_access(path):
            _clear(path)
            return cls(path, _bind(path, mode, group), _identity(path))

    def is_reachable(self) -> bool:
        """Whether the path still leads to this socket, if that is ours to see to."""
        try:
            return self.identity is None or _identity(self.path) == self.identity
        except OSError:
            return False

    def admits(self, mode: int, group: int | None) -> bool:
        """Whether the socket has this mode and group."""
        status = self.path.stat()
        return stat.S_IMODE(status.st_mode) == mode and group in (None, status.st_gid)

    def close(self) -> None:
        """Stop listening, and remove the socket if it is ours and still this one."""
        if self.sock.fileno() < 0:
            return
        try:
            self._remove()
        except (OSError, ListenError) as error:
            # What still runs must be finished all the same; the next daemon replaces a stale socket.
            log.warning("%s could not be removed: %s", self.path, error)
        self.sock.close()

    def _remove(self) -> None:
        if self.identity is None:
            return
        with contextlib.suppress(FileNotFoundError), _sole_access(self.path):
            if self.is_reachable():
                self.path.unlink()


@contextlib.contextmanager
def _sole_access(path: Path) -> Iterator[None]:
    """Keep other daemons from taking or removing a socket in the same folder meanwhile.

    Without it, two daemons that both find a stale socket would each remove the other's new one.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ListenError(
            f"{path}: its folder cannot be opened ({error.strerror}): create it, or choose --socket"
        ) from error
    try:
        _lock(folder, path)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, path: Path) -> None:
    end = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise ListenError(
                    f"{path}: somebody else holds a lock on its folder: choose another --socket"
                ) from None
            time.sleep(0.01)


def _clear(path: Path) -> None:
    """Make sure that nothing is at the path: a living daemon and what is no socket stay."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path} is not a socket: move it away, or choose another --socket")
    _refuse_if_served(path)
    try:
        path.unlink()
    except OSError as error:
        raise ListenError(f"{path} is a stale socket and cannot be removed: {error.strerror}") from error


def _refuse_if_served(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except OSError as error:
            # EAGAIN: its queue is full; EPROTOTYPE: another type of socket. Somebody listens either way.
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise ListenError(f"{path}: {error.strerror}") from error
            raise ListenError(
                f"{path}: another process serves this socket: stop it, or choose another --socket"
            ) from error
        pid, _, _ = _PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    raise ListenError(
        f"{path}: process {pid} serves this socket already: stop it, or choose another --socket"
    )


def _bind(path: Path, mode: int, group: int | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    # By umask, not chmod: the socket must never have been open to others.
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(str(path))
        # Nobody can connect before it listens.
        _give_to(path, group)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"{path}: cannot listen there: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(umask)
    return sock


def _give_to(path: Path, group: int | None) -> None:
    if group is None:
        return
    try:
        os.chown(path, -1, group, follow_symlinks=False)
    except OSError as error:
        path.unlink()
        raise ListenError(
            f"{path}: cannot be given to socket_group, the group with gid {group} ({error.strerror}): the "
            "daemon's user must be one of its members"
        ) from error


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino

"""The memory and the doorbells of a channel: descriptors only, nothing is ever mapped here.

Shared memory comes in two kinds, which everything above treats alike. The one has a name for the moment
between its creation and its unlinking, while it is still empty: a kill at any other time leaves nothing, and
at that moment a name without pages, which the next daemon removes. The other, sealed, never has a name, and
nobody can change its size: for clients of other users.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import posix_ipc

from ipc_server import memory
from ipc_server.abi import PAGE_BYTES, ErrorCode
from ipc_server.errors import SidecamlError

_SHARED_MEMORY = "/dev/shm"
_PREFIX = "sidecaml-"
_RANDOM_BYTES = 12
_ATTEMPTS = 16
_SEGMENT = "the segment"
_COPY = "the private copy that the worker makes of a slot, because the client is not trusted,"
_NO_ROOM = {errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT}

# Linux 6.3: a file that nobody can ever make executable.
_MFD_NOEXEC_SEAL = 0x8
_FALLOC_FL_KEEP_SIZE = 0x1
_FALLOC_FL_PUNCH_HOLE = 0x2
_libc = ctypes.CDLL(None, use_errno=True)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create_segment(size: int, *, sealed: bool = False) -> int:
    """Create shared memory of `size` bytes, zeroed, with every page reserved; give its descriptor.

    With `sealed`, nobody can change its size, whoever gets the descriptor. Raises NO_SPACE when there is not
    that much.
    """
    fd = _create_memfd() if sealed else _create_unlinked()
    try:
        _reserve(fd, size)
        if sealed:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def remove_leftovers() -> None:
    """Remove the names that this user's daemons left when they were killed as they created segments.

    Who is creating one at this moment has its descriptor, and does not need the name any more.
    """
    for path in Path(_SHARED_MEMORY).glob(_PREFIX + "[0-9a-f][0-9a-f]" * _RANDOM_BYTES):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_size == 0 and status.st_uid == os.geteuid():
                path.unlink()


def create_status_page() -> int:
    """Create a worker's status page, writable."""
    return create_segment(PAGE_BYTES)


def give_back(fd: int) -> None:
    """Give the pages of shared memory back, whoever has it mapped: it is zeros then."""
    flags = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    if _libc.fallocate(fd, flags, ctypes.c_int64(0), ctypes.c_int64(os.fstat(fd).st_size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read_only(fd: int) -> int:
    """Open what `fd` is once more, for reading only: the new descriptor can never write."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def create_doorbell() -> int:
    """Create an eventfd as the protocol wants it."""
    return os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def create_socket_doorbell() -> tuple[int, int]:
    """Create a doorbell that its poster never waits for: the end that posts, and the end that sleeps.

    They are two open files, so that no flag of the one is a flag of the other. The end that posts takes
    nothing in: no descriptor can be left in it for its owner to close, which may take as long as whoever
    opened it wants.
    """
    posts, sleeps = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    with posts, sleeps:
        posts.shutdown(socket.SHUT_RD)
        return posts.detach(), sleeps.detach()


def _create_unlinked() -> int:
    for _ in range(_ATTEMPTS):
        name = f"/{_PREFIX}{secrets.token_hex(_RANDOM_BYTES)}"
        try:
            shared = posix_ipc.SharedMemory(name, flags=posix_ipc.O_CREX, mode=0o600)
        except posix_ipc.ExistentialError:
            continue
        except posix_ipc.PermissionsError:
            # In our words: nobody outside may learn a name, whatever a library puts into its texts.
            raise _cannot_create("its permissions do not allow it") from None
        except OSError as error:
            # posix_ipc leaves the number out of the errors that say that no more files can be open.
            number = error.errno or errno.EMFILE
            if number in _NO_ROOM:
                raise SidecamlError(
                    ErrorCode.NO_SPACE,
                    f"{_SHARED_MEMORY} has no room for one more segment ({os.strerror(number)}): close other "
                    "channels, or enlarge it, its number of files (nr_inodes) included",
                ) from None
            raise OSError(number, os.strerror(number)) from None
        except posix_ipc.Error as error:
            raise _cannot_create(type(error).__name__) from None
        # Whoever removed it before us did what we are about to do.
        with contextlib.suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_shared_memory(name)
        return int(shared.fd)
    raise _cannot_create(f"{_ATTEMPTS} random names were all taken")


def _cannot_create(why: str) -> SidecamlError:
    return SidecamlError(ErrorCode.SYSTEM, f"nothing can be created in {_SHARED_MEMORY}: {why}")


def _create_memfd() -> int:
    flags = os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC
    try:
        fd = os.memfd_create("sidecaml", flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("sidecaml", flags)
    # A memfd begins with everything allowed to everybody: who gets a descriptor that cannot write could open
    # it again as one that can.
    os.fchmod(fd, 0o600)
    return fd


class _Room:
    """What is being reserved by this process at this moment: asked first, it would be counted twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._promised = 0

    @contextlib.contextmanager
    def promise(
        self, size: int, find_free: Callable[[], tuple[int, str]], what: str = _SEGMENT
    ) -> Iterator[None]:
        """Hold room for `size` bytes until they are taken; NO_SPACE when there is not that much."""
        with self._lock:
            free, where = find_free()
            if size > free - self._promised:
                raise _no_space(size, max(0, free - self._promised), where, what)
            self._promised += size
        try:
            yield
        finally:
            with self._lock:
                self._promised -= size


_room = _Room()


def room_for_copy(size: int) -> contextlib.AbstractContextManager[None]:
    """Hold room for a worker's private copy of a slot until it is there; NO_SPACE when there is none."""
    if not size:
        return contextlib.nullcontext()
    return _room.promise(size, lambda: (memory.available(), "memory"), _COPY)


def _reserve(fd: int, size: int) -> None:
    # Asked first, so that a segment that cannot fit does not starve everybody else while it is tried.
    with _room.promise(size, lambda: _free(fd)):
        try:
            os.ftruncate(fd, size)
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _no_space(size, *_free(fd)) from error
            raise


def _free(fd: int) -> tuple[int, str]:
    """Count the bytes that are free for this file, and say where."""
    free, where = memory.available(), "memory"
    room = os.fstatvfs(fd)
    # What has no name lies in a file system without a size.
    if room.f_blocks and room.f_bavail * room.f_frsize < free:
        free, where = room.f_bavail * room.f_frsize, _SHARED_MEMORY
    return free, where


def _no_space(wanted: int, free: int, where: str, what: str = _SEGMENT) -> SidecamlError:
    remedy = (
        f"enlarge {where}"
        if where == _SHARED_MEMORY
        else "raise the memory limit of the daemon or its machine"
    )
    kind = "shared memory" if what is _SEGMENT else "memory"
    return SidecamlError(
        ErrorCode.NO_SPACE,
        f"{what} needs {wanted} bytes ({wanted / 2**20:.1f} MiB) of {kind} and {where} has "
        f"{free} ({free / 2**20:.1f} MiB): ask for fewer slots or smaller dims, close other channels, or "
        f"{remedy}",
    )

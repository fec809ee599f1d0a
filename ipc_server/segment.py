"""The memory and the doorbells of a channel: descriptors only, nothing is ever mapped here.

A name in shared memory exists for the moment between its creation and its unlinking, while it is still empty:
a kill at any other time leaves nothing, and at that moment a name without pages.
"""

from __future__ import annotations

import errno
import os
import secrets

import posix_ipc

from ipc_server.abi import PAGE_BYTES, ErrorCode
from ipc_server.errors import SidecamlError

_SHARED_MEMORY = "/dev/shm"
_ATTEMPTS = 16
_NO_ROOM = {errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT}


def create_segment(size: int) -> int:
    """Create shared memory of `size` bytes, zeroed, with every page reserved; give its descriptor.

    Raises NO_SPACE when shared memory has not that much.
    """
    fd = _create_unlinked()
    try:
        _reserve(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create_status_page() -> int:
    """Create a worker's status page, writable."""
    return create_segment(PAGE_BYTES)


def read_only(fd: int) -> int:
    """Open what `fd` is once more, for reading only: the new descriptor can never write."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def create_doorbell() -> int:
    """Create an eventfd as the protocol wants it."""
    return os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def _create_unlinked() -> int:
    problem: Exception | None = None
    for _ in range(_ATTEMPTS):
        name = f"/sidecaml-{secrets.token_hex(12)}"
        try:
            memory = posix_ipc.SharedMemory(name, flags=posix_ipc.O_CREX, mode=0o600)
        except posix_ipc.ExistentialError as error:
            problem = error
            continue
        except posix_ipc.Error as error:
            problem = error
            break
        except OSError as error:
            # posix_ipc leaves the number out of the errors that say that no more files can be open.
            raise error if error.errno else OSError(errno.EMFILE, str(error)) from error
        posix_ipc.unlink_shared_memory(name)
        return int(memory.fd)
    raise SidecamlError(
        ErrorCode.SYSTEM, f"nothing can be created in {_SHARED_MEMORY}: {problem}"
    ) from problem


def _reserve(fd: int, size: int) -> None:
    room = os.fstatvfs(fd)
    free = room.f_bavail * room.f_frsize
    # Asked first, so that a segment that cannot fit does not starve everybody else while it is tried.
    if room.f_blocks and size > free:
        raise _no_space(size, free)
    try:
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _no_space(size, free) from error
        raise


def _no_space(wanted: int, free: int) -> SidecamlError:
    return SidecamlError(
        ErrorCode.NO_SPACE,
        f"the segment needs {wanted} bytes ({wanted / 2**20:.1f} MiB) of shared memory and {_SHARED_MEMORY} "
        f"has {free} ({free / 2**20:.1f} MiB): ask for fewer slots or smaller dims, close other channels, or "
        f"enlarge {_SHARED_MEMORY}",
    )

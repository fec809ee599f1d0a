"""Shared memory and doorbells: private, unnamed, reserved."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from pathlib import Path

import posix_ipc
import pytest

from ipc_server import segment
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

SIZE = 3 * 4096


def names() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir() if entry.name.startswith("sidecaml")}


def test_a_segment_has_its_size_no_name_and_one_user() -> None:
    before = names()
    fd = segment.create_segment(SIZE)
    try:
        status = os.fstat(fd)
        assert (status.st_size, status.st_nlink, stat.S_IMODE(status.st_mode)) == (SIZE, 0, 0o600)
        assert status.st_blocks * 512 >= SIZE
        assert not os.get_inheritable(fd)
        assert os.pread(fd, SIZE, 0) == bytes(SIZE)
        assert names() <= before
    finally:
        os.close(fd)


def test_a_full_shared_memory_says_what_was_wanted_and_what_is_there() -> None:
    room = os.statvfs("/dev/shm")
    wanted = room.f_blocks * room.f_frsize + 4096
    with pytest.raises(SidecamlError, match=f"needs {wanted} bytes .* has [0-9]+ ") as caught:
        segment.create_segment(wanted)
    assert caught.value.code is ErrorCode.NO_SPACE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.ENOMEM, errno.EDQUOT])
def test_shared_memory_that_fills_up_meanwhile_is_no_space(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SidecamlError, match="shared memory") as caught:
        segment.create_segment(SIZE)
    assert caught.value.code is ErrorCode.NO_SPACE


def test_another_failure_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="broken"):
        segment.create_segment(SIZE)


def test_a_read_only_descriptor_sees_everything_and_writes_nothing() -> None:
    fd = segment.create_status_page()
    reader = segment.read_only(fd)
    try:
        os.pwrite(fd, b"seen", 100)
        assert os.pread(reader, 4, 100) == b"seen"
        assert not os.get_inheritable(reader)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(reader, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(reader, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(fd)
        os.close(reader)


def test_a_doorbell_counts_one_by_one_and_never_blocks() -> None:
    fd = segment.create_doorbell()
    try:
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
        assert not os.get_inheritable(fd)
        os.eventfd_write(fd, 2)
        assert [os.eventfd_read(fd), os.eventfd_read(fd)] == [1, 1]
        with pytest.raises(BlockingIOError):
            os.eventfd_read(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", [posix_ipc.ExistentialError, posix_ipc.PermissionsError])
def test_a_shared_memory_where_nothing_can_be_created_is_an_error(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise kind("not here")

    monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
    with pytest.raises(SidecamlError, match="/dev/shm: not here") as caught:
        segment.create_segment(SIZE)
    assert caught.value.code is ErrorCode.SYSTEM


def test_no_more_descriptors_is_an_error_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("too many files")

    monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
    with pytest.raises(OSError, match="too many files") as caught:
        segment.create_segment(SIZE)
    assert caught.value.errno == errno.EMFILE

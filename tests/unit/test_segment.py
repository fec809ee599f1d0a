"""Shared memory and doorbells: private, unnamed, reserved."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import socket
import stat
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import posix_ipc
import pytest
from conftest import assert_vanishes
from users import STRANGER, is_root

from ipc_server import memory, segment
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

SIZE = 3 * 4096


def names() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir() if entry.name.startswith("sidecaml")}


@pytest.mark.parametrize("sealed", [False, True])
def test_a_segment_has_its_size_no_name_and_one_user(sealed: bool) -> None:
    before = names()
    fd = segment.create_segment(SIZE, sealed=sealed)
    try:
        status = os.fstat(fd)
        assert (status.st_size, status.st_nlink, stat.S_IMODE(status.st_mode)) == (SIZE, 0, 0o600)
        assert status.st_blocks * 512 >= SIZE
        assert not os.get_inheritable(fd)
        assert os.pread(fd, SIZE, 0) == bytes(SIZE)
        # Others may be about to take theirs away.
        assert_vanishes("names of a segment", lambda: names() - before)
    finally:
        os.close(fd)


def test_nobody_changes_the_size_of_a_sealed_segment_or_makes_it_a_program() -> None:
    fd = segment.create_segment(SIZE, sealed=True)
    try:
        for size in (0, SIZE - 4096, SIZE + 4096):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        assert not os.fstat(fd).st_mode & 0o111
        os.pwrite(fd, b"written", SIZE - 7)
        with mmap.mmap(fd, SIZE) as mapped:
            mapped[0] = 1
    finally:
        os.close(fd)


def test_a_kernel_that_does_not_know_the_newest_seal_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    create, asked = os.memfd_create, []

    def older(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 0x8:
            raise OSError(errno.EINVAL, "unknown flag")
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    os.close(segment.create_segment(SIZE, sealed=True))
    assert len(asked) == 2


@pytest.mark.parametrize("sealed", [False, True])
def test_memory_that_is_not_there_is_no_space(monkeypatch: pytest.MonkeyPatch, sealed: bool) -> None:
    monkeypatch.setattr(memory, "available", lambda: SIZE - 1)
    with pytest.raises(SidecamlError, match=f"needs {SIZE} bytes .* memory has {SIZE - 1} ") as caught:
        segment.create_segment(SIZE, sealed=sealed)
    assert caught.value.code is ErrorCode.NO_SPACE


def test_what_is_being_reserved_is_not_promised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def reserve(fd: int, _offset: int, _size: int) -> None:
        # Half of what is free is on its way to this one.
        if not refused:
            refused.append(True)
            with pytest.raises(SidecamlError, match="has 0 ") as caught:
                segment.create_segment(SIZE)
            assert caught.value.code is ErrorCode.NO_SPACE

    monkeypatch.setattr(memory, "available", lambda: SIZE)
    monkeypatch.setattr(os, "posix_fallocate", reserve)
    for _ in range(2):
        os.close(segment.create_segment(SIZE))
    assert refused


def test_names_that_a_killed_daemon_left_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(segment, "_SHARED_MEMORY", str(tmp_path))
    left, whole, link, folder, stranger = (tmp_path / f"sidecaml-{secrets.token_hex(12)}" for _ in range(5))
    left.touch()
    whole.write_bytes(b"x")
    link.symlink_to(tmp_path / "nowhere")
    folder.mkdir()
    others = {tmp_path / "other", tmp_path / "sidecaml-errors.log", tmp_path / f"{left.name}.lock"}
    for other in others:
        other.touch()
    segment.remove_leftovers()
    assert set(tmp_path.iterdir()) == {whole, link, folder, *others}
    if is_root():
        stranger.touch()
        os.chown(stranger, STRANGER, -1)
        segment.remove_leftovers()
        assert stranger.exists()
    monkeypatch.setattr(segment, "_SHARED_MEMORY", str(tmp_path / "nowhere"))
    segment.remove_leftovers()


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


# What a library says of a name that it could not create often holds the name.
FAILURES: list[Callable[[str], Exception]] = [
    lambda name: posix_ipc.ExistentialError(f"{name} exists"),
    lambda name: posix_ipc.PermissionsError(f"{name} is not allowed"),
    lambda name: posix_ipc.Error(f"{name} is wrong"),
    lambda name: OSError(errno.EMFILE, f"too many files for {name}", name),
    lambda name: OSError(errno.ENOSPC, f"no room for {name}", name),
    lambda name: OSError(f"too many files for {name}"),
]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Everything that a log would print."""
    while error:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("failure", FAILURES)
def test_no_text_of_an_error_has_a_name_of_shared_memory(
    monkeypatch: pytest.MonkeyPatch, failure: Callable[[str], Exception]
) -> None:
    tried = []

    def refuse(name: str, **_: object) -> None:
        tried.append(name)
        raise failure(name)

    monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
    with pytest.raises((SidecamlError, OSError)) as caught:
        segment.create_segment(SIZE)
    text = "".join(traceback.format_exception(caught.value))
    assert tried
    assert not any(name.strip("/") in text for name in tried), text
    assert not any(name.strip("/") in repr(error.args) for name in tried for error in chain(caught.value))


def test_what_cannot_be_created_is_an_error_of_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_with(error: Exception) -> SidecamlError | OSError:
        def refuse(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
        with pytest.raises((SidecamlError, OSError)) as caught:
            segment.create_segment(SIZE)
        return caught.value

    for error, code in (
        (posix_ipc.ExistentialError("not here"), ErrorCode.SYSTEM),
        (posix_ipc.PermissionsError("not here"), ErrorCode.SYSTEM),
        (OSError(errno.ENOSPC, "full"), ErrorCode.NO_SPACE),
    ):
        refused = refuse_with(error)
        assert isinstance(refused, SidecamlError)
        assert (refused.code, "/dev/shm" in str(refused)) == (code, True)
    # Without a number, posix_ipc means that no more files can be open.
    full = refuse_with(OSError("too many files"))
    assert isinstance(full, OSError)
    assert full.errno == errno.EMFILE


def test_a_name_that_somebody_else_removed_is_gone_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = posix_ipc.unlink_shared_memory

    def removed_before(name: str) -> None:
        unlink(name)
        unlink(name)

    monkeypatch.setattr(posix_ipc, "unlink_shared_memory", removed_before)
    os.close(segment.create_segment(SIZE))


def test_the_ends_of_a_socket_doorbell_share_no_flag_and_go_one_way() -> None:
    posts, sleeps = segment.create_socket_doorbell()
    try:
        assert not os.get_inheritable(posts)
        assert not os.get_inheritable(sleeps)
        os.set_blocking(sleeps, True)
        assert not os.get_blocking(posts)
        # A peer that reads nothing: the end that posts says so instead of waiting.
        with pytest.raises(BlockingIOError):
            while True:
                os.write(posts, bytes(8))
        assert os.read(sleeps, 8) == bytes(8)
        with socket.socket(fileno=os.dup(sleeps)) as client, pytest.raises(BrokenPipeError):
            socket.send_fds(client, [b"x"], [sleeps])
    finally:
        os.close(posts)
        os.close(sleeps)

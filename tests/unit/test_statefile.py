"""The state file: what was written last is read, and a write that breaks off anywhere loses nothing."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from ipc_server.systemd import statefile
from ipc_server.systemd.statefile import StateFile


@pytest.fixture
def file() -> Iterator[StateFile]:
    made = StateFile.create()
    yield made
    made.close()


def reopened(file: StateFile) -> StateFile:
    return StateFile(file.fd)


def test_a_new_file_holds_nothing(file: StateFile) -> None:
    assert file.read() is None
    assert reopened(file).read() is None


@pytest.mark.parametrize("sizes", [[0], [5, 1], [1, 100_000, 3], [7] * 9])
def test_what_was_written_last_is_read(file: StateFile, sizes: list[int]) -> None:
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        file.write(data)
        assert file.read() == data
        assert reopened(file).read() == data


def test_a_successor_goes_on_writing(file: StateFile) -> None:
    file.write(b"first")
    successor = reopened(file)
    successor.write(b"second")
    assert reopened(successor).read() == b"second"


class Killed(BaseException):
    """What ends the writer."""


def test_a_writer_that_is_killed_after_any_byte_leaves_the_value_before(
    file: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = b"before" * 3, b"after" * 5
    real = os.pwrite
    for limit in range(32 + len(after)):
        file.write(before)
        left = limit

        def torn(fd: int, data: memoryview, offset: int) -> int:
            nonlocal left
            written = real(fd, data[:left], offset) if left else 0
            left -= written
            if written < len(data):
                raise Killed
            return written

        monkeypatch.setattr(statefile.os, "pwrite", torn)
        with pytest.raises(Killed):
            file.write(after)
        monkeypatch.setattr(statefile.os, "pwrite", real)
        file = reopened(file)
        assert file.read() == before


def test_damage_of_the_newest_value_gives_the_one_before(file: StateFile) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    file.write(b"older")
    file.write(b"newest value")
    place = file._place
    for _ in range(50):
        at = place + chance.randrange(32 + len(b"newest value"))
        byte = os.pread(file.fd, 1, at)
        os.pwrite(file.fd, bytes([byte[0] ^ 1 << chance.randrange(8)]), at)
        assert reopened(file).read() == b"older"
        os.pwrite(file.fd, byte, at)
    assert reopened(file).read() == b"newest value"


@pytest.mark.parametrize("rubbish", [b"", b"x", b"SIDEKEPT", b"SIDEKEPT" + b"\xff" * 100, os.urandom(4096)])
def test_rubbish_is_no_value(rubbish: bytes) -> None:
    file = StateFile.create()
    os.pwrite(file.fd, rubbish, 0)
    assert reopened(file).read() is None
    file.close()

"""The page on which workers know of each other: who gets which entry, and what is left of the dead."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ipc_server import _core, segment
from ipc_server.abi import CROWD_BYTES, CROWD_ENTRIES, CROWD_ENTRIES_OFFSET, CROWD_ENTRY_BYTES, ErrorCode
from ipc_server.crowd import Crowd
from ipc_server.errors import SidecamlError


class Somebody:
    """A worker that does nothing."""


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd()
    yield made
    made.close()


def enter(crowd: Crowd, worker: Somebody) -> tuple[list[int], dict[str, int]]:
    return crowd.enter(worker)  # type: ignore[arg-type]


def leave(crowd: Crowd, worker: Somebody) -> None:
    crowd.leave(worker)  # type: ignore[arg-type]


def used(fd: int) -> int:
    return int.from_bytes(os.pread(fd, 4, 0), "little")


def entry(fd: int, number: int) -> bytes:
    return os.pread(fd, CROWD_ENTRY_BYTES, CROWD_ENTRIES_OFFSET + number * CROWD_ENTRY_BYTES)


def test_each_worker_has_an_entry_of_its_own_and_that_of_one_that_left_is_the_next_ones(crowd: Crowd) -> None:
    workers = [Somebody() for _ in range(4)]
    (fd,), fields = enter(crowd, workers[0])
    assert os.fstat(fd).st_size == CROWD_BYTES
    assert fields == {"entry": 0, "cores": _core.usable_cores()}
    assert [enter(crowd, worker)[1]["entry"] for worker in workers[1:3]] == [1, 2]
    assert used(fd) == 3
    leave(crowd, workers[1])
    assert enter(crowd, workers[3]) == ([fd], {**fields, "entry": 1})
    assert used(fd) == 3


def test_what_a_dead_worker_left_is_zeroed_and_nothing_else(crowd: Crowd) -> None:
    dead, alive = Somebody(), Somebody()
    (fd,), _ = enter(crowd, dead)
    enter(crowd, alive)
    os.pwrite(fd, b"\1" * 2 * CROWD_ENTRY_BYTES, CROWD_ENTRIES_OFFSET)
    leave(crowd, dead)
    assert not any(entry(fd, 0))
    assert entry(fd, 1) == b"\1" * CROWD_ENTRY_BYTES
    leave(crowd, dead)
    leave(crowd, Somebody())
    assert entry(fd, 1) == b"\1" * CROWD_ENTRY_BYTES


def test_nobody_can_change_the_size_of_the_page(crowd: Crowd) -> None:
    (fd,), _ = enter(crowd, Somebody())
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)


def test_there_is_no_page_without_workers(crowd: Crowd) -> None:
    worker = Somebody()
    (fd,), _ = enter(crowd, worker)
    leave(crowd, worker)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    (fd,), _ = enter(crowd, worker)
    assert used(fd) == 1


def test_more_workers_than_entries_are_told_nothing(crowd: Crowd) -> None:
    workers = [Somebody() for _ in range(CROWD_ENTRIES + 1)]
    told = [enter(crowd, worker) for worker in workers]
    assert [fields["entry"] for _, fields in told[:-1]] == list(range(CROWD_ENTRIES))
    assert told[-1] == ([], {})


def test_without_memory_for_the_page_workers_know_only_of_themselves(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_size: int, *, sealed: bool) -> int:
        raise SidecamlError(ErrorCode.NO_SPACE, f"no room, sealed or not: {sealed}")

    with monkeypatch.context() as patched:
        patched.setattr(segment, "create_segment", refuse)
        assert enter(crowd, Somebody()) == ([], {})
    assert "no room" in caplog.text
    (fd,), _ = enter(crowd, Somebody())
    assert used(fd) == 1

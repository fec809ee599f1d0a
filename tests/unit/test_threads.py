"""A pool whose threads are there from the start."""

from __future__ import annotations

import threading

import pytest

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.threads import started_pool


def test_a_pool_needs_no_more_threads_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with started_pool(3) as pool:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        together = threading.Barrier(3)
        waiting = [pool.submit(together.wait, 60) for _ in range(3)]
        assert sorted(task.result(60) for task in waiting) == [0, 1, 2]


def test_threads_that_cannot_be_had_are_told_of_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    start, left = threading.Thread.start, [2]

    def scarce(thread: threading.Thread) -> None:
        left[0] -= 1
        if left[0] < 0:
            refuse(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(SidecamlError, match="the daemon needs 3 threads and cannot start them") as caught:
        started_pool(3)
    assert caught.value.code is ErrorCode.LIMIT
    assert threading.active_count() == before


def refuse(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")

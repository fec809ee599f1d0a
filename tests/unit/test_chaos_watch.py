"""What `make chaos` sees of a daemon and its clients while it strikes: from logs and looks made up here."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from chaos import served, stalls
from chaos.served import Holdings, Served, as_before, at_rest, what_stays
from chaos.stalls import Stalls
from daemon_process import is_alive, is_stopped, wait_until


@pytest.fixture
def worker() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


class Waiting:
    """A client that waits for its answer, beside a worker that has begun."""

    def __init__(self, worker: int) -> None:
        counters = SimpleNamespace(answered=7, opened_ns=1)
        life: Any = SimpleNamespace(
            job="network", ended_ns=0, counters=counters, files=SimpleNamespace(name="it")
        )
        self.began = {"network": (worker, time.monotonic_ns())}
        daemon: Any = SimpleNamespace(began=self.began, read_log=lambda: None)
        fleet: Any = SimpleNamespace(now={"network": life}, is_stopped=lambda _: False)
        self.stalls = Stalls(daemon, fleet)

    def found(self) -> bool:
        """Whether it is found to wait for nothing."""
        for _ in range(2):
            self.stalls.look()
            time.sleep(0.001)
        return bool(self.stalls.found)


@pytest.fixture(autouse=True)
def waits_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "STALL_S", 0.0)


def test_a_client_that_waits_beside_a_living_worker_is_found(worker: int) -> None:
    assert Waiting(worker).found()


def test_a_client_may_wait_from_a_hit_until_another_worker_begins(worker: int) -> None:
    waiting = Waiting(worker)
    waiting.stalls.hit("network")
    assert not waiting.found()
    waiting.began["network"] = worker, time.monotonic_ns()
    assert waiting.found()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_client_may_wait_while_its_worker_is_none_though_nobody_hit_it(
    worker: int, number: signal.Signals
) -> None:
    waiting = Waiting(worker)
    os.kill(worker, number)
    wait_until("it is none any more", lambda: is_stopped(worker) or not is_alive(worker))
    assert not waiting.found()
    waiting.began["network"] = os.getpid(), time.monotonic_ns()
    assert waiting.found()


def test_a_line_that_is_read_while_it_is_written_is_not_lost() -> None:
    daemon = Served.__new__(Served)
    daemon.began, daemon._warm, daemon._half_a_line = {}, {}, ""
    for piece in ("info: model a: worker 1", "23 took over\ninfo: model b: sta", "ndby 45 is warm\nmodel"):
        daemon._log = io.StringIO(piece)  # type: ignore[assignment]
        daemon.read_log()
    assert daemon.began["a"][0] == 123
    assert daemon._warm == {45: "b"}


def held(fds: int) -> Holdings:
    return Holdings(workers=2, supervisor_fds=fds, worker_fds={}, shared_memory=0, stopped=0)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that closes a descriptor from look to look, until it has five."""
    looks = iter([*range(9, 5, -1), *[5] * 1000])
    monkeypatch.setattr(served, "holdings", lambda _: held(next(looks)))
    monkeypatch.setattr(served, "QUIET_S", 0.001)


def test_what_is_still_being_closed_is_waited_for(daemon: None) -> None:
    nobody: Any = None
    assert as_before(nobody, held(5)) == held(5)


def test_what_was_held_before_is_what_two_looks_see(daemon: None) -> None:
    nobody: Any = None
    assert at_rest(nobody) == held(5)


def test_what_is_never_closed_is_told(daemon: None) -> None:
    nobody: Any = None
    left = as_before(nobody, held(4), patience_s=0.5).leaks(held(4))
    assert left == ["supervisor fds: 4 before, 5 after"]


def test_workers_that_end_while_they_are_looked_at_are_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = iter([FileNotFoundError, ProcessLookupError, None])

    def look(*_: object) -> Holdings:
        if error := next(looks):
            raise error
        return held(5)

    monkeypatch.setattr(served, "_held", look)
    settled: Any = SimpleNamespace(wait_settled=lambda: [])
    assert served.holdings(settled) == held(5)


def test_what_ends_a_little_later_does_not_stay_and_what_remains_does() -> None:
    looks = iter([["process 1", "process 2"], ["process 2"], []])
    assert not what_stays(lambda: next(looks))
    assert what_stays(lambda: ["process 3"], patience_s=0.2) == ["process 3"]

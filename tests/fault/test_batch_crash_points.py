"""A worker that runs requests together, killed at every named point that it comes past meanwhile.

Each request is answered, once, with the bits that it gets alone; but for the one that its workers died of.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import models
import numpy as np
import onnxruntime
import pytest
from batch_clients import SLOTS, Clients, Sent, clients, session
from conftest import leaves_nothing
from crash_build import Orders, build, of_side
from daemon_process import Daemon, wait_until

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

ROUNDS = 40
# A worker comes past them before it serves, where it has nothing to do, or when it gives a channel up.
NOT_IN_A_RUN = {
    *("worker.loading", "worker.loaded", "worker.beginning", "worker.begun", "worker.formatted"),
    *("worker.sleeping", "worker.woken", "worker.parked-up", "worker.parked-down"),
    *("worker.attaching", "worker.attached", "worker.detaching", "worker.detached", "worker.drained"),
}
OF_A_GIVEN_UP_REQUEST = ["worker.abandoned-seen", "worker.freed"]
# Of a successor, by where its predecessor died.
OF_SUCCESSORS = {
    "worker.resuming": "worker.started",
    "worker.resumed": "worker.started",
    "worker.only-publishing": "worker.committed",
}
# Of one that does not run again what its predecessors died of.
OF_THE_LIMIT = ["worker.giving-up", "worker.gave-up"]
ELSEWHERE = {*NOT_IN_A_RUN, *OF_A_GIVEN_UP_REQUEST, *OF_SUCCESSORS, *OF_THE_LIMIT}
OF_A_RUN = [name for name in of_side("worker") if name not in ELSEWHERE]


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Not after each test: the daemon lives on, and renews its workers. After the last."""


class Crashing:
    """A daemon whose worker of `mlp` dies on order."""

    def __init__(self, folder: Path) -> None:
        """Start it, with two standbys."""
        path = models.dynamic_mlp(folder / "mlp.onnx")
        self.alone: onnxruntime.InferenceSession = session(path)
        self.orders = Orders(folder / "orders")
        environment = self.orders.environment(build())
        self.daemon = Daemon(folder, {"mlp": path}, env=environment, standbys=2)
        self.daemon.wait_logged(" is warm ", times=2)

    def wait_for(self, point: str) -> int:
        """Wait until a process came past the point."""
        pid: int = wait_until(f"a worker came past {point}", lambda: self.orders.victim(point))
        return pid


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashing]:
    with leaves_nothing():
        running = Crashing(tmp_path_factory.mktemp("crash"))
        fds = len(running.daemon.fds())
        yield running
        wait_until("its descriptors are closed", lambda: len(running.daemon.fds()) <= fds + 2)
        assert running.daemon.stop() == 0


@pytest.fixture(params=[1, 2], ids=["one client", "two clients"])
def together(crashing: Crashing, request: pytest.FixtureRequest) -> Iterator[Clients]:
    """Clients whose requests are run together, before and after."""
    with clients(crashing.daemon, crashing.alone, request.param) as opened:
        opened.run_together()
        yield opened
        opened.run_together()


def check(submitted: Sequence[Sent]) -> list[ErrorCode]:
    """Await and compare all of them; the errors.

    What is answered has its inputs spoilt: one that is run again has another answer at the end.
    """
    errors, answered = [], []
    for sent in submitted:
        try:
            sent.await_right()
        except SidecamlError as error:
            errors.append(error.code)
            continue
        sent.channel.input("x", sent.slot)[...] = np.nan
        answered.append(sent)
    for sent in answered:
        sent.compare()
        sent.channel.release(sent.slot)
    return errors


@pytest.mark.parametrize("point", OF_A_RUN)
def test_killed_at(crashing: Crashing, together: Clients, point: str) -> None:
    for number in range(ROUNDS):
        with together.stopped():
            submitted = together.submit(1)
            # Once: who comes past a little late would leave a second order to whoever comes next.
            if number == 0:
                crashing.orders.give(point, "KILL")
        assert check(submitted) == []
        if crashing.orders.victim(point):
            return
    crashing.orders.take_back(point)
    raise AssertionError(f"nobody came past {point}: say in this file how to get there, or take it out")


@pytest.mark.parametrize(("point", "before"), OF_SUCCESSORS.items())
def test_its_successor_killed_at(crashing: Crashing, together: Clients, point: str, before: str) -> None:
    with together.stopped():
        submitted = together.submit(1)
        for each in (before, point):
            crashing.orders.give(each, "KILL")
    assert check(submitted) == []
    assert crashing.wait_for(before) != crashing.wait_for(point)


@pytest.mark.parametrize("point", OF_A_GIVEN_UP_REQUEST)
def test_killed_with_requests_that_were_given_up(crashing: Crashing, together: Clients, point: str) -> None:
    with together.stopped():
        submitted = together.submit(1)
        crashing.orders.give("worker.started", "STOP")
    worker = crashing.wait_for("worker.started")
    for number in (SLOTS - 1, 3, 0):
        given_up = submitted.pop(number)
        given_up.channel.abandon(given_up.slot)
    crashing.orders.give(point, "KILL")
    os.kill(worker, signal.SIGCONT)
    assert check(submitted) == []
    assert crashing.wait_for(point) == worker


@pytest.mark.parametrize("point", OF_THE_LIMIT)
def test_who_ended_two_workers_is_not_run_again_and_the_others_are(
    crashing: Crashing, together: Clients, point: str
) -> None:
    with together.stopped():
        submitted = together.submit(1)
        crashing.orders.give("worker.resumed", "STOP")
        # Later than where it started, which is noted for one client after the other.
        crashing.orders.give("worker.ran", "KILL")
    crashing.wait_for("worker.ran")
    # The first of them, alone.
    successor = crashing.wait_for("worker.resumed")
    crashing.orders.give("worker.started", "KILL")
    crashing.orders.give(point, "KILL")
    os.kill(successor, signal.SIGCONT)
    assert check(submitted) == [ErrorCode.WORKER_CRASHED]
    assert crashing.wait_for("worker.started") == successor
    crashing.wait_for(point)

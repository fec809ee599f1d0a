"""Every side killed and stopped at every named point of the sources: the others see a slow call, if anything.

The points are found in the sources, so that none is forgotten: one that no test comes past fails it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from channels import open_channel
from conftest import leaves_nothing
from crash_build import OF_AN_OPEN, OF_THE_STORE, of_side, points
from crash_daemon import CALLS, CrashDaemon, Stateful, await_quiet, give_up_on, opener, stateful, victim
from daemon_process import RawClient, is_alive, wait_until

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

ROUNDS = 40
# However long a standby takes to load.
PATIENCE_S = 60.0
# Of a successor: it comes past them when a worker dies. Those of a standby, when another one is wanted.
OF_SUCCESSORS = {"worker.beginning", "worker.begun", "worker.resuming", "worker.resumed", "worker.loading"}
OF_SUCCESSORS |= {"worker.loaded", "supervisor.death-known", "supervisor.successor-begins"}
OF_SUCCESSORS |= {"supervisor.offered", "supervisor.taken-over"}
# Of a worker that finds what its predecessors left: where those have to die.
AFTER = {
    "worker.only-publishing": ["worker.committed"],
    "worker.giving-up": ["worker.started", "worker.started"],
    "worker.gave-up": ["worker.started", "worker.started"],
}
# Of a daemon that ends.
AT_THE_END = {"worker.drained"}

# Of a channel that moves between instances: test_moves.py, with a model that has several.
OF_MOVES = "supervisor.move."
# Of a service manager's store: test_restart_crash_points.py.
OF_THE_SUPERVISOR = [name for name in of_side("supervisor") if not name.startswith((OF_MOVES, OF_THE_STORE))]

both_actions = pytest.mark.parametrize("action", ["KILL", "STOP"])


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Not after each test: the daemon lives on, and renews its workers. After the last."""


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashDaemon]:
    with leaves_nothing():
        running = CrashDaemon(tmp_path_factory.mktemp("crash"), standbys=2)
        wait_until("the standbys are warm", lambda: all_are_warm(running))
        fds = len(running.daemon.fds())
        yield running
        wait_until("the standbys are warm again", lambda: all_are_warm(running))
        wait_until("its descriptors are closed", lambda: len(running.daemon.fds()) <= fds + 2)
        running.stop()


def all_are_warm(running: CrashDaemon) -> bool:
    with stateful(running.socket), open_channel(running.socket, "slow"):
        return all(len(running.warm(model)) == 2 for model in ("m", "slow"))


class Everybody:
    """Clients that do a bit of everything, and compare every answer."""

    def __init__(
        self, running: CrashDaemon, neighbour: Stateful, busy: Stateful, slow: _core.Channel
    ) -> None:
        self.running = running
        self.neighbour = neighbour
        self.busy = busy
        self.slow = slow

    def round(self) -> None:
        self.running.check(self.busy)
        self.running.check(self.neighbour)
        give_up_on(self.slow)
        with stateful(self.running.socket) as passing:
            self.running.check(passing)


@contextlib.contextmanager
def everybody(running: CrashDaemon) -> Iterator[Everybody]:
    with (
        stateful(running.socket) as neighbour,
        stateful(running.socket) as busy,
        open_channel(running.socket, "slow", policy="block") as slow,
    ):
        for model in ("m", "slow"):
            wait_until(f"a standby of {model} is warm", lambda m=model: running.warm(m))
        yield Everybody(running, neighbour, busy, slow)


def until_hit(running: CrashDaemon, point: str, provoke: Callable[[], object]) -> int:
    """Do it again and again until a process came past the point; which one."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        provoke()
        if pid := running.orders.victim(point):
            return pid
    running.orders.take_back(point)
    raise AssertionError(f"nobody came past {point}: say in this file how to get there, or take it out")


# --- The supervisor, killed: before the daemon that the others share is there -------------------------------


def kill_active(running: CrashDaemon) -> None:
    """Kill the worker that serves; one that the supervisor has just ended by itself will do as well."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(wait_until("a worker serves it", lambda: running.active("m")), signal.SIGKILL)


def provocation(running: CrashDaemon, point: str) -> Callable[[], object]:
    """How to have the supervisor come past a point."""

    def open_and_close() -> None:
        with stateful(running.socket):
            pass

    def say_close() -> None:
        with RawClient(running.socket) as client:
            opened = client.open("m")
            opened.close_fds()
            client.ok("close", channel=opened.body["channel"])

    if point in OF_SUCCESSORS:
        return partial(kill_active, running)
    return say_close if point.startswith("supervisor.close") else open_and_close


@pytest.mark.parametrize("point", OF_THE_SUPERVISOR)
def test_the_supervisor_killed_at(tmp_path: Path, point: str) -> None:
    with leaves_nothing():
        running = CrashDaemon(tmp_path, standbys=1 if point in OF_SUCCESSORS else 0)
        with stateful(running.socket) as client, contextlib.ExitStack() as ended:
            ended.callback(running.control.close)
            if point in OF_SUCCESSORS:
                wait_until("a standby of m is warm", lambda: running.warm("m"))
            provoke = provocation(running, point)
            running.orders.give(point, "KILL")
            # It goes in the middle of it.
            with contextlib.suppress(SidecamlError, OSError, AssertionError):
                provoke()
            assert running.daemon.process.wait(60) == -signal.SIGKILL
            with pytest.raises(SidecamlError) as told:
                for _ in range(ROUNDS):
                    client.call()
            assert told.value.code is ErrorCode.SERVER_GONE


def test_a_worker_killed_when_it_has_finished_at_the_end(tmp_path: Path) -> None:
    with leaves_nothing():
        running = CrashDaemon(tmp_path, standbys=0)
        with stateful(running.socket) as client:
            running.check(client)
            (point,) = AT_THE_END
            running.orders.give(point, "KILL")
            running.stop()
            assert running.orders.victim(point)
            with pytest.raises(SidecamlError) as told:
                client.call()
            assert told.value.code is ErrorCode.SERVER_GONE


# --- Workers ------------------------------------------------------------------------------------------------


@both_actions
@pytest.mark.parametrize("point", [name for name in of_side("worker") if name not in AT_THE_END])
def test_a_worker_at(crashing: CrashDaemon, point: str, action: str) -> None:
    with everybody(crashing) as clients:
        clients.round()
        if point in AFTER:
            # No other request is to come past the places where this one's workers die.
            await_quiet(clients.slow)
            after_others_died(crashing, point, action)
        else:
            crashing.orders.give(point, action)
            if point in OF_SUCCESSORS:
                kill_active(crashing)
            pid = until_hit(crashing, point, clients.round)
            wait_until("it is over, or was never stopped for good", lambda: not is_alive(pid))
        clients.round()
        wait_until("only three channels are open", lambda: len(crashing.rows()) == 3)


def after_others_died(running: CrashDaemon, point: str, action: str) -> None:
    """One request whose workers die, one after the other, the last of them at the point."""
    with stateful(running.socket) as poisoned:
        running.check(poisoned)
        number = poisoned.calls
        answered: list[bytes | SidecamlError] = []

        def call() -> None:
            try:
                answered.append(poisoned.call())
            except SidecamlError as error:
                answered.append(error)

        caller = threading.Thread(target=call)
        # Before it begins: a successor is there sooner than this test hears of the death.
        for place, times in Counter(AFTER[point]).items():
            running.orders.give(place, *["KILL"] * times)
        running.orders.give(point, action)
        caller.start()
        for place in (*AFTER[point], point):
            wait_until(f"a worker came past {place}", lambda p=place: running.orders.victim(p))
        caller.join()
        if point == "worker.only-publishing":
            assert answered == [running.expected[number]]
        else:
            assert isinstance(answered[0], SidecamlError)
            assert answered[0].code is ErrorCode.WORKER_CRASHED
            # What killed its workers did not touch the state: the next call is as that one would have been.
            poisoned.calls = number
        running.check(poisoned)


# --- Clients ------------------------------------------------------------------------------------------------


@both_actions
@pytest.mark.parametrize("point", [name for name in of_side("client") if not name.startswith(OF_AN_OPEN)])
def test_a_client_at(crashing: CrashDaemon, point: str, action: str) -> None:
    with stateful(crashing.socket) as neighbour, victim(crashing) as client:
        crashing.check(neighbour)
        assert client.stdin is not None
        assert client.stdout is not None
        crashing.orders.give(point, action)
        client.stdin.write(b"go on\n")
        client.stdin.flush()
        assert wait_until(f"it came past {point}", lambda: crashing.orders.victim(point)) == client.pid
        for _ in range(3):
            crashing.check(neighbour)
        if action == "KILL":
            assert client.wait() == -signal.SIGKILL
        else:
            client.send_signal(signal.SIGCONT)
            lines = client.stdout.read().decode().split()
            assert lines == [*(bits.hex() for bits in crashing.expected[:CALLS]), "done"]
            assert client.wait() == 0
        wait_until("its channels are gone", lambda: len(crashing.rows()) == 1)
        crashing.check(neighbour)


@both_actions
@pytest.mark.parametrize("language", ["c", "python"])
@pytest.mark.parametrize("point", [name for name in of_side("client") if name.startswith(OF_AN_OPEN)])
def test_a_client_that_opens_at(crashing: CrashDaemon, point: str, language: str, action: str) -> None:
    with stateful(crashing.socket) as neighbour:
        crashing.check(neighbour)
        crashing.orders.give(point, action)
        with opener(crashing, language) as client:
            assert client.stdout is not None
            assert wait_until(f"it came past {point}", lambda: crashing.orders.victim(point)) == client.pid
            for _ in range(3):
                crashing.check(neighbour)
            with stateful(crashing.socket) as passing:
                crashing.check(passing)
            if action == "KILL":
                assert client.wait() == -signal.SIGKILL
            else:
                client.send_signal(signal.SIGCONT)
                assert client.stdout.read().decode().split() == [crashing.expected[0].hex(), "done"]
                assert client.wait() == 0
        wait_until("its channel is gone", lambda: len(crashing.rows()) == 1)
        crashing.check(neighbour)


# --- The supervisor, stopped --------------------------------------------------------------------------------


@pytest.mark.parametrize("point", OF_THE_SUPERVISOR)
def test_the_supervisor_stopped_at(crashing: CrashDaemon, point: str) -> None:
    with stateful(crashing.socket) as neighbour:
        wait_until("a standby of m is warm", lambda: crashing.warm("m"))
        crashing.check(neighbour)
        provoke = threading.Thread(target=provocation(crashing, point))
        crashing.orders.give(point, "STOP")
        provoke.start()
        try:
            pid = wait_until(f"it came past {point}", lambda: crashing.orders.victim(point))
            assert pid == crashing.daemon.process.pid
            # Whoever has a channel and a worker does not need it.
            if point not in OF_SUCCESSORS:
                crashing.check(neighbour)
        finally:
            os.kill(crashing.daemon.process.pid, signal.SIGCONT)
            provoke.join()
        crashing.check(neighbour)
        wait_until("only one channel is open", lambda: len(crashing.rows()) == 1)


def test_every_point_has_a_side_and_a_name_of_its_own() -> None:
    times = Counter(points())
    assert set(times) == {*of_side("client"), *of_side("worker"), *of_side("supervisor")}
    for name, count in times.items():
        assert count == (2 if name.startswith(OF_AN_OPEN) else 1), f"{name}: {count} times"
    assert len(times) > 40

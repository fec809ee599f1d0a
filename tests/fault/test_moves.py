"""Channels move between a model's instances under load, whoever dies at any step: no answer is wrong.

Each channel carries the sum of all that was ever sent on it, so a request that was lost or ran twice shows.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import StartDaemon, leaves_nothing
from crash_build import Orders, build, of_side
from daemon_process import Daemon, RawClient, is_alive, wait_until
from moving_callers import PATIENCE_S, Caller, Program, Stage, TogetherCaller, configured, places, staged
from service_manager import ServiceManager

from ipc_server.abi import PAGE_BYTES
from ipc_server.decode import decode_status

# What the supervisor and the workers come past in a move, besides what they do at other times.
OF_SUPERVISOR = [name for name in of_side("supervisor") if name.startswith("supervisor.move.")]
OF_WORKERS = [
    *("worker.detaching", "worker.detached"),
    *("worker.attaching", "worker.resuming", "worker.resumed", "worker.formatted", "worker.attached"),
]


@pytest.mark.parametrize("lane", ["native", "python"])
def test_channels_move_under_load_until_each_has_an_instance(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    running = daemon({}, f"--config={configured(tmp_path, lane=lane)}")
    with staged(running.socket, running.log) as stage:
        for _ in range(2):
            pair = stage.together()
            for caller in pair:
                caller.busy.set()
            wait_until("they are apart", lambda p=pair: stage.are_apart(*p), PATIENCE_S)
            stage.await_calls(pair)
            stage.close()
        assert "took over" not in running.log()


def test_channels_whose_requests_run_together_move(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({}, f"--config={configured(tmp_path, 'rolled')}")
    with staged(running.socket, running.log, TogetherCaller) as stage:
        pair = stage.together()
        for caller in pair:
            caller.busy.set()
        wait_until("they are apart", lambda: stage.are_apart(*pair), PATIENCE_S)
        stage.await_calls(pair)
        for caller in pair:
            together = partial(batched_by_the_worker_of, running, caller.number)
            wait_until("requests of each run together", together, PATIENCE_S)


def batched_by_the_worker_of(running: Daemon, channel: int) -> int:
    """How many requests the instance of a channel has run together with others, so far."""
    with RawClient(running.socket) as asking:
        reply = asking.ask("inspect", channel=channel)
        try:
            page = os.pread(reply.fds[1], PAGE_BYTES, reply.body["page"] * PAGE_BYTES)
            return decode_status(page).batched
        finally:
            reply.close_fds()


def test_without_standbys_the_instances_stand_in_for_each_other(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({}, f"--config={configured(tmp_path)}")
    with staged(running.socket, running.log) as stage:
        stage.await_both()
        callers = stage.open(4)
        for caller in callers:
            caller.busy.set()
        for _ in range(2):
            stage.await_both()
            stage.await_calls(callers)
            os.kill(places(running.socket)[callers[0].number], signal.SIGKILL)
            stage.await_calls(callers)


def test_an_edition_that_retires_is_balanced_to_its_end(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({}, f"--config={configured(tmp_path)}")
    with staged(running.socket, running.log) as stage:
        pair = stage.together()
        old = set(running.workers())
        configured(tmp_path, policy="block")
        running.process.send_signal(signal.SIGHUP)
        running.wait_logged("the configuration is the new one")
        for caller in pair:
            caller.busy.set()
        wait_until("they are apart", lambda: stage.are_apart(*pair), PATIENCE_S)
        stage.await_calls(pair)
        assert {places(running.socket)[caller.number] for caller in pair} <= old
        stage.close()
        wait_until("the old workers are gone", lambda: not old & set(running.workers()), PATIENCE_S)


# --- The supervisor dies, or is stopped, in the middle of a move --------------------------------------------
#
# Before the daemon is there that the others share, and renews its workers.


def moving(stage: Stage, orders: Orders, point: str, action: str) -> list[Caller]:
    """Have two channels of one instance be busy, and somebody obey when they come past the point."""
    pair = stage.together()
    orders.give(point, action)
    for caller in pair:
        caller.busy.set()
    return pair


@pytest.mark.parametrize("action", ["KILL", "STOP"])
@pytest.mark.parametrize("point", OF_SUPERVISOR)
def test_the_supervisor_at(tmp_path: Path, point: str, action: str) -> None:
    orders = Orders(tmp_path / "orders")
    command = [sys.executable, "-m", "ipc_server.cli", "serve", f"--config={configured(tmp_path)}"]
    with ServiceManager(tmp_path, command, env=orders.environment(build())) as manager:
        first = manager.start()
        with staged(tmp_path / "sidecaml.sock", manager.log) as stage:
            pair = moving(stage, orders, point, action)
            pid = wait_until(f"it came past {point}", lambda: orders.victim(point), PATIENCE_S)
            assert pid == first
            if action == "STOP":
                manager.send_signal(signal.SIGCONT)
            else:
                wait_until("it is started again", lambda: manager.state()["starts"] == 2, PATIENCE_S)
                manager.wait_ready()
            stage.await_calls(pair)
            wait_until("they are apart", lambda: stage.are_apart(*pair), PATIENCE_S)
            stage.await_calls(pair)
        assert "another ABI" not in manager.log()


# --- Workers that die in the middle of a move ---------------------------------------------------------------


class Crashing:
    """A daemon of the build with crash points, and the orders to die."""

    def __init__(self, folder: Path) -> None:
        self.orders = Orders(folder / "orders")
        environment = self.orders.environment(build())
        # Whoever is stopped is killed soon, but not who was not run for a moment.
        config = configured(folder, worker_timeout_s=3)
        self.running = Daemon(folder, {}, f"--config={config}", env=environment)


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashing]:
    with leaves_nothing():
        made = Crashing(tmp_path_factory.mktemp("moves"))
        yield made
        made.running.stop()


@pytest.fixture
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test, but for those whose daemon lives on and renews its workers."""
    if "crashing" in request.fixturenames:
        yield
        return
    with leaves_nothing():
        yield


@pytest.mark.parametrize(
    ("point", "action"),
    [*((point, "KILL") for point in OF_WORKERS), ("worker.detached", "STOP"), ("worker.attaching", "STOP")],
)
def test_a_worker_at(crashing: Crashing, point: str, action: str) -> None:
    with staged(crashing.running.socket, crashing.running.log) as stage:
        pair = moving(stage, crashing.orders, point, action)
        pid = wait_until(f"a worker came past {point}", lambda: crashing.orders.victim(point), PATIENCE_S)
        wait_until("it is over", lambda: not is_alive(pid), PATIENCE_S)
        stage.await_calls(pair)
        for caller in stage.callers:
            caller.busy.set()
        stage.await_calls(stage.callers)


@pytest.mark.parametrize("point", OF_SUPERVISOR)
def test_clients_die_in_the_middle_of_a_move(crashing: Crashing, point: str) -> None:
    socket = crashing.running.socket
    with staged(socket, crashing.running.log) as stage:
        stage.await_both()
        (other,) = stage.open(1)
        programs = [Program(socket) for _ in range(3)]
        try:
            found = places(socket)
            crashing.orders.give(point, "STOP")
            for program in programs:
                # Two of them have an instance to themselves.
                if found[program.number] != found[other.number]:
                    program.begin()
            pid = wait_until(f"it came past {point}", lambda: crashing.orders.victim(point), PATIENCE_S)
            assert pid == crashing.running.process.pid
        finally:
            for program in programs:
                program.kill()
        os.kill(pid, signal.SIGCONT)
        wait_until("only one channel is open", lambda: list(places(socket)) == [other.number], PATIENCE_S)
        other.busy.set()
        stage.await_calls([other])

"""A worker dies and its clients see a slow call: a standby, or the next worker, goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import models
import numpy as np
import pytest
from channels import double, open_channel, serves_others, submit_slow
from conftest import StartDaemon
from daemon_process import REPOSITORY, Daemon, RawClient, environment, is_alive, wait_until
from served import LANES

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.client import Channel, open_model
from ipc_server.errors import SidecamlError

PROBE = REPOSITORY / "_build/default/ocaml_lib/bin/probe.exe"
CALLABLES = Path(__file__).resolve().parents[1] / "callables"
PATIENCE_S = 60
# Some 20 µs each.
SOME_MS = 2_000
MOST_KILLS = 5

every_lane = pytest.mark.parametrize("lane", LANES)


class Roles:
    """Which process of a daemon is what, by its log and its answers."""

    def __init__(self, running: Daemon, model: str) -> None:
        self.running = running
        self.model = model
        self.supervisor = RawClient(running.socket)

    def active(self) -> int:
        rows = self.supervisor.ok("channels")["channels"]
        return next((row["worker_pid"] for row in rows if row["model"] == self.model), 0)

    def standbys(self) -> list[int]:
        """List those that are ready."""
        lines = [line for line in self.running.log().splitlines() if f"model {self.model}: standby " in line]
        warm = [int(line.split(" standby ")[1].split()[0]) for line in lines if " is warm " in line]
        return [pid for pid in warm if pid != self.active() and is_alive(pid)]

    def await_standby(self) -> int:
        return wait_until(f"a standby of {self.model} is warm", self.standbys, PATIENCE_S)[0]

    def await_active(self) -> int:
        return wait_until("a worker serves it", self.active, PATIENCE_S)

    def kill_active(self) -> int:
        """Kill one that lives: one that was killed before may still be told of."""
        pid = wait_until("a worker serves it", self._living, PATIENCE_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return pid

    def _living(self) -> int:
        pid = self.active()
        return pid if pid and is_alive(pid) else 0


@contextlib.contextmanager
def roles(running: Daemon, model: str) -> Iterator[Roles]:
    found = Roles(running, model)
    try:
        yield found
    finally:
        found.supervisor.close()


@pytest.fixture
def serve(daemon: StartDaemon, tmp_path: Path) -> Callable[..., Daemon]:
    """Start a daemon that serves `slow` or `scalar`, with one standby each unless told otherwise."""

    def start(*served: str, lane: str = "native", standbys: int = 1, extra: str = "") -> Daemon:
        config = tmp_path / "takeover.toml"
        makers = {"slow": models.slow, "scalar": models.scalar}
        config.write_text("".join([extra, *(f"\n[models.{name}]\nlane = '{lane}'\n" for name in served)]))
        built = {name: makers[name](tmp_path / f"{name}.onnx") for name in served}
        return daemon(built, f"--config={config}", standbys=standbys)

    return start


# --- The client sees a slow call ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lane", "policy"),
    [("native", "spin"), ("native", "adaptive"), ("native", "block"), ("python", "adaptive")],
)
def test_a_killed_worker_is_a_slow_call(serve: Callable[..., Daemon], lane: str, policy: str) -> None:
    running = serve("scalar", "slow", lane=lane)
    with (
        open_channel(running.socket, "scalar", policy=policy) as idle,
        open_channel(running.socket, "slow", policy=policy) as busy,
        roles(running, "scalar") as scalar,
        roles(running, "slow") as slow,
    ):
        scalar.await_standby()
        dead = scalar.kill_active()
        assert double(idle, 4.0) == 8.0
        assert scalar.active() not in (0, dead)
        slow.await_standby()
        slot = submit_slow(busy, SOME_MS)
        time.sleep(0.02)
        slow.kill_active()
        busy.wait(slot)
        busy.release(slot)
        assert double(idle, 5.0) == 10.0


@every_lane
def test_many_channels_are_taken_over_and_each_has_its_own_answer(
    serve: Callable[..., Daemon], lane: str
) -> None:
    running = serve("scalar", lane=lane)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_channel(running.socket, "scalar", slots=2)) for _ in range(40)]
        scalar = stack.enter_context(roles(running, "scalar"))
        for attempt in range(3):
            scalar.await_standby()
            slots = [submit_scalar(channel, number + attempt) for number, channel in enumerate(opened)]
            scalar.kill_active()
            slots = [
                (slot, submit_scalar(channel, -1.0 - number))
                for number, (slot, channel) in enumerate(zip(slots, opened, strict=True))
            ]
            for number, (channel, (first, second)) in enumerate(zip(opened, slots, strict=True)):
                assert answer(channel, first) == 2.0 * (number + attempt)
                assert answer(channel, second) == 2.0 * (-1.0 - number)


def submit_scalar(channel: _core.Channel, value: float) -> int:
    slot = channel.claim()
    np.frombuffer(channel.tensor(slot, 0), np.float32)[0] = value
    channel.submit()
    return slot


def answer(channel: _core.Channel, slot: int) -> float:
    channel.wait(slot)
    found = float(np.frombuffer(channel.tensor(slot, 1), np.float32)[0])
    channel.release(slot)
    return found


@pytest.mark.parametrize("standbys", [0, 2])
def test_any_number_of_standbys(serve: Callable[..., Daemon], standbys: int) -> None:
    running = serve("scalar", standbys=standbys)
    with open_channel(running.socket, "scalar") as channel, roles(running, "scalar") as scalar:
        for value in range(3):
            wait_until("they are warm", lambda: len(scalar.standbys()) == standbys, PATIENCE_S)
            scalar.kill_active()
            assert double(channel, value) == 2.0 * value


def test_a_killed_standby_is_replaced_and_nobody_notices(serve: Callable[..., Daemon]) -> None:
    running = serve("scalar")
    with open_channel(running.socket, "scalar") as channel, roles(running, "scalar") as scalar:
        before = scalar.active()
        dead = scalar.await_standby()
        os.kill(dead, signal.SIGKILL)
        assert double(channel, 1.0) == 2.0
        wait_until("it is gone", lambda: not is_alive(dead))
        assert scalar.await_standby() != dead
        assert scalar.active() == before
        running.wait_logged(f"model scalar: standby {dead} was killed by SIGKILL")


def test_worker_and_standby_killed_at_once(serve: Callable[..., Daemon]) -> None:
    running = serve("scalar")
    with open_channel(running.socket, "scalar") as channel, roles(running, "scalar") as scalar:
        for value in (1.0, 2.0):
            pids = [scalar.await_standby(), scalar.await_active()]
            slot = submit_scalar(channel, value)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            assert answer(channel, slot) == 2.0 * value
            # Those that are still dying would pass for others in the next round.
            wait_until("they are over", lambda pids=pids: not any(map(is_alive, pids)))


def test_successors_killed_while_they_take_over(serve: Callable[..., Daemon]) -> None:
    # However slow a take-over is, and often they die in the same request.
    running = serve("scalar", standbys=2, extra="[limits]\nmax_attempts = 7")
    chance = random.Random(5)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_channel(running.socket, "scalar")) for _ in range(30)]
        scalar = stack.enter_context(roles(running, "scalar"))
        for value in range(4):
            wait_until("both are warm", lambda: len(scalar.standbys()) == 2, PATIENCE_S)
            standbys = scalar.standbys()
            slots = [submit_scalar(channel, value) for channel in opened]
            dead = scalar.kill_active()
            wait_until("it is known", lambda d=dead: scalar.active() != d)
            time.sleep(chance.uniform(0, 0.01))
            killed = standbys[: value % 2 + 1]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            assert [answer(channel, slot) for channel, slot in zip(opened, slots, strict=True)] == (
                [2.0 * value] * len(opened)
            )
            # Those that are still dying would pass for warm ones in the next round.
            wait_until("they are over", lambda pids=[*killed, dead]: not any(map(is_alive, pids)))


def test_an_open_waits_for_the_next_worker(serve: Callable[..., Daemon]) -> None:
    running = serve("scalar", standbys=0)
    with open_channel(running.socket, "scalar"), roles(running, "scalar") as scalar:
        scalar.kill_active()
        assert serves_others(running)


def test_channels_closed_while_there_is_no_worker_leave_nothing(serve: Callable[..., Daemon]) -> None:
    running = serve("scalar", standbys=0)
    with open_channel(running.socket, "scalar") as kept, roles(running, "scalar") as scalar:
        before = len(running.fds())
        passing = [open_channel(running.socket, "scalar") for _ in range(10)]
        with contextlib.ExitStack() as stack:
            for channel in passing:
                stack.enter_context(channel)
            scalar.kill_active()
        assert double(kept, 1.0) == 2.0
        wait_until("they are gone", lambda: len(scalar.supervisor.ok("channels")["channels"]) == 1)
        wait_until("their descriptors are closed", lambda: len(running.fds()) <= before)


def test_a_model_that_can_be_loaded_no_more_ends_its_channels(
    serve: Callable[..., Daemon], tmp_path: Path
) -> None:
    running = serve("scalar", standbys=0)
    with open_model("scalar", socket=str(running.socket)) as channel, roles(running, "scalar") as scalar:
        (tmp_path / "scalar.onnx").unlink()
        scalar.kill_active()
        with pytest.raises(SidecamlError, match="no other can be had") as caught:
            channel.run(timeout=PATIENCE_S)
        assert caught.value.code is ErrorCode.SERVER_GONE


@pytest.mark.parametrize("stage", ["submitted", "running"])
def test_a_model_that_can_be_loaded_no_more_ends_what_was_asked_of_it(
    serve: Callable[..., Daemon], tmp_path: Path, stage: str
) -> None:
    running = serve("slow", standbys=0)
    with open_channel(running.socket, "slow") as channel, roles(running, "slow") as slow:
        worker = slow.await_active()
        (tmp_path / "slow.onnx").unlink()
        if stage == "submitted":
            os.kill(worker, signal.SIGSTOP)
        slot = submit_slow(channel, 100 * SOME_MS)
        time.sleep(0.1)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(SidecamlError, match="gone") as caught:
            channel.wait(slot)
        assert caught.value.code is ErrorCode.SERVER_GONE


def test_a_model_that_can_be_loaded_no_more_is_not_opened_any_more(
    serve: Callable[..., Daemon], tmp_path: Path
) -> None:
    running = serve("scalar", standbys=0)
    with open_channel(running.socket, "scalar"), roles(running, "scalar") as scalar:
        worker = scalar.await_active()
        (tmp_path / "scalar.onnx").unlink()
        os.kill(worker, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(open_model, "scalar", socket=str(running.socket))
            time.sleep(0.1)
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(SidecamlError, match=r"scalar\.onnx") as caught:
                opening.result()
        assert caught.value.code is ErrorCode.MODEL_FAILED


def test_a_model_that_has_changed_meanwhile_ends_its_channels(
    serve: Callable[..., Daemon], tmp_path: Path
) -> None:
    running = serve("scalar", standbys=0)
    with open_model("scalar", socket=str(running.socket)) as channel, roles(running, "scalar") as scalar:
        models.identity("float32", (3,), tmp_path / "scalar.onnx")
        scalar.kill_active()
        with pytest.raises(SidecamlError, match="the model has changed since") as caught:
            channel.run(timeout=PATIENCE_S)
        assert caught.value.code is ErrorCode.SERVER_GONE
    with open_model("scalar", socket=str(running.socket)) as again:
        again.input("x")[...] = 7.0
        again.run(timeout=PATIENCE_S)
        assert again.output("y").tolist() == [7.0] * 3


def test_a_killed_supervisor_is_server_gone_and_takes_the_standbys_along(
    serve: Callable[..., Daemon],
) -> None:
    running = serve("slow")
    with open_channel(running.socket, "slow") as channel:
        with roles(running, "slow") as slow:
            slow.await_standby()
        workers = running.workers()
        slot = submit_slow(channel, 50_000_000)
        running.kill()
        with pytest.raises(SidecamlError) as caught:
            channel.wait(slot)
        assert caught.value.code is ErrorCode.SERVER_GONE
    wait_until("nobody is left", lambda: not any(map(is_alive, workers)))


# --- What is of no use any more -----------------------------------------------------------------------------


def test_a_stopped_worker_and_a_stopped_standby_are_ended(serve: Callable[..., Daemon]) -> None:
    running = serve("scalar", extra="[limits]\nworker_timeout_s = 3")
    with open_channel(running.socket, "scalar") as channel, roles(running, "scalar") as scalar:
        standby = scalar.await_standby()
        os.kill(standby, signal.SIGSTOP)
        running.wait_logged(f"standby {standby} was killed, because it was stopped")
        assert scalar.await_standby() != standby
        active = scalar.await_active()
        os.kill(active, signal.SIGSTOP)
        assert double(channel, 3.0) == 6.0
        running.wait_logged(f"worker {active} was killed, because it was stopped")


def test_idle_workers_answer_pings(serve: Callable[..., Daemon]) -> None:
    running = serve("scalar", extra="[limits]\nworker_timeout_s = 3")
    with open_channel(running.socket, "scalar") as channel, roles(running, "scalar") as scalar:
        scalar.await_standby()
        workers = running.workers()
        time.sleep(6)
        assert double(channel, 3.0) == 6.0
        assert running.workers() == workers


@every_lane
def test_a_stopped_worker_in_the_middle_of_a_run(serve: Callable[..., Daemon], lane: str) -> None:
    running = serve("slow", lane=lane, extra="[limits]\nworker_timeout_s = 1")
    with open_channel(running.socket, "slow") as channel, roles(running, "slow") as slow:
        slow.await_standby()
        slot = submit_slow(channel, SOME_MS)
        time.sleep(0.02)
        os.kill(slow.await_active(), signal.SIGSTOP)
        channel.wait(slot)
        channel.release(slot)


# --- Requests that kill -------------------------------------------------------------------------------------


class Bad:
    """A daemon that serves a function that misbehaves on request."""

    def __init__(self, running: Daemon, quarantine: Path) -> None:
        self.running = running
        self.quarantine = quarantine

    def open(self, **how: object) -> Channel:
        return open_model("bad", socket=str(self.running.socket), **how)

    def kept(self) -> list[Path]:
        return sorted(self.quarantine.iterdir()) if self.quarantine.exists() else []


def ask(channel: Channel, value: float) -> float:
    channel.input("x", channel.claim())[...] = value
    slot = channel.run(PATIENCE_S)
    return float(channel.output(channel.model.signature.outputs[0].name, slot).reshape(-1)[0])


def fill(place: np.ndarray, number: int) -> None:
    place[...] = np.arange(1, place.size + 1).reshape(place.shape) + number


@pytest.fixture
def serve_bad(daemon: StartDaemon, tmp_path: Path) -> Callable[..., Bad]:
    def start(function: str, extra: str = "", standbys: int = 1, limits: str = "") -> Bad:
        config, quarantine = tmp_path / "bad.toml", tmp_path / "kept"
        config.write_text(
            f'quarantine = "{quarantine}"\n{limits}\n[models.bad]\nengine = "python"\n'
            f'callable = "hooks:{function}"\npython_path = ["{CALLABLES}"]\n{extra}\n'
        )
        return Bad(daemon({}, f"--config={config}", standbys=standbys), quarantine)

    return start


@pytest.mark.parametrize(("function", "ending"), [("ends", "exited with code 7"), ("wild_write", "SIGSEGV")])
def test_a_request_that_kills_is_given_up_and_kept(
    serve_bad: Callable[..., Bad], function: str, ending: str
) -> None:
    bad = serve_bad(function)
    with bad.open() as channel, bad.open() as neighbour:
        with pytest.raises(SidecamlError) as caught:
            ask(channel, 1)
        assert caught.value.code is ErrorCode.WORKER_CRASHED
        (place,) = bad.kept()
        assert str(caught.value).endswith(
            f"2 workers died while they ran this request: it is not run again; its inputs are in {place}"
        )
        bad.running.wait_logged(ending, times=2)
        # The channel itself goes on, and so does every other.
        assert ask(channel, 0) == ask(neighbour, 0) == 0
    about = json.loads((place / "request.json").read_text())
    assert (about["model"], about["attempts"]) == ("bad", 2)
    assert np.load(place / about["inputs"][0]["file"]).tolist() == [1.0]


def test_what_was_kept_is_run_again_by_the_probe(serve_bad: Callable[..., Bad]) -> None:
    types = {"a": "bfloat16[2]", "b": "int4[3]", "c": "bool[]", "d": "float8e4m3fn[2,2]", "e": "float32[N]"}
    types["f"] = "complex64[1]"
    inputs = ", ".join(f'{name} = "{text}"' for name, text in types.items())
    bad = serve_bad(
        "ends_whatever_comes",
        extra=f'inputs = {{ {inputs} }}\noutputs = {{ y = "float32[1]" }}',
        limits="[limits]\nmax_attempts = 1",
    )
    with bad.open(dims={"N": 5}) as channel:
        channel.claim()
        channel.set_dims("e", (3,))
        for number, name in enumerate(types):
            fill(channel.input(name), number)
        with pytest.raises(SidecamlError, match="1 workers died"):
            channel.run(PATIENCE_S)
    (first,) = bad.kept()
    command = shlex.split(json.loads((first / "request.json").read_text())["run"])
    ran = subprocess.run(
        [PROBE, *command[1:], f"--socket={bad.running.socket}"],
        cwd=first,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 1
    assert "WORKER_CRASHED" in ran.stderr
    # It ended the worker in the same way, so that its inputs were kept as well: they are the same.
    (second,) = [place for place in bad.kept() if place != first]
    files = sorted(file.name for file in first.glob("*.npy"))
    assert len(files) == len(types)
    assert [(second / name).read_bytes() for name in files] == [(first / name).read_bytes() for name in files]


def test_a_channel_that_keeps_killing_is_evicted(serve_bad: Callable[..., Bad]) -> None:
    bad = serve_bad("ends", limits="[limits]\nmax_attempts = 1\nmax_poisoned_per_channel = 2")
    with bad.open() as channel, bad.open() as neighbour:
        for _ in range(2):
            with pytest.raises(SidecamlError) as caught:
                ask(channel, 1)
            assert caught.value.code is ErrorCode.WORKER_CRASHED
        with pytest.raises(SidecamlError, match="2 of its requests killed every worker"):
            wait_until("it is evicted", lambda: ask(channel, 0))
        assert ask(neighbour, 0) == 0


def test_a_hang_costs_its_longest_run_twice(serve_bad: Callable[..., Bad]) -> None:
    bad = serve_bad("never_returns", extra="longest_run_s = 1")
    with bad.open() as channel:
        began = time.monotonic()
        with pytest.raises(SidecamlError) as caught:
            ask(channel, 1)
        assert caught.value.code is ErrorCode.WORKER_CRASHED
        assert time.monotonic() - began > 2
        # How a worker ended is logged when it is reaped: after its successor took over.
        bad.running.wait_logged("ran for longer than longest_run_s = 1", times=2)
        assert ask(channel, 0) == 0


@pytest.mark.parametrize("standbys", [0, 1])
def test_requests_behind_one_that_kills_are_answered(serve_bad: Callable[..., Bad], standbys: int) -> None:
    bad = serve_bad("ends", standbys=standbys)
    with bad.open(slots=4) as channel:
        slots = []
        for value in (0, 1, 0, 0):
            slot = channel.claim()
            channel.input("x", slot)[...] = value
            channel.submit()
            slots.append(slot)
        outcomes = []
        for slot in slots:
            try:
                channel.await_(slot)
                outcomes.append("answered")
                channel.release(slot)
            except SidecamlError as error:
                outcomes.append(error.name)
        assert outcomes == ["answered", "WORKER_CRASHED", "answered", "answered"]


# --- Carried state ------------------------------------------------------------------------------------------


def steps(channel: Channel, count: int) -> list[bytes]:
    found = []
    for x in range(count):
        slot = channel.claim()
        channel.input("x", slot)[...] = x % 7
        channel.input("shape", slot)[...] = 8
        channel.submit()
        channel.await_(slot)
        found.append(channel.output("y", slot).tobytes())
        channel.release(slot)
    return found


@every_lane
def test_carried_state_is_never_applied_twice_and_never_lost(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    config = tmp_path / "state.toml"
    model = models.recurrent(tmp_path / "m.onnx")
    # However slow a take-over is, and often workers die in the same request.
    config.write_text(
        "[limits]\nmax_attempts = 7\n"
        f'[models.m]\npath = "{model}"\nlane = "{lane}"\nstate = {{ next = "state" }}\n'
    )
    running = daemon({}, f"--config={config}", standbys=2)
    calls = 5_000
    done = threading.Event()
    kills = []

    def kill_now_and_then() -> None:
        chance = random.Random(11)
        with roles(running, "m") as m:
            while not done.is_set() and len(kills) < MOST_KILLS:
                m.await_standby()
                time.sleep(chance.uniform(0, 0.05))
                kills.append(m.kill_active())

    with open_model("m", socket=str(running.socket)) as channel:
        expected = steps(channel, calls)
        channel.reset()
        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        found = steps(channel, calls)
        while len(kills) < MOST_KILLS:
            channel.reset()
            assert steps(channel, calls) == expected
        done.set()
        killer.join()
        assert found == expected

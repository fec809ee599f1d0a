"""A user who has workers die of requests that nobody waits for: that ends, and costs nobody else a channel.

The tests run as root, so that there is another user; as anybody else there is nothing to show.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from channels import attach
from daemon_process import Daemon, RawClient, wait_until
from one_worker import function, one_worker
from users import STRANGER, Child, is_root, open_folder

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.client import open_model
from ipc_server.errors import SidecamlError
from ipc_server.watch import is_stopped

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
PATIENCE_S = 60
# Of workers, that may die of one user's requests: max_attempts and max_poisoned_per_channel are 1.
ALLOWED = 3
# More than that, as one that is given up before it runs kills nobody.
ROUNDS = 100


@pytest.fixture
def running() -> Iterator[Daemon]:
    """Serve a function that a request which is not 0 kills."""
    with open_folder() as folder:
        config = folder / "bad.toml"
        config.write_text(
            f'[access]\nusers = [{STRANGER}]\nsocket_mode = "0666"\n'
            "[limits]\nmax_attempts = 1\nmax_poisoned_per_channel = 1\nmax_opens_per_second = 1000\n"
            f'[models.bad]\nengine = "python"\ncallable = "hooks:ends"\npython_path = ["{CALLABLES}"]\n'
        )
        daemon = Daemon(folder, {}, f"--config={config}", standbys=0)
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log(), daemon.log()


@pytest.mark.parametrize("alone", [False, True])
def test_a_channel_that_is_kept_apart_has_no_part_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    runs = tmp_path / "runs"
    monkeypatch.setenv("RUNS", str(runs))
    numbers = range(1000, 1004)
    with one_worker(function("poison:triple", batching="any"), tmp_path / "log") as worker:
        channel = worker.attach({"N": 1}, slots=len(numbers), alone=alone).client
        # The first request of each slot is not for batches.
        for ran in (False, True):
            runs.write_bytes(b"")
            os.kill(worker.process.pid, signal.SIGSTOP)
            wait_until("the worker is stopped", lambda: is_stopped(worker.process.pid))
            for number in numbers:
                channel.input("x", channel.claim())[...] = number
                channel.set_dims("x", (1, 16), number - numbers[0])
                channel.submit()
            os.kill(worker.process.pid, signal.SIGCONT)
            for slot in range(len(numbers)):
                channel.await_(slot)
                channel.release(slot)
            if ran:
                each = [[number] for number in numbers]
                found = [[*map(int, line.split())] for line in runs.read_text("ascii").splitlines()]
                assert found == (each if alone else [[*numbers]])


def submit_killer(channel: _core.Channel, timeout_s: float = 0) -> int:
    slot = channel.claim()
    memoryview(channel.tensor(slot, 0)).cast("B")[:4] = b"\0\0\x80\x3f"
    channel.submit(int(time.monotonic_ns() + timeout_s * 1e9) if timeout_s else 0)
    return slot


def gives_up(channel: _core.Channel) -> None:
    slot = submit_killer(channel)
    time.sleep(0.02)
    channel.abandon(slot)


def has_a_deadline(channel: _core.Channel) -> None:
    slot = submit_killer(channel, 0.02)
    with contextlib.suppress(SidecamlError):
        channel.wait(slot)
        channel.release(slot)


def closes(channel: _core.Channel) -> None:
    submit_killer(channel)
    time.sleep(0.02)


def kill_until_refused(path: Path, kill: Callable[[_core.Channel], None]) -> str:
    for _ in range(ROUNDS):
        try:
            channel = attach(RawClient(path), "bad")
        except AssertionError as error:
            return str(error)
        with contextlib.suppress(SidecamlError):
            kill(channel)
        channel.close()
    return "never"


@pytest.mark.parametrize("kill", [gives_up, has_a_deadline, closes])
def test_who_has_workers_die_of_requests_that_nobody_waits_for_is_refused_in_the_end(
    running: Daemon, kill: Callable[[_core.Channel], None]
) -> None:
    if not is_root():
        return
    with open_model("bad", socket=str(running.socket)) as bystander:
        refusal = Child(lambda: kill_until_refused(running.socket, kill), STRANGER).result()
        assert ErrorCode.LIMIT.name in refusal
        assert f"{ALLOWED + 1} workers of model 'bad' died while they ran requests of" in refusal
        wait_until("a worker serves", running.workers)
        bystander.input("x", bystander.claim())[...] = 0
        slot = bystander.run(PATIENCE_S)
        assert float(bystander.output("output", slot)[0]) == 0

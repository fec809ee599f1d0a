"""A request that runs for longer than its model may: its worker is ended, and the log says why."""

from __future__ import annotations

import time
from pathlib import Path

import models
import pytest
from channels import double, open_channel, serves_others, submit_slow
from conftest import StartDaemon
from daemon_process import Daemon, wait_until
from served import LANES

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.client import open_model
from ipc_server.errors import SidecamlError

# A machine that stands still for a moment is not to make others too long.
LONGEST_S = 2
# Some 20 µs each.
FOR_EVER = 50_000_000
SOME_MS = 500


@pytest.fixture(params=LANES)
def served(daemon: StartDaemon, tmp_path: Path, request: pytest.FixtureRequest) -> Daemon:
    config = tmp_path / "longest.toml"
    config.write_text(f"[models.slow]\nlane = '{request.param}'\nlongest_run_s = {LONGEST_S}\n")
    built = {"slow": models.slow(tmp_path / "slow.onnx"), "scalar": models.scalar(tmp_path / "scalar.onnx")}
    return daemon(built, f"--config={config}")


def test_a_run_without_end_costs_its_workers_and_its_request_only(served: Daemon) -> None:
    with open_channel(served.socket, "scalar") as bystander:
        workers = served.workers()
        channel = open_model("slow", socket=str(served.socket))
        channel.input("n")[...] = FOR_EVER
        with channel, pytest.raises(SidecamlError) as caught:
            channel.run()
        assert caught.value.code is ErrorCode.WORKER_CRASHED
        assert "2 workers died while they ran this request" in str(caught.value)
        for part in ("model slow", f"longer than longest_run_s = {LONGEST_S}", "raise it"):
            served.wait_logged(part)
        assert double(bystander, 3.0) == 6.0
        wait_until("another worker serves it", lambda: len(served.workers()) == len(workers))
        assert len({*served.workers()} & {*workers}) == 1
    with open_channel(served.socket, "slow") as again:
        again.wait(submit_slow(again, 1))


def is_busy_after_giving_up(channel: _core.Channel) -> bool:
    """Submit and give up: a request that runs by then goes on running, one that does not never will."""
    channel.abandon(submit_slow(channel, FOR_EVER))
    try:
        channel.claim()
    except SidecamlError as error:
        return error.code is ErrorCode.BUSY
    return False


def test_a_run_that_its_client_has_given_up_is_ended_too(served: Daemon) -> None:
    with open_channel(served.socket, "slow") as channel:
        wait_until("one is given up that runs", lambda: is_busy_after_giving_up(channel))
        served.wait_logged("longest_run_s")
    assert serves_others(served)


def test_many_runs_may_take_longer_together(served: Daemon) -> None:
    workers = served.workers()
    with open_channel(served.socket, "slow", policy="spin") as channel:
        end = time.monotonic() + 3 * LONGEST_S
        while time.monotonic() < end:
            channel.wait(submit_slow(channel, SOME_MS))
            channel.release(0)
    assert served.workers() == workers


def test_a_worker_that_waits_for_requests_is_left_alone(served: Daemon) -> None:
    workers = served.workers()
    with open_channel(served.socket, "slow") as channel:
        for _ in range(2):
            channel.wait(submit_slow(channel, 1))
            channel.release(0)
            time.sleep(2 * LONGEST_S)
    assert served.workers() == workers

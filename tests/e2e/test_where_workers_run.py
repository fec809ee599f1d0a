"""A worker runs where its model's configuration says, or the model is not served and says why."""

from __future__ import annotations

import os
from pathlib import Path

import models
import pytest
from channels import double, open_channel
from conftest import StartDaemon
from daemon_process import RawClient

LAST = max(os.sched_getaffinity(0))


def configured(folder: Path, lines: str) -> str:
    path = models.scalar(folder / "m.onnx")
    file = folder / "m.toml"
    file.write_text(f'[models.m]\npath = "{path}"\n{lines}\n')
    return f"--config={file}"


def threads(pid: int) -> list[int]:
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


@pytest.mark.parametrize("lane", ["native", "python"])
def test_every_thread_of_a_worker_runs_where_and_how_it_is_told(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    lines = f"lane = '{lane}'\nthreads = 2\ncpus = '{LAST}'\nscheduling = 'batch'\nnice = 18"
    running = daemon({}, configured(tmp_path, lines), standbys=0)
    with open_channel(running.socket, "m") as channel:
        assert double(channel, 3.0) == 6.0
        (pid,) = running.workers()
        for thread in threads(pid):
            assert os.sched_getaffinity(thread) == {LAST}
            assert os.sched_getscheduler(thread) == os.SCHED_BATCH
            assert os.getpriority(os.PRIO_PROCESS, thread) == 18
    assert os.sched_getscheduler(running.process.pid) == os.SCHED_OTHER


def test_a_standby_is_not_scheduled_so_until_it_serves(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({}, configured(tmp_path, "scheduling = 'batch'"), standbys=1)
    running.wait_logged("is warm after")
    with open_channel(running.socket, "m"), RawClient(running.socket) as asking:
        (row,) = asking.ok("channels")["channels"]
        policies = {pid: os.sched_getscheduler(pid) for pid in running.workers()}
        assert policies.pop(row["worker_pid"]) == os.SCHED_BATCH
        assert list(policies.values()) == [os.SCHED_OTHER]


def test_a_model_whose_processors_are_not_there_is_not_served_and_says_why(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon({}, configured(tmp_path, "cpus = '8000'"), standbys=0)
    with RawClient(running.socket) as asking:
        name, message = asking.refused("open", model="m", slots=1)
    assert name == "MODEL_FAILED"
    assert "cpus = 8000: not possible: the worker may use processors" in message

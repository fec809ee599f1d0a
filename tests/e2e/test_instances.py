"""Several instances of a model: who serves what, what each of them says, and that they run side by side.

And one instance with clients of two priorities: whose requests come first.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import models
import pytest
from channels import double, open_channel
from conftest import StartDaemon
from daemon_process import Daemon, RawClient, environment, wait_until

from ipc_server.client import Channel, open_model

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
# So many runs of high priority in a row, and then one of normal priority that waits.
HIGH_IN_A_ROW = 8


def sidecaml(socket: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "ipc_server.cli", *arguments, "--socket", str(socket)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    return done.stdout


def test_two_instances_have_channels_workers_and_status_pages_of_their_own(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "two.toml"
    file.write_text(f'[models.m]\npath = "{models.scalar(tmp_path / "m.onnx")}"\ninstances = 2\n')
    running = daemon({}, f"--config={file}")
    wait_until("both are served", lambda: "2 of 2 instances served" in sidecaml(running.socket, "models"))
    with (
        open_channel(running.socket, "m") as one,
        open_channel(running.socket, "m") as other,
        RawClient(running.socket) as asking,
    ):
        for channel, calls in ((one, 3), (other, 5)):
            for number in range(calls):
                assert double(channel, number) == 2.0 * number
        rows = asking.ok("channels")["channels"]
        assert sorted(row["worker_pid"] for row in rows) == sorted(running.workers())
        for row, calls, page in zip(rows, (3, 5), (0, 1), strict=True):
            shown = sidecaml(running.socket, "inspect", str(row["channel"]))
            assert f"pid {row['worker_pid']}," in shown
            assert f"1 channel, {calls} served" in shown
            assert f"writes status page {page}" in shown


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    folder = tmp_path / "meeting"
    folder.mkdir()
    return folder


def serve(daemon: StartDaemon, meeting: Path, function: str, instances: int) -> Daemon:
    config = meeting.parent / f"{function}.toml"
    config.write_text(
        f'[models.m]\nengine = "python"\ncallable = "meeting:{function}"\n'
        f'python_path = ["{CALLABLES}"]\ninstances = {instances}\n'
    )
    running = daemon({}, f"--config={config}", env={"MEETING": str(meeting)})
    served = f"{instances} of {instances} instances served"
    wait_until("all are served", lambda: instances == 1 or served in sidecaml(running.socket, "models"))
    return running


def submit(channel: Channel, count: int = 1) -> None:
    for _ in range(count):
        channel.input("x", channel.claim())[...] = 0
        channel.submit()


def answers(channel: Channel, count: int = 1) -> list[int]:
    """Await the requests in the first slots."""
    found = []
    for slot in range(count):
        channel.await_(slot)
        found.append(int(channel.output("output", slot)[0]))
        channel.release(slot)
    return found


def test_two_instances_run_requests_of_two_clients_at_once(daemon: StartDaemon, meeting: Path) -> None:
    running = serve(daemon, meeting, "meets", 2)
    with (
        open_model("m", socket=str(running.socket)) as one,
        open_model("m", socket=str(running.socket)) as other,
    ):
        submit(one)
        submit(other)
        # Each is answered only while the other runs.
        assert sorted([*answers(one), *answers(other)]) == sorted(running.workers())


def test_a_high_priority_overtakes_what_others_have_lying_there(daemon: StartDaemon, meeting: Path) -> None:
    running = serve(daemon, meeting, "numbered", 1)
    with (
        open_model("m", socket=str(running.socket), slots=16) as normal,
        open_model("m", socket=str(running.socket), slots=16, priority="high") as high,
        RawClient(running.socket) as asking,
    ):
        submit(normal, 6)
        [row] = [row for row in asking.ok("channels")["channels"] if row["priority"] == "normal"]
        inspect = (running.socket, "inspect", str(row["channel"]))
        wait_until("the first of them runs", lambda: "RUNNING" in sidecaml(*inspect))
        submit(high, 12)
        (meeting / "go").touch()
        turn = 1 + HIGH_IN_A_ROW
        assert answers(high, 12) == [*range(1, turn), *range(turn + 1, 14)]
        assert answers(normal, 6) == [0, turn, *range(14, 18)]

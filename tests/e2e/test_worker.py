"""A worker process spoken to as the supervisor does, without one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from daemon_process import REPOSITORY, environment
from ring_pair import FINGERPRINT, Descriptors

from ipc_server import _core, messages, segment
from ipc_server.signature import Signature, signature_of

PATIENCE_S = 120


class WorkerUnderTest:
    """The process and the supervisor's end of its socket."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE_S)
        with theirs:
            command = [sys.executable, "-m", "ipc_server.worker", "--control-fd", str(theirs.fileno())]
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment(), pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
            )
        self._id = 0

    def ask(self, op: Any, fds: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
        self.tell(op, fds, **fields)
        return self.hear()

    def tell(self, op: Any, fds: tuple[int, ...] = (), **fields: Any) -> None:
        self._id += 1
        messages.send(self.control, {"id": self._id, "op": op, **fields}, fds)

    def hear(self) -> dict[str, Any]:
        reply = messages.receive(self.control)
        assert reply is not None
        return reply.body

    def refused(self, op: Any, fds: tuple[int, ...] = (), **fields: Any) -> tuple[str, str]:
        body = self.ask(op, fds, **fields)
        assert body["ok"] is False
        return body["error"], body["message"]

    def load(self, path: Path, **changes: Any) -> dict[str, Any]:
        given = {
            "name": "m",
            "engine": "onnx",
            "path": str(path),
            "threads": 1,
            "lane": "auto",
        }
        return self.ask("load", **{**given, **changes})

    def begin(self, status_fd: int, **changes: Any) -> dict[str, Any]:
        return self.ask("begin", (status_fd,), **{"policy": "adaptive", "max_attempts": 2, **changes})

    def ends(self) -> int:
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.control.close()
        self.process.wait(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def worker(nothing_left: None) -> Iterator[WorkerUnderTest]:
    started = WorkerUnderTest()
    yield started
    started.close()


def attach_fields(number: int, signature: Signature, slots: int) -> dict[str, Any]:
    tensors = [
        {
            "name": s.name,
            "dtype": s.dtype.name.lower(),
            "output": s.output,
            "dynamic": s.dynamic,
            "max_dims": s.max_dims,
            "text_bytes": s.text_bytes,
        }
        for s in signature.bind({})
    ]
    return {"channel": number, "slots": slots, "fingerprint": FINGERPRINT, "tensors": tensors}


class Opened:
    """A loaded worker with one channel, number 5."""

    def __init__(self, worker: WorkerUnderTest, path: Path, slots: int) -> None:
        tensors = {"slow": ([("n", 8, False, False, ())], [("y", 1, True, False, (128, 128))])}
        layout = _core.Layout([*tensors["slow"][0], *tensors["slow"][1]], slots, FINGERPRINT)
        self.made = Descriptors(layout)
        reply = worker.load(path)
        assert reply["ok"], reply
        self.signature = signature_of(reply)
        reply = worker.begin(self.made.status)
        assert reply["ok"], reply
        reply = worker.ask("attach", self.fds, **attach_fields(5, self.signature, slots))
        assert reply["ok"], reply
        self.channel = _core.Channel(*self.made.for_channel(), FINGERPRINT, _core.BLOCK)

    @property
    def fds(self) -> tuple[int, ...]:
        return (self.made.segment, self.made.request, self.made.answer, self.made.journal)

    def submit(self, products: int) -> int:
        slot = self.channel.claim()
        np.frombuffer(self.channel.tensor(slot, 0), np.int64)[0] = products
        return self.channel.submit()

    def close(self) -> None:
        self.channel.close()
        self.made.close()


@pytest.fixture
def opened(worker: WorkerUnderTest, tmp_path: Path) -> Iterator[Opened]:
    one = Opened(worker, models.slow(tmp_path / "slow.onnx"), 3)
    yield one
    one.close()


def test_load_describes_the_model(opened: Opened) -> None:
    assert [(t.name, t.dtype.name, t.shape) for t in opened.signature.inputs] == [("n", "INT64", ())]
    assert [(t.name, t.dtype.name, t.shape) for t in opened.signature.outputs] == [
        ("y", "FLOAT32", (128, 128))
    ]


def test_drain_finishes_what_is_submitted(worker: WorkerUnderTest, opened: Opened) -> None:
    slots = [opened.submit(2000) for _ in range(3)]
    assert worker.ask("drain")["ok"] is True
    assert worker.ends() == 0
    assert [opened.channel.poll(slot) for slot in slots] == [True] * 3


def test_signals_of_a_terminal_or_service_manager_are_left_to_the_supervisor(
    worker: WorkerUnderTest, opened: Opened
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
        worker.process.send_signal(number)
        slot = opened.submit(1)
        opened.channel.wait(slot)
        opened.channel.release(slot)


def test_a_worker_in_the_middle_of_a_run_ends_with_the_supervisor(
    worker: WorkerUnderTest, opened: Opened
) -> None:
    opened.channel.set_stamps(True)
    opened.submit(10**8)
    while not opened.channel.stamps(0)[2]:
        pass
    worker.control.close()
    assert worker.ends() == 0


def test_a_worker_that_waits_ends_with_the_supervisor(worker: WorkerUnderTest) -> None:
    worker.control.close()
    assert worker.ends() == 0


def test_channels_are_attached_and_detached(worker: WorkerUnderTest, opened: Opened) -> None:
    fields = attach_fields(5, opened.signature, 3)
    fds = opened.fds
    assert "attached already" in worker.refused("attach", fds, **fields)[1]
    assert worker.ask("detach", channel=5)["ok"] is True
    assert worker.ask("detach", channel=5)["ok"] is True
    assert worker.ask("attach", fds, **fields)["ok"] is True
    assert len(list(Path(f"/proc/{worker.process.pid}/fd").iterdir())) < 40


def test_refused_attaches_leave_no_descriptor(worker: WorkerUnderTest, opened: Opened) -> None:
    fields = attach_fields(6, opened.signature, 3)
    folder = Path(f"/proc/{worker.process.pid}/fd")
    before = len(list(folder.iterdir()))
    fds = opened.fds
    assert worker.refused("attach", fds[:3], **fields)[0] == "PROTOCOL"
    assert worker.refused("attach", fds, **{**fields, "slots": 0})[0] == "INVALID"
    assert worker.refused("attach", fds, **{**fields, "slots": 4})[0] == "CORRUPT"
    assert worker.refused("attach", fds, **{**fields, "tensors": [{"name": "x"}]})[0] == "PROTOCOL"
    for change in ({"dtype": "float8"}, {"max_dims": 3}, {"output": 1}):
        tensors = [{**fields["tensors"][0], **change}]
        assert worker.refused("attach", fds, **{**fields, "tensors": tensors})[0] == "PROTOCOL"
    for dims, error in (
        (["x"], "PROTOCOL"),
        ([-1], "PROTOCOL"),
        ([None], "PROTOCOL"),
        ([2**64 - 1], "NO_SPACE"),
    ):
        tensors = [{**fields["tensors"][0], "max_dims": dims}]
        assert worker.refused("attach", fds, **{**fields, "tensors": tensors})[0] == error
    for wrong in (True, -1, 2**40, "3"):
        assert worker.refused("attach", fds, **{**fields, "slots": wrong})[0] == "PROTOCOL"
    eventfd = opened.made.request
    assert worker.refused("attach", (eventfd, eventfd, eventfd, eventfd), **fields)[0] in (
        "SYSTEM",
        "CORRUPT",
    )
    assert len(list(folder.iterdir())) == before
    opened.channel.wait(opened.submit(1))


def test_requests_out_of_place_are_refused(worker: WorkerUnderTest, opened: Opened, tmp_path: Path) -> None:
    assert "loaded already" in worker.load(tmp_path / "slow.onnx")["message"]
    assert "begun already" in worker.begin(opened.made.status)["message"]
    assert worker.refused("nonsense") == (
        "PROTOCOL",
        "a request of the supervisor: there is no operation 'nonsense'",
    )
    assert worker.refused(7)[0] == "PROTOCOL"
    assert worker.refused("detach", channel="5")[0] == "PROTOCOL"


def test_what_cannot_be_loaded_is_said_and_another_load_may_follow(
    worker: WorkerUnderTest, tmp_path: Path
) -> None:
    missing = worker.load(tmp_path / "missing.onnx")
    assert (missing["error"], "No such file" in missing["message"]) == ("MODEL_FAILED", True)
    good = models.scalar(tmp_path / "good.onnx")
    huge = worker.load(unchecked_names(tmp_path / "huge.onnx", b"x" * 70000))
    assert (huge["error"], "shorten the names" in huge["message"]) == ("UNSUPPORTED", True)
    garbled = worker.load(unchecked_names(tmp_path / "garbled.onnx", b"\xff"))
    assert (garbled["error"], "is not UTF-8" in garbled["message"]) == ("UNSUPPORTED", True)
    assert worker.load(good, threads=2**63)["error"] == "MODEL_FAILED"
    assert worker.load(good, lane=3)["error"] == "PROTOCOL"
    assert worker.load(good, engine="tensorflow")["error"] == "MODEL_FAILED"
    assert worker.load(good, threads="1")["error"] == "PROTOCOL"
    assert worker.refused("attach", channel=1)[1].endswith("not begun to serve yet")
    assert worker.load(good)["ok"] is True


def test_a_worker_begins_with_a_model_a_status_page_and_a_policy(
    worker: WorkerUnderTest, tmp_path: Path
) -> None:
    status_fd = segment.create_status_page()
    try:
        assert "no model yet" in worker.begin(status_fd)["message"]
        assert worker.load(models.scalar(tmp_path / "scalar.onnx"))["ok"] is True
        assert worker.ask("ping")["ok"] is True
        assert worker.begin(status_fd, policy="never")["error"] == "PROTOCOL"
        assert worker.begin(status_fd, max_attempts=8)["error"] == "PROTOCOL"
        assert worker.begin(status_fd, page=64)["error"] == "PROTOCOL"
        assert "has no page 1" in worker.begin(status_fd, page=1)["message"]
        assert worker.refused("begin", policy="spin", max_attempts=1)[0] == "PROTOCOL"
        assert worker.begin(status_fd)["ok"] is True
    finally:
        os.close(status_fd)


def test_channels_that_a_new_supervisor_does_not_know_are_detached(
    worker: WorkerUnderTest, opened: Opened
) -> None:
    assert worker.ask("keep", channels=[5, 6])["ok"] is True
    opened.channel.wait(opened.submit(1))
    opened.channel.release(0)
    assert worker.ask("keep", channels=[])["ok"] is True
    assert worker.ask("attach", opened.fds, **attach_fields(5, opened.signature, 3))["ok"] is True


def unchecked_names(path: Path, name: bytes) -> Path:
    """Write the model `scalar` with another name for its input."""
    model = onnx.load(models.scalar(path))
    placeholder = "p" * len(name)
    model.graph.input[0].name = model.graph.node[0].input[0] = placeholder
    path.write_bytes(model.SerializeToString().replace(placeholder.encode(), name))
    return path


@pytest.mark.parametrize(
    "arguments", [[], ["--control-fd", "x"], ["--control-fd", "987"], ["--control-fd", "0"]]
)
def test_a_wrong_control_fd_is_a_usage_error(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "ipc_server.worker", *arguments]
    ended = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert b"--control-fd" in ended.stderr
    assert b"Traceback" not in ended.stderr

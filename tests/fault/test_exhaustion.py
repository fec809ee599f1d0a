"""A daemon that runs out of descriptors says so, keeps what it has, and recovers."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import models
import pytest
from channels import double, open_channel, serves_others
from conftest import StartDaemon
from daemon_process import Daemon, RawClient, wait_until


@pytest.fixture
def served(daemon: StartDaemon, tmp_path: Path) -> Daemon:
    return daemon(
        {"scalar": models.scalar(tmp_path / "scalar.onnx"), "mlp": models.dynamic_mlp(tmp_path / "mlp.onnx")}
    )


def allow(daemon: Daemon, descriptors: int) -> None:
    """Let the supervisor have this many descriptors from now on."""
    _, most = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (descriptors, most))


@pytest.mark.parametrize("spare", range(5))
def test_an_open_without_descriptors_is_refused_and_leaves_nothing(served: Daemon, spare: int) -> None:
    with open_channel(served.socket, "scalar") as bystander, RawClient(served.socket) as client:
        before = len(served.fds())
        # A free number below the limit is what counts, and all of ours are taken in order.
        allow(served, max(served.fds()) + 1 + spare)
        refused = []
        for _ in range(3):
            message = client.ask("open", model="scalar", slots=1)
            message.close_fds()
            if not message.body["ok"]:
                refused.append(message.body)
        assert refused
        assert {body["error"] for body in refused} == {"LIMIT"}, refused
        assert all("can hold no more descriptors" in body["message"] for body in refused)
        assert double(bystander, 1.0) == 2.0
        for row in client.ok("channels")["channels"]:
            client.ok("close", channel=row["channel"])
        wait_until("its descriptors are closed", lambda: len(served.fds()) <= before)
        allow(served, 1000)
        client.open("scalar").close_fds()
    assert serves_others(served)


def test_clients_that_cannot_be_accepted_wait_until_they_can(served: Daemon) -> None:
    with open_channel(served.socket, "scalar") as bystander:
        allow(served, max(served.fds()) + 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
            waiting.connect(str(served.socket))
            served.wait_logged("no client can be accepted")
            assert double(bystander, 1.0) == 2.0
        allow(served, 1000)
        assert serves_others(served)

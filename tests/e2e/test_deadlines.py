"""Deadlines of requests that the C loop does not run: they are refused before they begin, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import StartDaemon
from daemon_process import RawClient

from ipc_server.abi import STATUS_BYTES, ErrorCode
from ipc_server.client import Channel, open_model
from ipc_server.decode import Status, decode_status
from ipc_server.errors import SidecamlError

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
RUN_S = 4.0
# Enough for the worker to say no on a busy machine, and not enough for the run.
TOO_LITTLE_S = 3.0
PATIENCE_S = 60.0


def calls(channel: Channel, seconds: float, timeout: float) -> int:
    """Have the function take so long; how often it was called by then."""
    channel.input("x", channel.claim())[...] = seconds
    slot = channel.run(timeout)
    return int(channel.output(channel.model.signature.outputs[0].name, slot))


def status_of(socket: Path) -> Status:
    client = RawClient(socket)
    try:
        number = client.ok("channels")["channels"][0]["channel"]
        reply = client.ask("inspect", channel=number)
        try:
            page = reply.body.get("page", 0)
            return decode_status(os.pread(reply.fds[1], STATUS_BYTES, page * STATUS_BYTES))
        finally:
            reply.close_fds()
    finally:
        client.close()


def test_a_function_is_not_called_for_a_request_that_cannot_make_its_deadline(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    config = tmp_path / "sidecaml.toml"
    config.write_text(
        f'[models.slow]\nengine = "python"\ncallable = "hooks:slow"\npython_path = ["{CALLABLES}"]\n'
    )
    running = daemon({}, f"--config={config}")
    with open_model("slow", socket=str(running.socket)) as channel:
        before = calls(channel, RUN_S, PATIENCE_S)
        with pytest.raises(SidecamlError) as caught:
            calls(channel, RUN_S, TOO_LITTLE_S)
        assert caught.value.code is ErrorCode.DEADLINE, caught.value
        assert status_of(running.socket).refused == 1
        assert calls(channel, 0, PATIENCE_S) == before + 1

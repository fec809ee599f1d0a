"""State carried by a real daemon's workers: two channels, timeouts, limits, what a client is told."""

from __future__ import annotations

from pathlib import Path

import models
import pytest
from conftest import StartDaemon
from served import LANES

from ipc_server import client
from ipc_server.abi import ErrorCode
from ipc_server.client import Channel
from ipc_server.errors import SidecamlError


def started(daemon: StartDaemon, folder: Path, model: Path, lane: str, limits: str = "") -> str:
    """Start a daemon that carries the model's state; its socket."""
    config = folder / "state.toml"
    text = f'[models.m]\npath = "{model}"\nlane = "{lane}"\nstate = {{ next = "state" }}\n'
    config.write_text(text + limits)
    return str(daemon({}, f"--config={config}").socket)


def step(channel: Channel, x: float) -> bytes:
    """Run once; the bits of y."""
    channel.input("x")[...] = x
    channel.input("shape")[...] = 8
    channel.run(timeout=60)
    bits: bytes = channel.output("y").tobytes()
    return bits


@pytest.mark.parametrize("lane", LANES)
def test_two_channels_have_states_of_their_own(daemon: StartDaemon, tmp_path: Path, lane: str) -> None:
    socket = started(daemon, tmp_path, models.recurrent(tmp_path / "m.onnx"), lane)
    described = client.describe("m", socket)
    assert [(pair.output, pair.tensor.name) for pair in described.signature.state] == [("next", "state")]
    with client.open_model("m", socket=socket) as one, client.open_model("m", socket=socket) as other:
        alone = [step(one, x) for x in range(20)]
        one.reset()
        for x in range(20):
            assert step(one, x) == alone[x]
            if x % 3 == 0:
                assert step(other, x // 3) == alone[x // 3]


@pytest.mark.parametrize("lane", LANES)
def test_a_state_of_dynamic_size_is_bound_by_dims_at_open(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    model = models.recurrent(tmp_path / "m.onnx", state=["M", 8], x=["N", 8], after=["out", 8])
    socket = started(daemon, tmp_path, model, lane, "[limits]\nmax_segment_bytes = 1000000\n")
    with pytest.raises(SidecamlError, match="dimension 'M' of the model is dynamic") as missing:
        client.open_model("m", socket=socket, dims={"N": 2})
    assert missing.value.code is ErrorCode.BAD_DIMS
    with pytest.raises(SidecamlError, match="carried state") as large:
        client.open_model("m", socket=socket, dims={"N": 2, "M": 2**30})
    assert large.value.code is ErrorCode.LIMIT
    with client.open_model("m", socket=socket, dims={"N": 2, "M": 2}) as channel:
        assert step(channel, 1) != step(channel, 1)


def test_a_state_that_cannot_be_carried_fails_the_model(daemon: StartDaemon, tmp_path: Path) -> None:
    config = tmp_path / "state.toml"
    model = models.recurrent(tmp_path / "m.onnx")
    config.write_text(f'[models.m]\npath = "{model}"\nstate = {{ nxt = "state" }}\n')
    socket = str(daemon({}, f"--config={config}").socket)
    with pytest.raises(SidecamlError) as caught:
        client.open_model("m", socket=socket)
    assert caught.value.code is ErrorCode.MODEL_FAILED
    assert str(caught.value) == (
        "model 'm' could not be loaded: state: no output of the model is called 'nxt': did you mean 'next'?"
    )

"""Models through a real daemon and the Python client: the bits of plain ONNX Runtime, each failure named."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import models
import numpy as np
import onnxruntime
import pytest
from conftest import StartDaemon
from daemon_process import Daemon, wait_until
from graphs import CASES
from models import save, value
from onnx import helper
from served import LANES

from ipc_server import client
from ipc_server.abi import Dtype, ErrorCode, Policy
from ipc_server.client import Channel
from ipc_server.errors import SidecamlError
from ipc_server.tensor import NUMPY_DTYPE


def every_type(path: Path) -> Path:
    """Identity of every element type side by side."""
    names = models.IDENTITY_TYPES
    nodes = [helper.make_node("Identity", [name], [f"{name} too"]) for name in names]
    inputs = [value(name, name, [2, 3]) for name in names]
    return save(path, nodes, inputs, [value(f"{name} too", name, [2, 3]) for name in names])


def plain(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run in an ordinary session."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, inputs)
    return outputs


def fill(channel: Channel, inputs: dict[str, np.ndarray], slot: int) -> None:
    """Write inputs in place."""
    for tensor in channel.model.signature.inputs:
        if tensor.dynamic:
            channel.set_dims(tensor.name, inputs[tensor.name].shape, slot)
        channel.input(tensor.name, slot)[...] = inputs[tensor.name]


def refused(code: ErrorCode, call: object, *args: object) -> str:
    """Call, expect this error, and return its sentence."""
    with pytest.raises(SidecamlError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.code is code, caught.value
    return str(caught.value)


def test_every_element_type_at_once(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"types": every_type(tmp_path / "m.onnx")})
    random = np.random.default_rng(3)
    with client.open_model("types", socket=str(running.socket)) as channel:
        for _ in range(3):
            given = {}
            for dtype in (Dtype[name.upper()] for name in models.IDENTITY_TYPES):
                place = channel.input(dtype.name.lower())
                assert place.dtype == NUMPY_DTYPE[dtype]
                bits = random.integers(0, 2 if dtype is Dtype.BOOL else 256, place.nbytes, np.uint8)
                place[...] = bits.view(place.dtype).reshape(place.shape)
                given[dtype.name.lower()] = bits.tobytes()
            channel.run()
            for name, expected in given.items():
                assert channel.output(f"{name} too").tobytes() == expected


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("policy", Policy)
def test_graphs_of_every_kind_under_every_policy_in_each_lane(
    daemon: StartDaemon, tmp_path: Path, policy: Policy, lane: str
) -> None:
    chosen = ["mlp", "attention", "data dependent", "input as output", "scalar"]
    paths = {name.replace(" ", "_"): CASES[name].build(tmp_path / f"{name}.onnx") for name in chosen}
    running = daemon(paths, lane=lane)
    for name in chosen:
        case, model = CASES[name], name.replace(" ", "_")
        expected = plain(paths[model], case.inputs)
        with client.open_model(
            model, socket=str(running.socket), slots=2, dims=case.dims, policy=policy
        ) as channel:
            for _ in range(5):
                fill(channel, case.inputs, channel.claim())
                slot = channel.run()
                for tensor, array in zip(channel.model.signature.outputs, expected, strict=True):
                    assert channel.output(tensor.name, slot).tobytes() == array.tobytes()


def test_several_slots_are_under_way_at_once_and_await_in_any_order(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "m.onnx")})
    with client.open_model("scalar", socket=str(running.socket), slots=4) as channel:
        for start in range(0, 40, 4):
            for number in range(4):
                slot = channel.claim()
                channel.input("x", slot)[...] = start + number
                assert channel.submit() == slot == number
            refused(ErrorCode.FULL, channel.claim)
            for slot in (2, 0, 3, 1):
                channel.await_(slot)
                assert float(channel.output("y", slot)) == 2 * (start + slot)
                channel.release(slot)


@pytest.mark.parametrize("lane", LANES)
def test_a_timeout_is_busy_until_quiet_and_then_all_is_well(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    running = daemon({"slow": models.slow(tmp_path / "m.onnx")}, lane=lane)
    with client.open_model("slow", socket=str(running.socket)) as channel:
        channel.input("n")[...] = 30_000

        def is_busy_after_giving_up() -> bool:
            """Run for a moment: a request that has begun by then goes on, one that has not never will."""
            try:
                channel.run(0.02)
            except SidecamlError as error:
                assert error.code in (ErrorCode.BUSY, ErrorCode.TIMEOUT, ErrorCode.DEADLINE)
                return error.code is ErrorCode.BUSY
            return False  # this process was not run, and the answer was there when it looked

        wait_until("one that runs is given up", is_busy_after_giving_up)

        def quiet() -> bool:
            try:
                return channel.claim() == 0
            except SidecamlError as error:
                assert error.code is ErrorCode.BUSY
                return False

        wait_until("the abandoned request to end", quiet)
        channel.input("n")[...] = 1
        channel.run(60)
        assert channel.output("y")[0].tolist() == [0, 1] + [0] * 126


@pytest.mark.parametrize("lane", LANES)
def test_failed_requests_do_no_harm_to_others(daemon: StartDaemon, tmp_path: Path, lane: str) -> None:
    running = daemon({"fails": models.fails_inside(tmp_path / "m.onnx")}, lane=lane)
    with (
        client.open_model("fails", socket=str(running.socket)) as bad,
        client.open_model("fails", socket=str(running.socket)) as good,
    ):
        bad.input("shape")[:] = [5, 5]
        good.input("shape")[:] = [2, 3]
        good.input("x")[:] = 1
        for _ in range(10):
            assert "requested shape:{5,5}" in refused(ErrorCode.ENGINE, bad.run)
            good.run()
            assert good.output("y").tolist() == [7] * 6
        bad.input("shape")[:] = [6, 1]
        bad.run()


def test_dims_that_do_not_fit_are_named(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"dynamic": models.dynamic_mlp(tmp_path / "m.onnx")})
    with client.open_model("dynamic", socket=str(running.socket), dims={"N": 4}) as channel:
        assert channel.input("x").shape == (4, 64)
        assert '"x"' in refused(ErrorCode.BAD_DIMS, channel.set_dims, "x", (5, 64))
        channel.set_dims("x", (3, 63))
        assert "[N, 64]" in refused(ErrorCode.BAD_DIMS, channel.run)
        channel.set_dims("x", (3, 64))
        channel.run()
        assert channel.output("y").shape == (3, 10)


def test_what_the_client_asks_wrongly_is_said_with_the_nearest_name(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon({"digits": models.small_mlp(tmp_path / "m.onnx")})
    socket = str(running.socket)
    assert "'digits'" in refused(ErrorCode.UNKNOWN_MODEL, lambda: client.open_model("digit", socket=socket))
    assert "'digits'" in refused(ErrorCode.UNKNOWN_MODEL, lambda: client.describe("digit", socket))
    too_many = refused(
        ErrorCode.TOO_MANY_SLOTS, lambda: client.open_model("digits", socket=socket, slots=9999)
    )
    assert "9999" in too_many
    refused(ErrorCode.BAD_DIMS, lambda: client.open_model("digits", socket=socket, dims={"N": 1}))
    missing = str(tmp_path / "nobody.sock")
    assert missing in refused(ErrorCode.CONNECT, lambda: client.open_model("digits", socket=missing))
    with client.open_model("digits", socket=socket) as channel:
        assert "did you mean 'x'?" in refused(ErrorCode.INVALID, channel.input, "X")
        assert "there is 'y'" in refused(ErrorCode.INVALID, channel.output, "result")
        refused(ErrorCode.INVALID, channel.input, "x", 1)
        refused(ErrorCode.INVALID, channel.run, -1)
        refused(ErrorCode.INVALID, channel.run, float("nan"))
        refused(ErrorCode.INVALID, channel.release, 0)
    assert "closed" in refused(ErrorCode.INVALID, channel.run)


def test_models_are_described(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"b": models.dynamic_mlp(tmp_path / "m.onnx"), "a": tmp_path / "missing.onnx"})
    found = client.models(str(running.socket))
    assert [(model.name, model.state) for model in found] == [("a", "failed"), ("b", "ready")]
    assert "No such file" in found[0].problem
    assert client.describe("b", str(running.socket)) == found[1]
    assert found[1].signature.inputs[0].shape == ("N", 64)


def test_arrays_outlive_a_closed_channel(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "m.onnx")})
    channel = client.open_model("scalar", socket=str(running.socket))
    x, y = channel.input("x"), channel.output("y")
    x[...] = 21
    channel.run()
    channel.close()
    channel.close()
    wait_until("the daemon to close the channel", lambda: not open_channels(running))
    gc.collect()
    x[...] = 1
    assert float(y) == 42


def open_channels(running: Daemon) -> list[object]:
    """Ask for the daemon's channels."""
    with client.Conversation(running.socket) as conversation:
        return list(conversation.ask("channels")["channels"])


@pytest.mark.parametrize("lane", LANES)
def test_a_model_that_is_gone_is_server_gone_in_the_daemons_own_words(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    path = models.slow(tmp_path / "m.onnx")
    running = daemon({"slow": path}, lane=lane)
    with client.open_model("slow", socket=str(running.socket)) as channel:
        channel._core.set_stamps(True)
        channel.input("n")[...] = 10**8
        channel.submit()
        while not channel.stamps(0)[2]:
            time.sleep(0.001)
        path.unlink()
        os.kill(running.workers()[0], 9)
        assert "m.onnx" in refused(ErrorCode.SERVER_GONE, channel.await_, 0)
        assert "m.onnx" in refused(ErrorCode.SERVER_GONE, channel.claim)


@pytest.mark.parametrize("lane", LANES)
def test_strings_in_each_lane_with_the_room_that_was_asked_for(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    path = models.identity("string", ["N", 2], tmp_path / "m.onnx")
    socket = str(daemon({"strings": path}, lane=lane).socket)
    texts = [["é" * 3000, ""], ["a\0b", "c"]]
    with (
        client.open_model("strings", socket=socket, dims={"N": 2}, slots=2) as channel,
        pytest.raises(SidecamlError, match="6004 bytes of text, and the channel has room for 4096"),
    ):
        channel.set_strings("x", texts)
    with client.open_model("strings", socket=socket, dims={"N": 2}, slots=2, text_bytes=6004) as channel:
        for given in (texts, [], texts[1:], texts):
            slot = channel.claim()
            channel.set_strings("x", np.array(given, object).reshape(-1, 2), slot)
            channel.run()
            assert channel.strings("y", slot).tolist() == given
    for bad in (-1, "many"):
        with pytest.raises(SidecamlError, match="text_bytes: expected an unsigned integer"):
            client.open_model("strings", socket=socket, dims={"N": 2}, text_bytes=bad)  # type: ignore[arg-type]
    with pytest.raises(SidecamlError, match="would be larger than 2\\^62 bytes"):
        client.open_model("strings", socket=socket, dims={"N": 2}, text_bytes=2**63)

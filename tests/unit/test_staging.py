"""Requests on private copies of their tensors: the same bits as in place, whatever the model and the lane."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from models import save, value
from onnx import helper
from served import HOW, LANE, LANES, Served, served

from ipc_server import _core
from ipc_server.abi import DTYPE_BITS, Dtype, ErrorCode
from ipc_server.client import OutputTooLarge
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
RNG = np.random.default_rng(5)
Inputs = Mapping[str, np.ndarray]


@pytest.fixture(autouse=True, params=LANES)
def lane(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here in each lane."""
    token = LANE.set(request.param)
    yield request.param
    LANE.reset(token)


def both(run: Callable[[], Any]) -> tuple[Any, Any]:
    """Give the answers of a channel in place and of one that is staged."""
    found = []
    for how in (0, _core.STAGED):
        token = HOW.set(how)
        try:
            found.append(run())
        finally:
            HOW.reset(token)
    return found[0], found[1]


def bits(answer: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: (array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in answer.items()
    }


def same_bits(model: Path | Settings, requests: list[Inputs], **how: Any) -> None:
    """Run the requests in a row, several times over the slots; every bit of every answer is the same."""

    def run() -> list[Any]:
        with served(model, slots=3, **how) as opened:
            return [bits(opened.run(inputs)) for _ in range(3) for inputs in requests]

    in_place, staged = both(run)
    assert in_place == staged
    assert len(in_place) == 3 * len(requests)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def raw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = Dtype[name.upper()]
    count = int(np.prod(shape)) * DTYPE_BITS[dtype] // 8
    given = RNG.integers(0, 2 if dtype is Dtype.BOOL else 256, count).astype(np.uint8)
    if DTYPE_BITS[dtype] < 8:
        return given
    return given.view(f"V{DTYPE_BITS[dtype] // 8}").reshape(shape)


@pytest.mark.parametrize("name", models.IDENTITY_TYPES)
def test_every_element_type(name: str, tmp_path: Path) -> None:
    path = models.identity(name, (3, 8), tmp_path / "m.onnx")
    same_bits(path, [{"x": raw(name, (3, 8))} for _ in range(2)])


def test_packed_types(tmp_path: Path) -> None:
    node = helper.make_node("Transpose", ["x"], ["y"])
    tensors = [value("x", "int4", ["A", "B"])], [value("y", "int4", ["B", "A"])]
    path = save(tmp_path / "m.onnx", [node], *tensors)

    def run() -> list[bytes]:
        answers = []
        with served(path, {"A": 5, "B": 6}, slots=2) as model:
            for dims in ((3, 5), (1, 1), (0, 6), (5, 6)):
                slot = model.channel.claim()
                model.channel.set_dims("x", dims, slot)
                place = model.channel.input("x", slot)
                place[...] = np.arange(place.size) % 256
                model.channel.submit()
                model.serve(slot)
                model.channel.await_(slot)
                answers.append(model.channel.output("y", slot).tobytes())
                model.channel.release(slot)
        return answers

    in_place, staged = both(run)
    assert in_place == staged


def test_dynamic_dims_empty_ones_too(tmp_path: Path) -> None:
    requests = [{"x": floats(rows, 64)} for rows in (7, 1, 0, 7, 3)]
    same_bits(models.dynamic_mlp(tmp_path / "m.onnx"), requests, dims={"N": 7})


def test_several_inputs_and_outputs_scalars_among_them(tmp_path: Path) -> None:
    requests = [{"a": floats(3, 4), "b": np.array(b, np.int64)} for b in (3, -4)]
    same_bits(models.two_in_two_out(tmp_path / "m.onnx"), requests)


def test_outputs_whose_size_only_the_run_can_tell(tmp_path: Path) -> None:
    requests = [{"x": np.eye(1, 8, k, dtype=np.float32).reshape(8) * k} for k in range(8)]
    requests.append({"x": np.ones(8, np.float32)})
    same_bits(models.data_dependent(tmp_path / "m.onnx"), requests, dims={"count": 8})


def test_strings(tmp_path: Path) -> None:
    node = helper.make_node("StringConcat", ["a", "b"], ["y"])
    tensors = [value("a", "string", ["N"]), value("b", "string", ["N"])], [value("y", "string", ["N"])]
    path = save(tmp_path / "m.onnx", [node], *tensors)
    words = [["été", ""], ["x" * 30, "y"], [], ["a"]]
    requests = [{"a": np.array(row, object), "b": np.array(row[::-1], object)} for row in words]
    same_bits(path, requests, dims={"N": 2}, text_bytes=100)


def test_carried_state(tmp_path: Path) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    model = Settings("model", path, lane=LANE.get(), state={"next": "state"})
    good = np.array([8], np.int64)
    same_bits(model, [{"x": floats(8), "shape": good} for _ in range(5)])


def test_functions() -> None:
    def function(name: str) -> Settings:
        return Settings("m", engine="python", callable=f"hooks:{name}", python_path=(CALLABLES,))

    rows = [{"x": floats(n, 8)} for n in (4, 0, 2)]
    same_bits(function("matmul"), rows, dims={"N": 4})
    same_bits(function("matmul_in_place"), rows, dims={"N": 4})
    same_bits(function("positive"), [{"x": floats(n)} for n in (6, 1, 0)], dims={"N": 6, "K": 6})
    greetings = [{"N": 1}, {"N": 3}]
    requests = [
        {"names": np.array(["Ada"] * row["N"], object), "times": np.array(2, np.int64)} for row in greetings
    ]
    same_bits(function("greet"), requests, dims={"N": 3}, text_bytes=60)


def failure(model: Served, inputs: Inputs) -> SidecamlError:
    with pytest.raises(SidecamlError) as caught:
        model.run(inputs)
    return caught.value


def test_failures_and_what_they_need(tmp_path: Path) -> None:
    path = models.data_dependent(tmp_path / "m.onnx")

    def run() -> list[Any]:
        told: list[Any] = []
        with served(path, {"count": 2}, slots=2) as model:
            for _ in range(3):
                error = failure(model, {"x": np.arange(8, dtype=np.float32)})
                assert isinstance(error, OutputTooLarge)
                told.append((str(error), error.dims, error.text_bytes))
                told.append(bits(model.run({"x": np.eye(1, 8, dtype=np.float32)[0]})))
        return told

    in_place, staged = both(run)
    assert in_place == staged
    assert in_place[0][1] == {"y": (1, 7)}


def test_dims_beyond_the_largest(tmp_path: Path) -> None:
    path = models.dynamic_mlp(tmp_path / "m.onnx")

    def run() -> str:
        with served(path, {"N": 4}) as model:
            segment = model.channel._core
            slot = model.channel.submit()
            # As a client would that does not ask its library.
            write_dims(segment, slot, 5)
            model.serve(slot)
            with pytest.raises(SidecamlError) as caught:
                model.channel.await_(slot)
            assert caught.value.code is ErrorCode.BAD_DIMS
            return str(caught.value)

    in_place, staged = both(run)
    assert in_place == staged


def write_dims(core: _core.Channel, slot: int, rows: int) -> None:
    """Write where the slots end, behind two blocks: dims of 128 bytes a slot and tensor."""
    tensors, slots = len(core.layout.tensors), core.layout.slots
    place = 128 + 256 * tensors + 256 + 512 * slots + slot * tensors * 128
    os.pwrite(core.segment_fd, rows.to_bytes(8, "little"), place)

"""Carried state: the bits of a client that copies it, in each lane; what resets and failures leave."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import models
import numpy as np
import pytest
from models import save, value
from onnx import helper
from served import LANE, LANES, Served, python_runs, served

from ipc_server import engines
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.lane import NativeLane
from ipc_server.settings import Settings
from ipc_server.signature import Signature, StatePair, Tensor, signature_of
from ipc_server.tensor_text import parse_type

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
CARRY = {"next": "state"}
GOOD = np.array([8], np.int64)
BAD = np.array([7], np.int64)
ROWS = {"state": ["N", 8], "x": ["N", 8]}


@pytest.fixture(autouse=True, params=LANES)
def lane(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here in each lane."""
    token = LANE.set(request.param)
    yield request.param
    LANE.reset(token)


def carrying(path: Path) -> Settings:
    """Say that the model's state is carried."""
    return Settings("model", path, lane=LANE.get(), state=CARRY)


def refused(code: ErrorCode, call: object, *args: object) -> str:
    """Call, expect this error, and return its sentence."""
    with pytest.raises(SidecamlError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.code is code, caught.value
    return str(caught.value)


class Copying:
    """A client that copies the state itself."""

    def __init__(self, model: Served, shape: tuple[int, ...]) -> None:
        self._model = model
        self.state = np.zeros(shape, np.float32)

    def step(self, x: np.ndarray) -> np.ndarray:
        """Run once, and keep the next state."""
        answer = self._model.run({"x": x, "state": self.state, "shape": GOOD})
        self.state = answer["next"]
        return answer["y"]


def step(model: Served, x: np.ndarray, shape: np.ndarray = GOOD) -> np.ndarray:
    """Run once, the worker carrying the state."""
    return model.run({"x": x, "shape": shape})["y"]


@pytest.fixture
def xs() -> Iterator[np.ndarray]:
    random = np.random.default_rng(11)
    return (random.standard_normal(8).astype(np.float32) for _ in itertools.count())


# --- The same bits ------------------------------------------------------------------------------------------


def test_carried_state_is_copied_state_bit_for_bit(
    tmp_path: Path, xs: Iterator[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    with served(path) as plain, served(carrying(path)) as model:
        noted = python_runs(model, monkeypatch)
        copying = Copying(plain, (8,))
        for _ in range(200):
            x = next(xs)
            assert step(model, x).tobytes() == copying.step(x).tobytes()
        # One for each way round: the rest is C's.
        assert len(noted) == (2 if isinstance(model.lane, NativeLane) else 200)


def test_the_state_is_not_visible(tmp_path: Path) -> None:
    with served(carrying(models.recurrent(tmp_path / "m.onnx"))) as model:
        signature = model.channel.model.signature
        assert [tensor.name for tensor in signature.inputs] == ["x", "shape"]
        assert [tensor.name for tensor in signature.outputs] == ["y"]
        assert signature.state == (StatePair("next", Tensor("state", Dtype.FLOAT32, (8,))),)
        assert signature_of(signature.describe()) == signature
        bare = Signature(signature.inputs, signature.outputs)
        assert bare.fingerprint == signature.fingerprint


def test_state_of_dynamic_size_is_carried_and_grows_only_after_a_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.recurrent(tmp_path / "m.onnx", **ROWS)
    random = np.random.default_rng(3)
    with served(path, {"N": 6}) as plain, served(carrying(path), {"N": 6}) as model:
        noted = python_runs(model, monkeypatch)
        for rows in (2, 5, 2, 6, 5):
            copying = Copying(plain, (rows, 8))
            model.channel.reset()
            for _ in range(20):
                x = random.standard_normal((rows, 8)).astype(np.float32)
                assert step(model, x).tobytes() == copying.step(x).tobytes()
            said = refused(ErrorCode.BAD_DIMS, step, model, np.zeros((rows - 1, 8), np.float32))
            assert said == (
                f"the state of input 'state' is [{rows},8] and this request's dims make it [{rows - 1},8]: "
                "reset the channel before its dims change"
            )
            assert step(model, x).tobytes() == copying.step(x).tobytes()
        if isinstance(model.lane, NativeLane):
            assert len(noted) < 30


def test_state_whose_size_no_input_tells_has_the_largest(tmp_path: Path) -> None:
    path = models.recurrent(tmp_path / "m.onnx", state=["M", 8], x=["N", 8], after=["out", 8])
    with served(path, {"M": 3, "N": 3, "out": 3}) as plain, served(carrying(path), {"M": 3, "N": 3}) as model:
        copying = Copying(plain, (3, 8))
        for scale in range(20):
            x = np.full((3, 8), scale / 7, np.float32)
            assert step(model, x).tobytes() == copying.step(x).tobytes()


def test_an_output_that_comes_out_in_another_size_than_its_state_is_an_error(tmp_path: Path) -> None:
    path = models.recurrent(tmp_path / "m.onnx", state=["M", 8], x=["N", 8], after=["out", 8])
    with served(carrying(path), {"M": 1, "N": 3}) as model:
        one, three = np.ones((1, 8), np.float32), np.ones((3, 8), np.float32)
        first = step(model, one).tobytes()
        second = step(model, one).tobytes()
        model.channel.reset()
        assert step(model, one).tobytes() == first
        for _ in range(3):
            assert refused(ErrorCode.ENGINE, step, model, three) == (
                "output 'next' came out as [3,8] and input 'state', whose state it is, went in as [1,8]: "
                "state must keep its size"
            )
        assert step(model, one).tobytes() == second


# --- Reset, failures, several slots -------------------------------------------------------------------------


def test_a_reset_starts_anew(tmp_path: Path, xs: Iterator[np.ndarray]) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    given = [next(xs) for _ in range(7)]
    with served(carrying(path)) as model:
        first = [step(model, x).tobytes() for x in given]
        for _ in range(4):
            assert step(model, given[0]).tobytes() != first[0]
            model.channel.reset()
            assert [step(model, x).tobytes() for x in given] == first


def test_a_failed_run_does_not_advance(tmp_path: Path, xs: Iterator[np.ndarray]) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    with served(path) as plain, served(carrying(path)) as model:
        copying = Copying(plain, (8,))
        for count in range(30):
            if count % 3 == 0:
                refused(ErrorCode.ENGINE, step, model, next(xs), BAD)
            x = next(xs)
            assert step(model, x).tobytes() == copying.step(x).tobytes()


def test_a_failed_run_with_a_reset_leaves_zeros(tmp_path: Path, xs: Iterator[np.ndarray]) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    x = next(xs)
    with served(carrying(path)) as model:
        first = step(model, x).tobytes()
        for count in range(6):
            for _ in range(count):
                step(model, x)
            model.channel.reset()
            refused(ErrorCode.ENGINE, step, model, x, BAD)
            assert step(model, x).tobytes() == first


@pytest.mark.parametrize("slots", [2, 3, 5])
def test_several_slots_in_flight_run_in_order(tmp_path: Path, xs: Iterator[np.ndarray], slots: int) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    with served(path) as plain, served(carrying(path), slots=slots) as model:
        copying = Copying(plain, (8,))
        for _ in range(20):
            given = [next(xs) for _ in range(slots)]
            taken = []
            for x in given:
                taken.append(model.fill({"x": x, "shape": GOOD}))
                model.channel.submit()
            for slot, x in zip(taken, given, strict=True):
                model.serve(slot)
                model.channel.await_(slot)
                assert model.channel.output("y", slot).tobytes() == copying.step(x).tobytes()
                model.channel.release(slot)


def test_a_cancelled_request_never_ran_and_hands_its_reset_on(
    tmp_path: Path, xs: Iterator[np.ndarray]
) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    x = next(xs)
    with served(carrying(path), slots=2) as model:
        first, second = step(model, x).tobytes(), step(model, x).tobytes()
        model.channel.reset()
        assert step(model, x).tobytes() == first
        slot = model.fill({"x": x, "shape": GOOD})
        model.channel.submit()
        model.channel.abandon(slot)
        assert step(model, x).tobytes() == second
        model.channel.reset()
        slot = model.fill({"x": x, "shape": GOOD})
        model.channel.submit()
        model.channel.abandon(slot)
        assert step(model, x).tobytes() == first
        assert step(model, x).tobytes() == second


def test_a_reset_waits_for_a_submit_that_succeeds(tmp_path: Path, xs: Iterator[np.ndarray]) -> None:
    x = next(xs)
    with served(carrying(models.recurrent(tmp_path / "m.onnx")), slots=1) as model:
        first = step(model, x).tobytes()
        slot = model.fill({"x": x, "shape": GOOD})
        model.channel.submit()
        model.serve(slot)
        model.channel.reset()
        refused(ErrorCode.FULL, model.channel.submit)
        model.channel.release(slot)
        assert step(model, x).tobytes() == first


def test_a_model_without_state_cannot_be_reset(tmp_path: Path) -> None:
    with served(models.recurrent(tmp_path / "m.onnx")) as model:
        said = refused(ErrorCode.INVALID, model.channel.reset)
        assert said == "model 'model' carries no state: there is nothing to reset"


def test_an_input_that_is_its_own_next_state_is_carried(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "state"], ["y"]),
        helper.make_node("Identity", ["state"], ["next"]),
    ]
    x, y = value("x", "float32", [4]), value("y", "float32", [4])
    state, after = value("state", "float32", [4]), value("next", "float32", [4])
    with served(carrying(save(tmp_path / "m.onnx", nodes, [x, state], [y, after]))) as model:
        for _ in range(5):
            assert model.run({"x": np.ones(4, np.float32)})["y"].tolist() == [1] * 4


# --- Other engines ------------------------------------------------------------------------------------------


def function(name: str, inputs: dict[str, str], outputs: dict[str, str], **more: object) -> Settings:
    """A function of tests/callables/remembering.py."""
    given, returned = (
        tuple(parse_type(tensor, text) for tensor, text in group.items()) for group in (inputs, outputs)
    )
    return Settings(
        "model",
        engine="python",
        callable=f"remembering:{name}",
        python_path=(CALLABLES,),
        inputs=given,
        outputs=returned,
        **more,  # type: ignore[arg-type]
    )


def test_the_state_of_a_python_function_is_carried(xs: Iterator[np.ndarray]) -> None:
    inputs = {"x": "float32[N,8]", "state": "float32[N,8]", "shape": "int64[1]"}
    outputs = {"y": "float32[N,8]", "next": "float32[N,8]"}
    plain_model = function("recurrent", inputs, outputs)
    model = function("recurrent", inputs, outputs, state=CARRY)
    with served(plain_model, {"N": 4}) as plain, served(model, {"N": 4}, slots=2) as carried:
        for rows in (4, 1, 3):
            copying = Copying(plain, (rows, 8))
            carried.channel.reset()
            for count in range(40):
                x = np.stack([next(xs) for _ in range(rows)])
                if count % 5 == 0:
                    assert "does not fit" in refused(ErrorCode.ENGINE, step, carried, x, BAD)
                assert step(carried, x).tobytes() == copying.step(x).tobytes()


@pytest.mark.parametrize("known", ["M", "K"])
def test_a_python_function_whose_state_changes_its_size_is_an_error(known: str) -> None:
    model = function(
        "growing",
        {"x": "float32[1]", "state": "float32[M]"},
        {"y": "float32[1]", "next": f"float32[{known}]"},
    )
    with served(dataclasses.replace(model, state=CARRY), {"M": 3}) as carried:
        for _ in range(3):
            said = refused(ErrorCode.ENGINE, carried.run, {"x": np.ones(1, np.float32)})
            assert "next" in said
            assert carried.run({"x": np.zeros(1, np.float32)})["y"].tolist() == [0]


def test_the_state_of_a_pipeline_is_carried(tmp_path: Path, xs: Iterator[np.ndarray]) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    nodes = [helper.make_node("Neg", ["y"], ["z"])]
    tensors = [value(name, "float32", [8]) for name in ("y", "z")]
    after = save(tmp_path / "neg.onnx", nodes, tensors[:1], tensors[1:])
    steps = tuple(Settings(step.stem, step, lane="python") for step in (path, after))
    model = Settings("model", engine="pipeline", steps=steps, keep=("z", "next"), state=CARRY)
    with served(path) as plain, served(model) as carried:
        copying = Copying(plain, (8,))
        for _ in range(40):
            x = next(xs)
            assert carried.run({"x": x, "shape": GOOD})["z"].tobytes() == (-copying.step(x)).tobytes()


# --- Loading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "parts"),
    [
        ({"nxt": "state"}, ["no output of the model is called 'nxt'", "did you mean 'next'?"]),
        ({"next": "stat"}, ["no input of the model is called 'stat'", "did you mean 'state'?"]),
        ({"next": "shape"}, ["output 'next' is 'float32[8]' and input 'shape' is 'int64[1]'"]),
        ({"next": "state", "y": "state"}, ["input 'state' is named twice"]),
        ({"state": "next"}, ["no output of the model is called 'state'"]),
    ],
)
def test_pairs_that_cannot_be_carried_are_refused(
    state: dict[str, str], parts: list[str], tmp_path: Path
) -> None:
    path = models.recurrent(tmp_path / "m.onnx")
    settings = Settings("model", path, lane=LANE.get(), state=state)
    said = refused(ErrorCode.MODEL_FAILED, engines.load, settings)
    assert said.startswith("state: ")
    for part in parts:
        assert part in said


def test_fixed_dimensions_must_agree_and_those_of_one_are_the_others(tmp_path: Path) -> None:
    path = models.recurrent(tmp_path / "m.onnx", state=["M", 8], x=[3, 8], after=["out", 8])
    model = engines.load(carrying(path))
    assert model.signature.state[0].tensor.shape == (3, 8)
    assert model.signature.dim_names == []
    nodes = [helper.make_node("Concat", ["state", "x"], ["next"], axis=0)]
    x, state = value("x", "float32", [1]), value("state", "float32", [1])
    bad = save(tmp_path / "bad.onnx", nodes, [x, state], [value("next", "float32", [2])])
    said = refused(ErrorCode.MODEL_FAILED, engines.load, carrying(bad))
    assert "output 'next' is 'float32[2]' and input 'state' is 'float32[1]'" in said

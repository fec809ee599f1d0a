"""The engine `pipeline`: how steps are wired, and that they make the same bits as one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnxruntime
import pytest
from onnx import helper
from served import LANE, LANES, Served, served

from ipc_server import engines
from ipc_server.abi import ErrorCode
from ipc_server.engines.wiring import Step, wire
from ipc_server.errors import OutputTooLarge, SidecamlError
from ipc_server.settings import Settings
from ipc_server.signature import Signature, text_of
from ipc_server.tensor_text import parse_named

CALLABLES = Path(__file__).resolve().parents[1] / "callables"

SCALING = {"x": "float32[N,64]"}, {"scaled": "float32[N,64]"}


def onnx_step(path: Path, **rename: str) -> Settings:
    return Settings("model", path, lane=LANE.get(), rename=rename)


def python_step(
    function: str, inputs: Mapping[str, str], outputs: Mapping[str, str], **rename: str
) -> Settings:
    return Settings(
        "model",
        engine="python",
        callable=f"steps:{function}",
        python_path=(CALLABLES,),
        inputs=signature(inputs, {}).inputs,
        outputs=signature({}, outputs).outputs,
        rename=rename,
    )


def pipeline(*steps: Settings, **changes: Any) -> Settings:
    return Settings("model", engine="pipeline", steps=steps, **changes)


def signature(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Signature:
    return Signature(
        tuple(parse_named(f"{name}={text}") for name, text in inputs.items()),
        tuple(parse_named(f"{name}={text}") for name, text in outputs.items()),
    )


def step(inputs: Mapping[str, str], outputs: Mapping[str, str], **rename: str) -> Step:
    return Step(f"step of {next(iter(outputs))}", signature(inputs, outputs), rename)


def wired(*steps: Step, keep: Sequence[str] = ()) -> str:
    found = wire(steps, keep).signature
    return f"{text_of(found.inputs)} -> {text_of(found.outputs)}"


def unwired(*steps: Step, keep: Sequence[str] = ()) -> str:
    with pytest.raises(SidecamlError) as caught:
        wire(steps, keep)
    assert caught.value.code is ErrorCode.MODEL_FAILED
    return str(caught.value)


FIRST = step({"x": "float32[N,4]"}, {"h": "float32[N,8]", "side": "int64[K]"})


def test_tensors_are_wired_by_name_and_dimensions_are_unified() -> None:
    assert wired(FIRST) == "x float32[N,4] -> h float32[N,8], side int64[K]"
    second = step({"h": "float32[M,8]", "w": "float32[M]"}, {"y": "float32[M,1]"})
    assert wired(FIRST, second) == "x float32[N,4], w float32[N] -> side int64[K], y float32[N,1]"
    assert wired(FIRST, second, keep=("y", "h")).endswith("-> y float32[N,1], h float32[N,8]")
    fixed = step({"h": "float32[5,8]"}, {"y": "float32[5]"})
    assert wired(FIRST, fixed) == "x float32[5,4] -> side int64[K], y float32[5]"
    renamed = step({"in": "float32[B,8]"}, {"h": "float32[B]"}, **{"in": "h", "h": "z"})
    assert wired(FIRST, renamed) == "x float32[N,4] -> side int64[K], z float32[N]"
    shared = step({"x": "float32[5,Q]"}, {"y": "float32[Q]"})
    assert wired(FIRST, shared) == "x float32[5,4] -> h float32[5,8], side int64[K], y float32[4]"


@pytest.mark.parametrize(
    ("second", "keep", "expected"),
    [
        (
            step({"h": "int64[N,8]"}, {"y": "int64[1]"}),
            (),
            "step of y: it takes 'h' as int64[N,8], which is float32[N,8] (step of h)",
        ),
        (
            step({"h": "float32[N]"}, {"y": "int64[1]"}),
            (),
            "it takes 'h' as float32[N], which is float32[N,8]",
        ),
        (step({"h": "float32[N,9]"}, {"y": "int64[1]"}), (), "it takes 'h' as float32[N,9]"),
        (
            step({"h": "float32[A,A]", "x": "float32[9,4]"}, {"y": "int64[1]"}),
            (),
            "it takes 'x' as float32[9,4], which is float32[8,4]",
        ),
        (
            step({"h": "float32[N,8]"}, {"side": "int64[1]"}),
            (),
            "step of side: it makes 'side', which there is already (step of h)",
        ),
        (
            step({"h": "float32[N,8]"}, {"x": "int64[1]"}),
            (),
            "it makes 'x', which there is already (an input of the pipeline)",
        ),
        (
            step({"h": "float32[N,8]"}, {"y": "int64[1]"}, hh="a"),
            (),
            "it has no tensor 'hh' to rename: did you mean 'h'?",
        ),
        (
            step({"a": "float32[N,8]", "b": "float32[N,8]"}, {"y": "int64[1]"}, a="h", b="h"),
            (),
            "two of its inputs have one name",
        ),
        (
            step({"h": "float32[N,8]"}, {"y": "int64[1]"}),
            ("yy",),
            "keep: no step makes 'yy': did you mean 'y'?",
        ),
        (step({"h": "float32[N,8]"}, {"y": "int64[1]"}), ("y", "y"), "keep: a tensor is named twice"),
    ],
)
def test_what_does_not_fit_is_named(second: Step, keep: Sequence[str], expected: str) -> None:
    assert expected in unwired(FIRST, second, keep=keep)


@pytest.fixture(params=LANES, autouse=True)
def lane(request: pytest.FixtureRequest) -> Any:
    token = LANE.set(request.param)
    yield
    LANE.reset(token)


def around_a_network(tmp_path: Path) -> Settings:
    """A function before and one after an ONNX file."""
    return pipeline(
        python_step("scale", {"raw": "uint8[N,64]", "factor": "float32[]"}, {"x": "float32[N,64]"}),
        onnx_step(models.dynamic_mlp(tmp_path / "mlp.onnx"), y="scores"),
        python_step("best", {"scores": "float32[N,10]"}, {"label": "int64[N]"}),
        keep=("label", "scores"),
    )


def test_hooks_around_a_network_have_the_bits_of_direct_calls(tmp_path: Path) -> None:
    settings = around_a_network(tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "mlp.onnx", providers=["CPUExecutionProvider"])
    random = np.random.default_rng(2)
    with served(settings, {"N": 6}, slots=2) as model:
        found = model.channel.model.signature
        assert text_of(found.inputs) == "raw uint8[N,64], factor float32[]"
        assert text_of(found.outputs) == "label int64[N], scores float32[N,10]"
        for rows in (1, 6, 3, 3, 1):
            raw = random.integers(0, 255, (rows, 64), np.uint8)
            answer = model.run({"raw": raw, "factor": np.array(0.5, np.float32)})
            scores = session.run(None, {"x": raw * np.float32(0.5)})[0]
            assert answer["scores"].tobytes() == scores.tobytes()
            assert answer["label"].tolist() == scores.argmax(axis=1).tolist()


def test_what_lies_between_steps_is_bound_to_both_and_is_not_in_the_segment() -> None:
    steps = [
        python_step("address_of_output", {"x": "float32[N]"}, {"h": "float32[N]", "made": "int64[1]"}),
        python_step("address_of_input", {"h": "float32[N]"}, {"taken": "int64[1]"}),
    ]
    with served(pipeline(*steps), {"N": 1000}, slots=2) as model:
        for _ in range(4):
            answer = model.run({"x": np.ones(7, np.float32)})
            assert answer["made"] == answer["taken"]
            (line,) = (
                line for line in mappings() if int(line[0], 16) <= answer["made"][0] < int(line[1], 16)
            )
            assert "sidecaml" not in line[2]


def mappings() -> list[tuple[str, str, str]]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [(*line.split(" ", 1)[0].split("-"), line) for line in lines]  # type: ignore[misc]


def test_a_size_that_only_the_run_can_tell_goes_from_step_to_step(tmp_path: Path) -> None:
    nonzero = models.save(
        tmp_path / "nonzero.onnx",
        [helper.make_node("NonZero", ["x"], ["places"])],
        [models.value("x", "float32", ["N"])],
        [models.value("places", "int64", [1, "K"])],
    )
    settings = pipeline(
        onnx_step(nonzero),
        python_step("doubled", {"places": "int64[1,K]"}, {"twice": "int64[1,K]", "count": "int64[]"}),
        keep=("count",),
    )
    with served(settings, {"N": 200_000}) as model:
        for x in (np.ones(3), np.zeros(5), np.ones(200_000), np.arange(9)):
            assert model.run({"x": x.astype(np.float32)})["count"] == np.count_nonzero(x) * 2


@pytest.mark.parametrize("keep", [("twice", "count"), ("places", "twice")])
def test_outputs_without_room_say_what_they_need(tmp_path: Path, keep: tuple[str, ...]) -> None:
    settings = pipeline(
        python_step("places", {"x": "float32[N]"}, {"places": "int64[1,K]"}),
        python_step("doubled", {"places": "int64[1,K]"}, {"twice": "int64[1,K]", "count": "int64[]"}),
        keep=keep,
    )
    with served(settings, {"N": 6, "K": 2}) as model:
        with pytest.raises(OutputTooLarge) as caught:
            model.run({"x": np.ones(5, np.float32)})
        assert caught.value.dims == {name: (1, 5) for name in keep if name != "count"}
        answer = model.run({"x": np.array([0, 1, 1], np.float32)})
        assert answer["twice"].tolist() == [[2, 4]]


def test_strings_go_from_step_to_step() -> None:
    settings = pipeline(
        python_step("shout", {"words": "string[N]"}, {"loud": "string[N]"}),
        python_step("long_ones", {"loud": "string[N]"}, {"long": "string[K]"}),
        keep=("loud", "long"),
    )
    with served(settings, {"N": 3, "K": 3}) as model:
        assert strings(model, ["a", "longer", "ß"]) == (["A!", "LONGER!", "SS!"], ["LONGER!"])
        assert strings(model, ["x"]) == (["X!"], [])
        with pytest.raises(OutputTooLarge) as caught:
            strings(model, ["y" * 2048, "z" * 2048])
        assert caught.value.text_bytes == 4098


def strings(model: Served, words: list[str]) -> tuple[list[str], list[str]]:
    slot = model.channel.claim()
    model.channel.set_strings("words", words, slot)
    model.channel.submit()
    model.serve(slot)
    model.channel.await_(slot)
    answer = [model.channel.strings(name, slot).tolist() for name in ("loud", "long")]
    model.channel.release(slot)
    return answer[0], answer[1]


def test_a_step_that_breaks_a_shared_dimension_is_named() -> None:
    settings = pipeline(
        python_step("positive", {"x": "float32[N]"}, {"h": "float32[K]"}),
        python_step("total", {"h": "float32[3]"}, {"y": "float32[]"}),
    )
    with served(settings, {"N": 5}) as model:
        assert model.run({"x": np.array([1, -1, 2, 3], np.float32)})["y"] == 6
        with pytest.raises(SidecamlError) as caught:
            model.run({"x": np.array([1, -1], np.float32)})
        assert caught.value.code is ErrorCode.ENGINE
        assert str(caught.value).startswith("step 1 (steps:positive): ")
        assert "[1]" in str(caught.value)
        assert "float32[3]" in str(caught.value)
        assert model.run({"x": np.array([1, 1, 2], np.float32)})["y"] == 4


def test_named_dimensions_of_inputs_are_checked_across_steps() -> None:
    settings = pipeline(
        python_step("same", {"a": "float32[N]"}, {"b": "float32[N]"}),
        python_step("add", {"b": "float32[N]", "c": "float32[N]"}, {"d": "float32[N]"}),
    )
    with served(settings, {"N": 5}) as model:
        assert model.run({"a": np.ones(2, np.float32), "c": np.ones(2, np.float32)})["d"].tolist() == [2, 2]
        with pytest.raises(SidecamlError) as caught:
            model.run({"a": np.ones(2, np.float32), "c": np.ones(3, np.float32)})
        assert caught.value.code is ErrorCode.BAD_DIMS


def test_a_failing_step_is_named(tmp_path: Path) -> None:
    settings = pipeline(
        python_step("same", {"a": "float32[6]"}, {"b": "float32[6]"}),
        onnx_step(models.fails_inside(tmp_path / "fails.onnx"), x="b"),
        python_step("refuses", {"y": "float32[6]"}, {"z": "float32[6]"}),
    )
    with served(settings) as model:
        ones = np.ones(6, np.float32)
        with pytest.raises(SidecamlError, match=r"^step 2 \(fails.onnx\): .*Reshape") as caught:
            model.run({"a": ones, "shape": np.array([4, 2])})
        assert caught.value.code is ErrorCode.ENGINE
        with pytest.raises(SidecamlError, match=r"^step 3 \(steps:refuses\): .*ValueError: no ones"):
            model.run({"a": ones, "shape": np.array([3, 2])})
        assert model.run({"a": ones * 0, "shape": np.array([3, 2])})["z"].tolist() == [0] * 6


def test_a_step_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(SidecamlError, match=r"^step 2 \(absent.onnx\): .*No such file") as caught:
        engines.load(
            pipeline(
                python_step("same", {"a": "float32[6]"}, {"b": "float32[6]"}),
                onnx_step(tmp_path / "absent.onnx"),
            )
        )
    assert caught.value.code is ErrorCode.MODEL_FAILED


def test_a_pipeline_carries_state() -> None:
    settings = pipeline(
        python_step("same", {"a": "float32[2]"}, {"b": "float32[2]"}),
        python_step("add", {"b": "float32[2]", "c": "float32[2]"}, {"d": "float32[2]"}),
        python_step("same", {"a": "float32[2]"}, {"b": "float32[2]"}, a="d", b="next"),
        keep=("d", "next"),
        state={"next": "c"},
    )
    with served(settings, slots=2) as model:
        for number in range(1, 6):
            assert model.run({"a": np.ones(2, np.float32)})["d"].tolist() == [number, number]

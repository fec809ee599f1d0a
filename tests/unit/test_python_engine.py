"""The engine `python`: signatures of functions, how they are called, and what they may answer."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from served import Served, served

from ipc_server import engines
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.errors import OutputTooLarge, SidecamlError
from ipc_server.settings import Settings
from ipc_server.signature import text_of
from ipc_server.tensor_text import parse_type

CALLABLES = Path(__file__).resolve().parents[1] / "callables"

Given = Mapping[str, str]


def python(function: str, inputs: Given | None = None, outputs: Given | None = None) -> Settings:
    """A function as a model; without a module it is one of callables/hooks.py."""
    return Settings(
        "model",
        engine="python",
        callable=function if ":" in function else f"hooks:{function}",
        python_path=(CALLABLES,),
        inputs=None if inputs is None else tuple(parse_type(name, text) for name, text in inputs.items()),
        outputs=None if outputs is None else tuple(parse_type(name, text) for name, text in outputs.items()),
    )


def signature_text(function: str, **given: Given) -> str:
    signature = engines.load(python(function, **given)).signature
    return f"{text_of(signature.inputs)} -> {text_of(signature.outputs)}"


def refused(function: str, **given: Given) -> str:
    with pytest.raises(SidecamlError) as caught:
        engines.load(python(function, **given))
    assert caught.value.code is ErrorCode.MODEL_FAILED
    return str(caught.value)


def fails(function: str, inputs: Mapping[str, np.ndarray], dims: Mapping[str, int] | None = None) -> str:
    """Run a request that must fail in the function; then the same model serves a good one."""
    with served(python(function), dims) as model:
        with pytest.raises(SidecamlError) as caught:
            model.run(inputs)
        assert caught.value.code is ErrorCode.ENGINE
        good = {name: np.zeros_like(array) for name, array in inputs.items()}
        model.run(good)
    return str(caught.value)


def one(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full(1, value, np.float32)}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("matmul", "x float32[N,8] -> output float32[N,3]"),
        ("matmul_in_place", "x float32[N,8] -> y float32[N,3]"),
        ("scale", "x float32[4], factor float32[] -> output float32[4]"),
        ("positive", "x float32[N] -> total float32[], places int64[K]"),
        ("positive_by_name", "x float32[N] -> total float32[], places int64[K]"),
        ("Counter", "x float32[1] -> output int64[]"),
        ("counter", "x float32[1] -> output int64[]"),
    ],
)
def test_annotations_are_the_signature(function: str, expected: str) -> None:
    assert signature_text(function) == expected


def test_the_configuration_s_signature_comes_first() -> None:
    given = {"inputs": {"x": "uint8[M]"}, "outputs": {"y": "uint8[M]"}}
    assert signature_text("unannotated", **given) == "x uint8[M] -> y uint8[M]"
    assert signature_text("matmul", inputs={"x": "float32[8,8]"}, outputs={"z": "float32[8,3]"}).endswith(
        "z float32[8,3]"
    )


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("absent:f", "module 'absent' could not be imported: ModuleNotFoundError: No module named 'absent'"),
        ("hooks:matmull", "hooks:matmull: there is no 'matmull': did you mean 'matmul'?"),
        ("hooks:DATA", "hooks:DATA is a int: expected a function"),
        ("hooks:later", "hooks:later is a coroutine or a generator"),
        (
            "hooks:unannotated",
            "hooks:unannotated: its annotations do not say what tensor the parameter",
        ),
        (
            "broken:f",
            "'broken' could not be imported: RuntimeError: this module cannot be imported, line 3 of ",
        ),
        ("unreadable:f", "module 'unreadable' could not be imported: SyntaxError"),
        ("leaving:f", "module 'leaving' could not be imported: SystemExit: 3"),
    ],
)
def test_what_cannot_be_imported_or_called_is_refused(function: str, expected: str) -> None:
    assert expected in refused(function)


@pytest.mark.parametrize(
    ("function", "inputs", "outputs", "expected"),
    [
        ("matmul", {"y": "float32[1]"}, {"z": "float32[1]"}, "its parameter 'x' is neither an input nor"),
        (
            "matmul",
            {"x": "float32[1]", "b": "float32[1]"},
            {"z": "float32[1]"},
            "no parameter for the input",
        ),
        (
            "unannotated",
            {"x": "float32[N]"},
            {"y": "float32[M]"},
            "'y' is a parameter, and no input has",
        ),
        ("matmul", {"x": "float32[1]"}, {"x": "float32[1]"}, "two of its tensors are called 'x'"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(
    function: str, inputs: Given, outputs: Given, expected: str
) -> None:
    assert expected in refused(function, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize("function", ["matmul", "matmul_in_place"])
def test_answers_have_the_bits_of_a_direct_call(function: str) -> None:
    weights = __import__("hooks").WEIGHTS
    output = "output" if function == "matmul" else "y"
    random = np.random.default_rng(1)
    with served(python(function), {"N": 5}) as model:
        for rows in (1, 5, 3, 0, 5, 1):
            x = random.standard_normal((rows, 8)).astype(np.float32)
            assert model.run({"x": x})[output].tobytes() == (x @ weights).tobytes()


def test_a_scalar_is_an_array_without_dimensions() -> None:
    with served(python("scale")) as model:
        given = {"x": np.arange(4, dtype=np.float32), "factor": np.array(3, np.float32)}
        assert model.run(given)["output"].tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize("function", ["positive", "positive_by_name"])
def test_the_run_tells_a_size_that_no_input_has(function: str) -> None:
    with served(python(function), {"N": 6, "K": 6}) as model:
        for x in ([1, -1, 2], [-1], [1, 2, 3, 4, 5, 6], []):
            answer = model.run({"x": np.array(x, np.float32)})
            assert answer["places"].tolist() == [place for place, value in enumerate(x) if value > 0]
            assert answer["total"] == sum(x)


def test_an_output_beyond_its_room_is_said_and_the_next_request_is_served() -> None:
    with served(python("positive"), {"N": 6, "K": 2}) as model:
        with pytest.raises(OutputTooLarge) as caught:
            model.run({"x": np.ones(5, np.float32)})
        assert caught.value.dims == {"places": (5,)}
        assert "'places'" in str(caught.value)
        assert "[5]" in str(caught.value)
        assert model.run({"x": np.ones(2, np.float32)})["places"].tolist() == [0, 1]


def test_a_class_is_made_once_and_its_instance_called() -> None:
    with served(python("Counter"), slots=2) as model:
        assert [int(model.run(one(0))["output"]) for _ in range(5)] == [1, 2, 3, 4, 5]


def test_what_is_written_in_c_takes_its_inputs_in_order() -> None:
    settings = python("numpy:tanh", inputs={"a": "float32[N]"}, outputs={"b": "float32[N]"})
    with served(settings, {"N": 3}) as model:
        x = np.array([0.5, -1], np.float32)
        assert model.run({"a": x})["b"].tobytes() == np.tanh(x).tobytes()
    placed = python("numpy:tanh", inputs={"a": "float32[N]"}, outputs={"out": "float32[N]"})
    with served(placed, {"N": 3}) as model:
        assert model.run({"a": x})["out"].tobytes() == np.tanh(x).tobytes()


def test_views_are_the_slot_s_own_memory() -> None:
    with served(python("addresses"), {"N": 4}, slots=2) as model:
        for _ in range(4):
            slot = model.fill({"x": np.ones(3, np.float32)})
            model.channel.submit()
            model.serve(slot)
            model.channel.await_(slot)
            x, z = (
                offset_in(model.channel._core.segment_fd, int(address))
                for address in model.channel.output("y", slot)
            )
            tensors = model.channel._core.layout.tensors
            assert {x, z} <= {tensor[5] + slot * tensor[6] for tensor in tensors}
            model.channel.release(slot)


def offset_in(segment_fd: int, address: int) -> int:
    """Where in the segment an address of this process lies."""
    wanted = Path(f"/proc/self/fd/{segment_fd}").stat().st_ino
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        start, end = (int(bound, 16) for bound in fields[0].split("-"))
        if start <= address < end:
            assert int(fields[4]) == wanted, f"not in the segment: {line}"
            return address - start + int(fields[2], 16)
    raise AssertionError(f"{address:#x} is not mapped")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("raises", r"model 'model': TypeError: not this? way (hooks:raises, line 90 of hooks.py)"),
        ("wrong_shape", "it returned [2] for the output 'output': expected float32[1], which is [1]"),
        (
            "wrong_dtype",
            "it returned float64 for the output 'output': expected float32, as by .astype(np.float32)",
        ),
        ("wrong_kind", "it returned a float for the output 'output': expected a numpy array of float32"),
        ("nothing", "it returned nothing (None): expected the output 'output' float32[1]"),
        ("writes_input", "ValueError: assignment destination is read-only (hooks:writes_input, line "),
        ("unlocks_input", "ValueError: cannot set WRITEABLE flag to True of this array"),
        (
            "out_of_bounds",
            "IndexError: index 1 is out of bounds for axis 0 with size 1 (hooks:out_of_bounds, line",
        ),
        ("leaves", "SystemExit: that is all (hooks:leaves, line"),
        ("interrupts", "KeyboardInterrupt (hooks:interrupts, line"),
        ("unspeakable", "UnspeakableError (hooks:unspeakable, line"),
    ],
)
def test_a_function_that_fails_fails_its_request_only(function: str, expected: str) -> None:
    said = fails(function, one(1))
    assert said.startswith("model 'model': ")
    assert re_line(expected) in re_line(said)


EVERY_TYPE = [dtype for dtype in Dtype if dtype is not Dtype.STRING]


@pytest.mark.parametrize("dtype", EVERY_TYPE, ids=lambda dtype: dtype.name)
def test_every_element_type_goes_through_bit_for_bit(dtype: Dtype) -> None:
    text = f"{dtype.name.lower()}[N,3]"
    random = np.random.default_rng(6)
    with served(python("identity", {"x": text}, {"y": text}), {"N": 4}) as model:
        for rows in (1, 4, 0, 3):
            slot = model.channel.claim()
            model.channel.set_dims("x", (rows, 3), slot)
            place = model.channel.input("x", slot)
            data = random.integers(0, 2 if dtype is Dtype.BOOL else 256, place.nbytes, np.uint8)
            place.reshape(-1).view(np.uint8)[...] = data
            model.channel.submit()
            model.serve(slot)
            model.channel.await_(slot)
            assert model.channel.output("y", slot).tobytes() == data.tobytes()
            assert model.channel.output_dims("y", slot) == (rows, 3)
            model.channel.release(slot)


def strings(model: Served, name: str, given: list[str], **others: np.ndarray) -> list[str]:
    slot = model.channel.claim()
    model.channel.set_strings(name, given, slot)
    for other, value in others.items():
        model.channel.input(other, slot)[...] = value
    model.channel.submit()
    model.serve(slot)
    model.channel.await_(slot)
    answer = model.channel.strings("output", slot).tolist()
    model.channel.release(slot)
    return list(answer)


def test_strings_are_arrays_of_str() -> None:
    with served(python("greet"), {"N": 3}) as model:
        assert strings(model, "names", ["Ada", "ßé", ""], times=np.int64(2)) == [
            "hallo Ada hallo Ada ",
            "hallo ßé hallo ßé ",
            "hallo  hallo  ",
        ]
        assert strings(model, "names", ["x"], times=np.int64(0)) == [""]
        with pytest.raises(OutputTooLarge) as caught:
            strings(model, "names", ["x"], times=np.int64(100_000))
        assert (caught.value.dims, caught.value.text_bytes) == ({"output": (1,)}, 800_000)
        assert strings(model, "names", ["y"], times=np.int64(1)) == ["hallo y "]
    with served(python("long_words"), {"N": 4, "K": 1}) as model:
        assert strings(model, "text", ["a", "long", "b"]) == ["long"]
        with pytest.raises(OutputTooLarge) as caught:
            strings(model, "text", ["longer", "long", "b"])
        assert caught.value.dims == {"output": (2,)}
    with served(python("not_text"), {"N": 4}) as model:
        with pytest.raises(SidecamlError, match="it returned a int as string 1 of the output 'output'"):
            strings(model, "text", ["a", "bad"])
        assert strings(model, "text", ["a"]) == ["a"]


def test_strings_are_returned_and_not_written_in_place() -> None:
    given = {"inputs": {"x": "string[N]"}, "outputs": {"y": "string[N]"}}
    assert "expected that strings are returned" in refused("unannotated", **given)


def re_line(text: str) -> str:
    """Without the number of a line, which every edit of the functions changes."""
    return __import__("re").sub(r"line \d+", "line", text)


def test_memory_of_views_is_seen_as_it_is() -> None:
    value = ctypes.c_float(2.5)
    tensor = parse_type("x", "float32[1]")
    from ipc_server.engines.numpy_arrays import bits  # noqa: PLC0415 - beside what it is for

    seen = bits(ctypes.addressof(value), tensor, (1,), True)
    seen[0] = 4
    assert value.value == 4

"""Requests that the native lane runs together, as far as that was proven: each answer is what it is alone."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import models
import numpy as np
import onnxruntime
import pytest
from models import save, value
from onnx import helper
from served import HOW, Served, served

from ipc_server import _core, engines
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings
from ipc_server.tensor_text import parse_type

SLOTS = 12
Arrays = Mapping[str, np.ndarray]


@pytest.fixture(params=["in place", "staged"], autouse=True)
def how(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with a client that is trusted and with one that is not."""
    token = HOW.set(_core.STAGED if request.param == "staged" else 0)
    yield
    HOW.reset(token)


def plain(path: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    """Run single requests in an ordinary session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def run_all(model: Served, requests: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
    """Submit all of them before any is run; their answers."""
    slots = []
    for inputs in requests:
        slots.append(model.fill(inputs))
        model.channel.submit()
    answers = []
    for slot in slots:
        model.serve(slot)
        model.channel.await_(slot)
        outputs = model.channel.model.signature.outputs
        answers.append({output.name: model.channel.output(output.name, slot).copy() for output in outputs})
        model.channel.release(slot)
    return answers


def make_native(model: Served, inputs: Arrays, times: int = SLOTS) -> None:
    """Have every slot's first request of a kind run, which is Python's."""
    for _ in range(times):
        model.run(inputs)


def assert_as_alone(model: Served, path: Path, requests: Sequence[Arrays]) -> None:
    alone = plain(path)
    for answer, inputs in zip(run_all(model, requests), requests, strict=True):
        for name, expected in alone(inputs).items():
            assert answer[name].shape == expected.shape
            assert answer[name].tobytes() == expected.tobytes()


def rows(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def softmax(path: Path) -> Path:
    """`y`, the softmax of each row of `x`, float32[N,8]: both lie in place."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    return save(path, [node], [value("x", "float32", ["N", 8])], [value("y", "float32", ["N", 8])])


def second_axis(path: Path) -> Path:
    """`y` float32[N,2] from the sums of `x` float32[2,N,3]: rows are not first, and have to be gathered."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["rows"], perm=[1, 0, 2]),
        helper.make_node("ReduceMax", ["rows"], ["y"], axes=[2], keepdims=0),
    ]
    return save(path, nodes, [value("x", "float32", [2, "N", 3])], [value("y", "float32", ["N", 2])])


def with_rate(path: Path) -> Path:
    """`y` = `x` float32[N,4] times `rate` float32[], which requests share."""
    node = helper.make_node("Mul", ["x", "rate"], ["y"])
    inputs = [value("x", "float32", ["N", 4]), value("rate", "float32", [])]
    return save(path, [node], inputs, [value("y", "float32", ["N", 4])])


@pytest.mark.parametrize(
    ("make", "shape"),
    [(models.dynamic_mlp, (1, 64)), (softmax, (1, 8)), (second_axis, (2, 1, 3))],
    ids=["some in place", "all in place", "all gathered"],
)
def test_batches_have_the_bits_of_single_requests(
    make: Callable[[Path], Path], shape: tuple[int, ...], tmp_path: Path
) -> None:
    path, random = make(tmp_path / "m.onnx"), np.random.default_rng(3)
    with served(path, {"N": 1}, SLOTS, together=True) as model:
        make_native(model, {"x": rows(random, *shape)})
        for _ in range(5):
            # Batches begin at every slot, and some go over the ring's end.
            many = int(random.integers(1, SLOTS + 1))
            assert_as_alone(model, path, [{"x": rows(random, *shape)} for _ in range(many)])
        before = model.status
        assert_as_alone(model, path, [{"x": rows(random, *shape)} for _ in range(SLOTS)])
        after = model.status
    assert after.batched - before.batched == SLOTS
    assert after.served - before.served == SLOTS


@pytest.mark.parametrize("make", [models.dynamic_mlp, softmax], ids=["some in place", "all in place"])
@pytest.mark.parametrize("gather_from", [0, SLOTS + 1], ids=["never copied", "too few to copy"])
def test_without_copies_the_rings_end_parts_a_batch(
    gather_from: int, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path, random = make(tmp_path / "m.onnx"), np.random.default_rng(5)
    width = 64 if make is models.dynamic_mlp else 8
    with served(path, {"N": 1}, SLOTS, together=True, copies_from=(gather_from, 2)) as model:
        make_native(model, {"x": rows(random, 1, width)})
        for many in (5, SLOTS):
            before = model.status
            assert_as_alone(model, path, [{"x": rows(random, 1, width)} for _ in range(many)])
        after = model.status
    # Slots 5 to 11, and 0 to 4; on private memory nothing lies beside anything.
    parts = 0 if HOW.get() else 2
    assert after.batches - before.batches == parts
    assert after.batched - before.batched == (SLOTS if parts else 0)


def test_requests_of_several_rows_count_as_so_many(tmp_path: Path) -> None:
    path, random = models.dynamic_mlp(tmp_path / "m.onnx"), np.random.default_rng(4)
    settings = Settings("m", path, lane="native", max_batch=6)
    with served(settings, {"N": 4}, SLOTS, together=True) as model:
        for count, runs in ((1, 2), (2, 4), (3, 6), (4, 0)):
            make_native(model, {"x": rows(random, count, 64)})
            before = model.status
            assert_as_alone(model, path, [{"x": rows(random, count, 64)} for _ in range(SLOTS)])
            assert model.status.batches - before.batches == runs
        assert model.status.batched == 3 * SLOTS


def test_requests_of_other_sizes_are_run_apart(tmp_path: Path) -> None:
    path, random = models.dynamic_mlp(tmp_path / "m.onnx"), np.random.default_rng(5)
    with served(path, {"N": 2}, SLOTS, together=True) as model:
        for count in (1, 2):
            make_native(model, {"x": rows(random, count, 64)})
        mixed = [{"x": rows(random, 1 + number % 2, 64)} for number in range(SLOTS)]
        assert_as_alone(model, path, mixed)
        assert model.status.batches == 0


def test_only_what_shares_an_input_bit_for_bit_is_run_together(tmp_path: Path) -> None:
    path, random = with_rate(tmp_path / "m.onnx"), np.random.default_rng(6)
    with served(path, {"N": 1}, SLOTS, together=True) as model:
        make_native(model, {"x": rows(random, 1, 4), "rate": np.array(1, np.float32)})
        rates = [np.array(rate, np.float32) for rate in (2, 2, 2, 3, 3, 4, 4, 0.0, -0.0, 5, 5, 5)]
        before = model.status
        assert_as_alone(model, path, [{"x": rows(random, 1, 4), "rate": rate} for rate in rates])
        after = model.status
    # Of zeros, one is not the other.
    assert (after.batches - before.batches, after.batched - before.batched) == (4, 10)


def test_other_dimensions_are_batched_at_the_sizes_of_the_configuration(tmp_path: Path) -> None:
    path, random = models.identity("float32", ["N", "T"], tmp_path / "m.onnx"), np.random.default_rng(7)
    settings = Settings("m", path, lane="native", batch_at={"T": (8,)})
    with served(settings, {"N": 1, "T": 16}, SLOTS, together=True) as model:
        for size, batched in ((8, SLOTS), (16, 0), (3, 0)):
            make_native(model, {"x": rows(random, 1, size)})
            before = model.status
            assert_as_alone(model, path, [{"x": rows(random, 1, size)} for _ in range(SLOTS)])
            assert model.status.batched - before.batched == batched


def test_one_request_that_fails_leaves_the_others_their_answers(tmp_path: Path) -> None:
    path = models.rows_of_a_table(tmp_path / "m.onnx")
    with served(path, {"N": 1}, SLOTS, together=True) as model:
        make_native(model, {"index": np.array([1])})
        slots = []
        for number in range(SLOTS):
            slots.append(model.fill({"index": np.array([1000 if number == 5 else number])}))
            model.channel.submit()
        for number, slot in enumerate(slots):
            model.serve(slot)
            if number == 5:
                with pytest.raises(SidecamlError, match="indices element out of data bounds") as caught:
                    model.channel.await_(slot)
                assert caught.value.code is ErrorCode.ENGINE
                continue
            model.channel.await_(slot)
            assert model.channel.output("y", slot)[0, 0] == 4.0 * number
            model.channel.release(slot)
        assert model.status.failed == 1


def test_what_is_not_proven_runs_one_by_one(tmp_path: Path) -> None:
    path, random = tmp_path / "m.onnx", np.random.default_rng(8)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    save(path, nodes, [value("x", "float32", ["N", 8])], [value("y", "float32", ["N", 8])])
    with served(path, {"N": 1}, SLOTS, together=True) as model:
        make_native(model, {"x": rows(random, 1, 8)})
        assert_as_alone(model, path, [{"x": rows(random, 1, 8)} for _ in range(SLOTS)])
        assert model.status.batches == 0


def test_any_batches_what_mixes_its_items(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"]),
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "sum"], ["y"]),
    ]
    constants = {"zero": np.zeros(1, np.float32)}
    save(path, nodes, [value("x", "float32", ["N", 4])], [value("y", "float32", ["N", 4])], constants)
    with served(Settings("m", path, lane="native", batching="any"), {"N": 1}, SLOTS, together=True) as model:
        make_native(model, {"x": np.ones((1, 4), np.float32)})
        answers = run_all(model, [{"x": np.ones((1, 4), np.float32)}] * SLOTS)
        assert [answer["y"][0, 0] for answer in answers] == [4.0 * SLOTS] * SLOTS


# --- Python functions ---------------------------------------------------------------------------------------


def functions(folder: Path, text: str, **given: object) -> Settings:
    """Write a module of functions, and have `f` of it serve `x` float32[N,4] to `y` float32[N,4]."""
    name = f"functions_{folder.name}"
    (folder / f"{name}.py").write_text(f"import numpy as np\n\n\n{text}")
    x, y = parse_type("x", "float32[N,4]"), parse_type("y", "float32[N,4]")
    settings = Settings(
        *("m", None, "python"), callable=f"{name}:f", python_path=(folder,), inputs=(x,), outputs=(y,)
    )
    return dataclasses.replace(settings, **given)  # type: ignore[arg-type]


COUNTED = """
calls = []


def f(x):
    calls.append(len(x))
    return x * 2
"""


def test_functions_are_called_once_a_batch(tmp_path: Path) -> None:
    settings, random = functions(tmp_path, COUNTED), np.random.default_rng(9)
    with served(settings, {"N": 2}, SLOTS, together=True) as model:
        calls = sys.modules[settings.callable.partition(":")[0]].calls
        for count in (1, 2):
            make_native(model, {"x": rows(random, count, 4)})
            requests = [{"x": rows(random, count, 4)} for _ in range(SLOTS)]
            calls.clear()
            for answer, request in zip(run_all(model, requests), requests, strict=True):
                assert answer["y"].tobytes() == (request["x"] * 2).tobytes()
            assert calls == [count * SLOTS]


FAILING = """
def f(x):
    if (x < -99).any():
        raise ValueError("below \\ud800")
    return x + 1
"""


def test_a_function_that_raises_on_one_request_answers_the_others(tmp_path: Path) -> None:
    with served(functions(tmp_path, FAILING), {"N": 1}, SLOTS, together=True) as model:
        make_native(model, {"x": np.zeros((1, 4), np.float32)})
        slots = []
        for number in range(SLOTS):
            slots.append(model.fill({"x": np.full((1, 4), -100 if number == 5 else number, np.float32)}))
            model.channel.submit()
        for number, slot in enumerate(slots):
            model.serve(slot)
            if number == 5:
                with pytest.raises(
                    SidecamlError, match=r"model 'm': ValueError: below .* \(functions_"
                ) as caught:
                    model.channel.await_(slot)
                assert caught.value.code is ErrorCode.ENGINE
                continue
            model.channel.await_(slot)
            assert model.channel.output("y", slot)[0, 0] == number + 1
            model.channel.release(slot)


MIXING = """
def f(x):
    return x - x.mean(axis=0)
"""


def test_functions_that_mix_their_items_are_not_batched(tmp_path: Path) -> None:
    settings = functions(tmp_path, MIXING)
    engine = engines.load(settings)
    found = engines.batches_of(engine, settings)
    assert found.engine is engine and found.maker is None
    assert found.batching.why.startswith("in a run of 2 rows, answers are not those that they are alone")


RETURNS_LESS = """
def f(x):
    return x[:1]
"""


def test_functions_that_take_one_row_say_how_they_fail(tmp_path: Path) -> None:
    settings = functions(tmp_path, RETURNS_LESS)
    why = engines.batches_of(engines.load(settings), settings).batching.why
    assert why.startswith("a run of 2 rows fails: model 'm': ")


IN_PLACE = """
def f(x, y):
    np.multiply(x, 3, out=y)
"""


def test_functions_write_a_batch_in_place(tmp_path: Path) -> None:
    random = np.random.default_rng(10)
    with served(functions(tmp_path, IN_PLACE), {"N": 1}, SLOTS, together=True) as model:
        make_native(model, {"x": rows(random, 1, 4)})
        for _ in range(3):
            requests = [{"x": rows(random, 1, 4)} for _ in range(SLOTS)]
            for answer, request in zip(run_all(model, requests), requests, strict=True):
                assert answer["y"].tobytes() == (request["x"] * np.float32(3)).tobytes()
        assert model.status.batched == 3 * SLOTS

"""Which requests may be run together: what counts them, what is proven, and what is said where it is not."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from models import save, value
from onnx import TensorProto, helper

from ipc_server import engines
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.batching import SHARED, Batching, batching_of
from ipc_server.engines import batch_plan, batch_trial, certificate
from ipc_server.engines.batch_items import random_items, ulps_apart
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings
from ipc_server.signature import Signature
from ipc_server.tensor import NUMPY_DTYPE
from ipc_server.tensor_text import parse_type


def signature(inputs: dict[str, str], outputs: dict[str, str]) -> Signature:
    tensors = [tuple(parse_type(*item) for item in group.items()) for group in (inputs, outputs)]
    return Signature(*tensors)


def certified(path: Path, known: Batching | None = None, **given: object) -> Batching:
    settings = Settings(path.stem, path, lane="native", **given)  # type: ignore[arg-type]
    return engines.batches_of(engines.load(settings), settings, known).batching


def mixing(path: Path) -> Path:
    """`y` = `x` less its mean over all rows, float32[N,8]: an answer depends on its neighbours."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return save(path, nodes, [value("x", "float32", ["N", 8])], [value("y", "float32", ["N", 8])])


def leaking(path: Path) -> Path:
    """`y` = `x` plus a millionth of the largest of all rows: near what it is alone, and yet not its own."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[0]),
        helper.make_node("Mul", ["most", "little"], ["leak"]),
        helper.make_node("Add", ["x", "leak"], ["y"]),
    ]
    constants = {"little": np.array(1e-6, np.float32)}
    return save(path, nodes, [value("x", "float32", ["N", 8])], [value("y", "float32", ["N", 8])], constants)


def poisoned(path: Path) -> Path:
    """`y` = `x` plus 0 times the sum of all rows: the same bits, until a neighbour is not finite."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "rows"], ["sum"]),
        helper.make_node("Mul", ["sum", "zero"], ["leak"]),
        helper.make_node("Add", ["x", "leak"], ["y"]),
    ]
    constants = {"zero": np.zeros(1, np.float32), "rows": np.zeros(1, np.int64)}
    return save(path, nodes, [value("x", "float32", ["N", 8])], [value("y", "float32", ["N", 8])], constants)


def infectious(path: Path) -> Path:
    """`y` = `x`, and 1 more as soon as any row has more than 100,000."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[0]),
        helper.make_node("Greater", ["most", "limit"], ["beyond"]),
        helper.make_node("Cast", ["beyond"], ["more"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "more"], ["y"]),
    ]
    constants = {"limit": np.array(1e5, np.float32)}
    return save(path, nodes, [value("x", "float32", ["N", 8])], [value("y", "float32", ["N", 8])], constants)


def by_matrix(path: Path, columns: int = 5) -> Path:
    """`y` = `x` float32[N,7] times `w`, an input: ONNX Runtime has another kernel for one row."""
    inputs = [value("x", "float32", ["N", 7]), value("w", "float32", [7, columns])]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return save(path, [node], inputs, [value("y", "float32", ["N", columns])])


# --- What counts requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "outputs", "given", "dim", "axes"),
    [
        ({"x": "float32[N,64]"}, {"y": "float32[N,10]"}, {}, "N", (0, 0)),
        ({"x": "float32[2,N,64]"}, {"y": "float32[N]"}, {}, "N", (1, 0)),
        ({"x": "float32[N,4]", "rate": "int64[]"}, {"y": "float32[N]"}, {}, "N", (0, SHARED, 0)),
        ({"x": "float32[N,T]"}, {"y": "float32[N,T]"}, {"batch_at": {"T": (1,)}}, "N", (0, 0)),
        ({"x": "float32[N,T]"}, {"y": "float32[N,T]"}, {"batching": "any"}, "N", (0, 0)),
        (
            {"x": "float32[T,N]"},
            {"y": "float32[N,T]"},
            {"batch_dim": "T", "batch_at": {"N": (3,)}},
            "T",
            (0, 1),
        ),
    ],
)
def test_the_dimension_that_all_outputs_have_counts_requests(
    inputs: dict[str, str], outputs: dict[str, str], given: dict[str, object], dim: str, axes: tuple[int, ...]
) -> None:
    settings = Settings("m", **given)  # type: ignore[arg-type]
    plan = batch_plan.plan_for(signature(inputs, outputs), settings)
    assert (plan.dim, plan.axes) == (dim, axes)


@pytest.mark.parametrize(
    ("inputs", "outputs", "given", "why"),
    [
        (
            {"x": "float32[1,64]"},
            {"y": "float32[1]"},
            {},
            "no dimension of it is dynamic: export it",
        ),
        (
            {"x": "float32[N,4]"},
            {"y": "float32[4]"},
            {},
            "none of its dynamic dimensions stands once",
        ),
        ({"x": "float32[N,N]"}, {"y": "float32[N]"}, {}, "none of its dynamic dimensions"),
        ({"x": "float32[4]"}, {"y": "float32[N]"}, {}, "none of its dynamic dimensions"),
        (
            {"x": "float32[T,N]"},
            {"y": "float32[N,T]"},
            {},
            "'T' or 'N' may count requests: say which",
        ),
        (
            {"x": "float32[N,T]"},
            {"y": "float32[N]"},
            {},
            "'T' is dynamic as well: say at which sizes",
        ),
        ({"x": "string[N]"}, {"y": "float32[N]"}, {}, "'x' is of type string"),
        ({"x": "float32[N]"}, {"y": "int4[N,2]"}, {}, "'y' is of type int4"),
        ({"x": "float32[N]"}, {"y": "float32[N]"}, {"batch_dim": "M"}, "no dimension is called 'M'"),
        (
            {"x": "float32[N,T]"},
            {"y": "float32[N]"},
            {"batch_dim": "T"},
            "batch_dim: 'T' does not stand once in every",
        ),
        (
            {"x": "float32[N]"},
            {"y": "float32[N]"},
            {"batch_at": {"T": (1,)}},
            "batch_at: 'T' is neither another dynamic dimension",
        ),
    ],
)
def test_what_nothing_counts_says_why(
    inputs: dict[str, str], outputs: dict[str, str], given: dict[str, object], why: str
) -> None:
    settings = Settings("m", **given)  # type: ignore[arg-type]
    with pytest.raises(batch_plan.NotBatched) as caught:
        batch_plan.plan_for(signature(inputs, outputs), settings)
    assert why in str(caught.value)


# --- What is proven -----------------------------------------------------------------------------------------


def test_a_network_over_rows_is_batched_with_the_same_bits(tmp_path: Path) -> None:
    found = certified(models.dynamic_mlp(tmp_path / "m.onnx"), max_batch=12)
    assert (found.dim, found.policy, found.axes, found.shared) == ("N", "exact", (0, 0), ())
    assert found.in_place and 2 <= found.rest_from <= found.gather_from <= found.most <= 12
    assert len(found.costs_ns) == found.most + 1 and all(found.costs_ns[1:])


def test_what_lies_in_place_is_not_counted_as_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 64 KiB of x lie in place, and the 4 bytes of y that do not are soon copied.
    node = helper.make_node("ReduceMax", ["x"], ["y"], axes=[1])
    inputs, outputs = [value("x", "float32", ["N", 16384])], [value("y", "float32", ["N", 1])]
    path = save(tmp_path / "m.onnx", [node], inputs, outputs)
    times = {(16384,): 5_000.0, (1,): 1.0}
    monkeypatch.setattr(batch_trial, "_copying_ns", lambda tensor, dims, axis: times[dims[1:]])
    # One run takes 2 us and 1 us for each row.
    monkeypatch.setattr(batch_trial.Trial, "time", lambda trial, arrays, rows: (2000 + 1000 * rows,) * 2)
    found = certified(path, max_batch=8)
    assert (found.gather_from, found.rest_from, found.in_place, found.most) == (0, 2, True, 8)
    times[(1,)] = 1500.0
    found = certified(path, max_batch=8)
    assert (found.gather_from, found.rest_from, found.in_place) == (0, 5, True)
    times[(1,)] = 2000.0
    found = certified(path, max_batch=8)
    assert not found.is_on and found.why == "copying requests together takes longer than running them apart"


@pytest.mark.parametrize("policy", ["exact", "ulp 100000000"])
@pytest.mark.parametrize("model", [mixing, leaking])
def test_items_that_depend_on_their_neighbours_are_not_batched(
    model: object, policy: str, tmp_path: Path
) -> None:
    found = certified(model(tmp_path / "m.onnx"), batching=policy)  # type: ignore[operator]
    assert not found.is_on
    assert found.why.startswith("in a run of 2 rows, a") and found.dim == "N"


@pytest.mark.parametrize("model", [poisoned, infectious])
@pytest.mark.parametrize("policy", ["exact", "ulp 1000"])
def test_a_neighbour_that_is_no_number_spoils_no_answer(model: Any, policy: str, tmp_path: Path) -> None:
    found = certified(model(tmp_path / "m.onnx"), batching=policy)
    assert found.why == f"in a run of 2 rows, answers are not those that they are alone ({policy})"


def test_a_model_that_is_run_on_numbers_only_is_batched_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = batch_trial.Trial.run

    def only_numbers(trial: batch_trial.Trial, arrays: list[np.ndarray], *given: Any) -> list[np.ndarray]:
        if not all(np.isfinite(array).all() for array in arrays):
            raise batch_trial.RunFailed("it takes numbers only")
        return run(trial, arrays, *given)

    monkeypatch.setattr(batch_trial.Trial, "run", only_numbers)
    found = certified(models.dynamic_mlp(tmp_path / "m.onnx"), max_batch=4)
    assert found.is_on and "numbers only" not in found.why


def test_another_kernel_for_several_rows_is_seen_and_how_far_off_it_is(tmp_path: Path) -> None:
    path = by_matrix(tmp_path / "m.onnx")
    exact, near = certified(path), certified(path, batching="ulp 10000")
    assert not exact.is_on
    assert exact.why == "in a run of 2 rows, answers are not those that they are alone (exact)"
    assert near.is_on and near.policy == "ulp 10000" and near.shared == ("w",)


def test_any_is_the_operators_word(tmp_path: Path) -> None:
    found = certified(mixing(tmp_path / "m.onnx"), batching="any", max_batch=7)
    assert found.is_on and found.policy == "any"


def test_a_graph_that_only_takes_one_row_says_how_it_fails(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    inputs = [value("x", "float32", ["N"]), value("shape", "int64", [1])]
    path = save(tmp_path / "m.onnx", [node], inputs, [value("y", "float32", ["N"])])
    assert certified(path, batch_at={"shape": (1,)}).why.startswith("a run of 2 rows, shape = 1 fails: ")


def test_a_size_that_only_the_run_can_tell_is_not_batched(tmp_path: Path) -> None:
    node = helper.make_node("Compress", ["x", "chosen"], ["y"], axis=1)
    inputs = [value("x", "float32", ["N", 4]), value("chosen", "bool", [4])]
    path = save(tmp_path / "m.onnx", [node], inputs, [value("y", "float32", ["N", "count"])])
    assert certified(path).why == "the size of its output 'y' is known only after a run"


def test_an_output_that_is_an_input_is_not_batched(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    inputs, outputs = [value("x", "float32", ["N", 4])], [value("y", "float32", ["N", 4])]
    path = save(tmp_path / "m.onnx", nodes, inputs, [*outputs, *inputs])
    assert certified(path).why == "its output 'x' is not written where it is told to"


def test_whole_numbers_stay_where_the_model_can_be_run(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "index"], ["y"])
    inputs, outputs = [value("index", "int64", ["N", 2])], [value("y", "float32", ["N", 2, 4])]
    for size, able in ((200, True), (2, True), (1, True)):
        table = {"table": np.arange(4 * size, dtype=np.float32).reshape(size, 4)}
        path = save(tmp_path / f"{size}.onnx", [node], inputs, outputs, table)
        assert certified(path, max_batch=4).is_on is able


def test_random_items_on_which_it_fails_are_told(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "index"], ["y"])
    inputs, outputs = [value("index", "int64", ["N"])], [value("y", "float32", ["N", 4])]
    path = save(tmp_path / "m.onnx", [node], inputs, outputs, {"table": np.zeros((0, 4), np.float32)})
    assert certified(path).why.startswith("it could not be tested, because it fails on random items: ")


def test_names_that_no_message_can_tell_of_are_not_batched(tmp_path: Path) -> None:
    shared = [value(f"{number}" * 1000, "float32", ["N" if not number else 4]) for number in range(6)]
    node = helper.make_node("Identity", [shared[0].name], ["y"])
    path = save(tmp_path / "m.onnx", [node], shared, [value("y", "float32", ["N"])])
    assert certified(path, max_batch=2).why == "what is to be told of it is too long for a control message"


def test_other_dimensions_are_proven_at_the_sizes_that_are_named(tmp_path: Path) -> None:
    path = models.identity("float32", ["N", "T"], tmp_path / "m.onnx")
    found = certified(path, batch_at={"T": (3, 8)}, max_batch=5)
    assert found.is_on and found.sizes == {"T": (3, 8)} and found.in_place
    whole = signature({"x": "float32[N,T]"}, {"y": "float32[N,T]"})
    assert found.holds_for(whole, [(0, (1, 8)), (1, (1, 8))])
    assert not found.holds_for(whole, [(0, (1, 4)), (1, (1, 4))])


def test_shared_inputs_get_the_values_that_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Expand", ["one", "rate"], ["ones"]),
        helper.make_node("Mul", ["x", "ones"], ["y"]),
    ]
    inputs = [value("x", "float32", ["N", 4]), value("rate", "int64", [1])]
    path = save(
        tmp_path / "m.onnx", nodes, inputs, [value("y", "float32", ["N", 4])], {"one": np.ones(1, np.float32)}
    )
    assert certified(path, batch_at={"rate": (4,)}).shared == ("rate",)
    assert "fails on random items, rate = 3" in certified(path, batch_at={"rate": (3,)}).why


def test_the_time_that_it_may_take_limits_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "BUDGET_S", 0.0)
    runs = []
    run = batch_trial.Trial.run
    monkeypatch.setattr(batch_trial.Trial, "run", lambda *given: runs.append(given) or run(*given))
    found = certified(models.dynamic_mlp(tmp_path / "m.onnx"))
    assert found.why == "0 s of processor time did not suffice to run some items one by one"
    assert not found.is_on and not runs


def test_a_place_that_has_a_part_of_the_time_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "BUDGET_S", 0.0)
    path = models.identity("float32", ["N", "T"], tmp_path / "m.onnx")
    found = certified(path, batch_at={"T": (3, 8)})
    assert found.why.startswith("its part of 0 s of processor time did not suffice")


class Clocks:
    """In place of the clocks: each goes on by so much whenever it is read."""

    def __init__(self, processor_s: float, clock_s: float) -> None:
        self.thread_time = itertools.count(0.0, processor_s).__next__
        self.monotonic = itertools.count(0.0, clock_s).__next__


def test_only_its_own_processor_time_counts_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.dynamic_mlp(tmp_path / "m.onnx")
    monkeypatch.setattr(certificate, "BUDGET_S", 2.0)
    monkeypatch.setattr(certificate, "LONGEST_S", 10.0)

    def found(processor_s: float, clock_s: float) -> Batching:
        monkeypatch.setattr(certificate, "time", Clocks(processor_s, clock_s))
        return certified(path, max_batch=3)

    # Some thirty runs: they take more than 2 s of whichever goes on, and less than 10.
    assert (found(0.0, 0.1).most, found(0.0, 0.1).why) == (3, "")
    assert found(0.1, 0.0).why.startswith("2 s of processor time did not suffice")
    assert found(0.0, 1.0).why.startswith("10 s did not suffice")


def test_the_memory_that_it_may_take_limits_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.dynamic_mlp(tmp_path / "m.onnx")
    row = 4 * (64 + 10)
    for there, most, why in (
        (3 * row, 3, "more than 3 rows take more than the {} bytes that are tested with"),
        (2 * row - 1, 1, "two rows of it take more than the {} bytes that are tested with"),
    ):
        for module in (certificate, batch_trial):
            monkeypatch.setattr(module, "LARGEST_BYTES", there)
        found = certified(path)
        assert (found.most, found.why) == (most, why.format(there))


def test_what_a_run_takes_is_measured_on_ordinary_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Denormals, with which it was proven before, take some processors ten times as long.
    tiny, timed = np.finfo(np.float32).tiny, []
    time = batch_trial.Trial.time

    def watched(trial: batch_trial.Trial, arrays: list[np.ndarray], rows: int) -> tuple[int, int]:
        measured = time(trial, arrays, rows)
        seen = trial._seen(0, rows, trial.gathered)
        timed.append((rows, bool(np.isfinite(seen).all() and (np.abs(seen[seen != 0]) >= tiny).all())))
        return measured

    monkeypatch.setattr(batch_trial.Trial, "time", watched)
    certified(models.dynamic_mlp(tmp_path / "m.onnx"), max_batch=8)
    assert timed == [(rows, True) for rows in range(1, 9)]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"batching": "off"}, "batching is switched off"),
        ({"max_batch": 1}, "batching is switched off"),
        ({"lane": "python"}, "the python lane runs requests one by one"),
    ],
)
def test_what_is_never_batched_says_why(given: dict[str, object], why: str, tmp_path: Path) -> None:
    path = models.dynamic_mlp(tmp_path / "m.onnx")
    settings = dataclasses.replace(Settings("m", path), **given)  # type: ignore[arg-type]
    assert engines.batches_of(engines.load(settings), settings).batching.why == why


def test_carried_state_is_not_batched(tmp_path: Path) -> None:
    path = models.recurrent(tmp_path / "m.onnx", state=("N", 8), x=("N", 8))
    settings = Settings("m", path, state={"next": "state"})
    assert "state" in engines.batches_of(engines.load(settings), settings).batching.why


# --- What is kept of it -------------------------------------------------------------------------------------


def test_a_certificate_is_used_again_for_the_same_and_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.dynamic_mlp(tmp_path / "m.onnx")
    found = batching_of(certified(path).record())
    monkeypatch.setattr(certificate, "BUDGET_S", 0.0)
    assert certified(path, known=found) == found
    assert not certified(path, known=found, batching="ulp 1").is_on
    models.dynamic_mlp(path)
    assert not certified(path, known=found).is_on


@pytest.mark.parametrize(
    ("engine", "runs_it", "does_not"),
    [
        ("onnx", ["onnxruntime"], ["torch"]),
        ("python", ["numpy"], ["onnxruntime", "torch"]),
        ("torch", ["torch", "numpy"], ["onnxruntime"]),
    ],
)
def test_a_certificate_holds_for_the_versions_of_what_runs_the_model(
    engine: str, runs_it: list[str], does_not: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings("m", models.dynamic_mlp(tmp_path / "m.onnx"), engine=engine)
    versions = {"onnxruntime": "1", "numpy": "1", "torch": "1"}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    key = certificate.key_of(settings)
    assert certificate.key_of(settings) == key
    for packages, is_same in ((runs_it, False), (does_not, True)):
        for package in packages:
            versions[package] = "2"
            assert (certificate.key_of(settings) == key) is is_same
            versions[package] = "1"


def test_a_certificate_holds_for_one_kind_of_processor(tmp_path: Path) -> None:
    def processor(name: str, flags: str) -> str:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\n")
        return certificate._processor(tmp_path / "cpuinfo")

    known = processor("One 9000", "sse2 avx2")
    assert processor("One 9000", "sse2 avx2") == known
    assert processor("Two 9000", "sse2 avx2") != known
    assert processor("One 9000", "sse2 avx2 avx512f") != known


def test_what_is_recorded_is_read_again() -> None:
    found = Batching(
        "N", "ulp 4", 9, "", 3, 2, True, (0, SHARED, 1), ("w",), {"T": (1, 2)}, (0, 5), {"a": [1]}
    )
    assert batching_of(found.record()) == found
    told = batching_of(found.describe())
    assert (told.dim, told.most, told.sizes, told.costs_ns) == ("N", 9, {"T": (1, 2)}, ())


@pytest.mark.parametrize(
    "body", [{}, {"most": -1, "gather_from": 0}, {"most": 1, "gather_from": 0, "axes": ["N"]}]
)
def test_what_is_no_record_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(SidecamlError) as caught:
        batching_of(body)
    assert caught.value.code is ErrorCode.PROTOCOL


def test_slots_lie_side_by_side_where_rows_are_whole_and_aligned() -> None:
    found = Batching("N", "exact", 8, in_place=True, axes=(0, SHARED, 1, 1, 0))
    inputs = {"x": "float32[N,T]", "w": "float32[8]", "z": "float32[2,N,4]"}
    outputs = {"y": "float32[1,N,8]", "s": "float32[N]"}
    whole = signature(inputs, outputs)

    def packed(batching: Batching, width: int) -> list[bool]:
        return [spec.packed for spec in batching.packed(whole, whole.bind({"N": 4, "T": width}))]

    assert packed(found, 4) == [True, False, False, True, False]
    assert packed(found, 5) == [False, False, False, True, False]
    assert not any(packed(dataclasses.replace(found, in_place=False), 4))
    assert not any(packed(Batching(), 4))


# --- Items and their distance -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [dtype for dtype in NUMPY_DTYPE if dtype is not Dtype.STRING])
def test_random_items_are_numbers_of_every_type(dtype: Dtype) -> None:
    random = np.random.default_rng(1)
    items = random_items(random, dtype, (64, 5), 7, uneven=True)
    assert items.shape == (64, 5) and items.dtype == NUMPY_DTYPE[dtype]
    assert len(np.unique(items)) > 1
    if items.dtype.kind in "fc":
        assert np.isfinite(items).all()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_ulps_count_floats_between(kind: type) -> None:
    dtype = next(dtype for dtype, numpy_dtype in NUMPY_DTYPE.items() if numpy_dtype == kind)
    one, next_one = np.array([1], kind), np.nextafter(np.array([1], kind), np.array([2], kind))
    smallest = np.nextafter(np.array([0], kind), np.array([1], kind))
    nan, other_nan = np.array([np.nan], kind), -np.array([np.nan], kind)
    assert ulps_apart(dtype, one, one) == 0
    assert ulps_apart(dtype, one, next_one) == ulps_apart(dtype, next_one, one) == 1
    assert ulps_apart(dtype, smallest, -smallest) == 2
    assert ulps_apart(dtype, np.array([0], kind), -np.array([0], kind)) == 0
    assert ulps_apart(dtype, nan, other_nan) == 0
    assert ulps_apart(dtype, nan, one) > 1
    assert ulps_apart(dtype, np.array([-np.inf], kind), np.array([np.inf], kind)) > 2**13


def test_ulps_of_types_that_numpy_lacks_are_those_of_their_bits() -> None:
    one = np.array([0x3F80], np.uint16)
    assert ulps_apart(Dtype.BFLOAT16, one, one + np.uint16(3)) == 3
    assert ulps_apart(Dtype.FLOAT8E5M2, np.array([0x01], np.uint8), np.array([0x81], np.uint8)) == 2


def test_whole_numbers_are_the_same_or_far_apart() -> None:
    one = np.array([1], np.int32)
    assert ulps_apart(Dtype.INT32, one, one) == 0
    assert ulps_apart(Dtype.INT32, one, one + np.int32(1)) > 2**60
    halves = np.array([1 + 1j], np.complex64)
    assert ulps_apart(Dtype.COMPLEX64, halves, halves + np.complex64(2**-23)) == 1

"""The onnx engine on the memory of slots: the bits of plain ONNX Runtime, clear words for what cannot be."""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import models
import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import CASES, Case, floats
from models import save, value
from onnx import TensorProto, helper
from served import LANE, LANES, served

from ipc_server import _core, engines
from ipc_server.abi import DTYPE_BITS, MAX_RANK, MAX_TENSORS, Dtype, ErrorCode
from ipc_server.engines.onnx_binding import MOST_BINDINGS
from ipc_server.errors import OutputTooLarge, SidecamlError
from ipc_server.settings import Settings
from ipc_server.tensor import NUMPY_DTYPE


@pytest.fixture(autouse=True, params=LANES)
def lane(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here in each lane."""
    token = LANE.set(request.param)
    yield request.param
    LANE.reset(token)


def plain(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run in an ordinary session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, inputs)
    return outputs


def unchecked(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> Path:
    """Write a model that need not be valid."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def identity_of(kind: int, shape: list[int], path: Path) -> Path:
    """Identity of any ONNX type."""
    tensors = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    return unchecked(path, [helper.make_node("Identity", ["x"], ["y"])], tensors[:1], tensors[1:])


def refused_load(code: ErrorCode, path: Path) -> str:
    """Load, expect this error, and return its sentence."""
    with pytest.raises(SidecamlError) as caught:
        engines.load(Settings("m", path, lane=LANE.get()))
    assert str(caught.value).isprintable()
    assert caught.value.code is code, caught.value
    return str(caught.value)


def patterns(dtype: Dtype, count: int) -> np.ndarray:
    """Elements whose bits tell whether anybody touched them: all kinds of NaN, -0.0, subnormals, extremes."""
    if dtype is Dtype.BOOL:
        return np.arange(count) % 3 == 0
    size = DTYPE_BITS[dtype] // 8
    bits = [0, 1 << 8 * size - 1, (1 << 8 * size) - 1, (1 << 8 * size - 1) - 1, 1]
    nans = {
        Dtype.FLOAT16: [0x7E01, 0xFE55, 0x7C01, 0x7C00, 0xFC00],
        Dtype.BFLOAT16: [0x7FC1, 0xFFD5, 0x7F81, 0x7F80, 0xFF80],
        Dtype.FLOAT32: [0x7FC00001, 0xFFC12345, 0x7F800001, 0x7F800000, 0xFF800000],
        Dtype.FLOAT64: [0x7FF8000000000001, 0xFFF8000000012345, 0x7FF0000000000001, 0x7FF << 52, 0xFFF << 52],
    }
    chosen = itertools.islice(itertools.cycle(bits + nans.get(dtype, [])), count)
    return np.array(list(chosen), np.dtype(f"u{size}")).view(NUMPY_DTYPE[dtype])


# --- The same bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.IDENTITY_TYPES)
def test_every_element_type_passes_bit_for_bit(name: str, tmp_path: Path) -> None:
    dtype = Dtype[name.upper()]
    x = patterns(dtype, 12).reshape(3, 4)
    with served(models.identity(name, [3, 4], tmp_path / "m.onnx")) as model:
        y = model.run({"x": x})["y"]
    assert y.dtype == NUMPY_DTYPE[dtype]
    assert y.tobytes() == x.tobytes()


def test_bfloat16_is_computed_as_such(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "wide"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.BFLOAT16),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", "bfloat16", [3])], [value("y", "bfloat16", [3])])
    x = np.array([1.5, -2.25, 1e30], ml_dtypes.bfloat16)
    with served(path) as model:
        y = model.run({"x": x.view(np.uint16)})["y"].view(ml_dtypes.bfloat16)
    assert y.tolist() == (x + x).tolist()


@pytest.mark.parametrize("rank", range(MAX_RANK + 1))
def test_every_rank_passes(rank: int, tmp_path: Path) -> None:
    shape = [2 if axis % 5 == 0 else 1 for axis in range(rank)]
    x = floats(*shape)
    with served(models.identity("float32", shape, tmp_path / "m.onnx")) as model:
        y = model.run({"x": x})["y"]
    assert y.shape == tuple(shape)
    assert y.tobytes() == x.tobytes()


@pytest.mark.parametrize("shape", [[0], [2, 0, 3], [0, 0]])
def test_tensors_without_elements_pass(shape: list[int], tmp_path: Path) -> None:
    with served(models.identity("float64", shape, tmp_path / "m.onnx")) as model:
        assert model.run({"x": np.empty(shape)})["y"].shape == tuple(shape)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_outputs_are_plain_onnx_runtimes_and_inputs_stay(case: Case, tmp_path: Path) -> None:
    path = case.build(tmp_path / "m.onnx")
    expected = plain(path, case.inputs)
    with served(path, case.dims, slots=2) as model:
        # Several times round the slots: the first run of each binding is not like the others.
        for _ in range(6):
            slot = model.fill(case.inputs)
            model.channel.submit()
            model.serve(slot)
            model.channel.await_(slot)
            found = [model.channel.output(t.name, slot) for t in model.channel.model.signature.outputs]
            assert [array.shape for array in found] == [array.shape for array in expected]
            assert [array.tobytes() for array in found] == [array.tobytes() for array in expected]
            for name, given in case.inputs.items():
                assert model.channel.input(name, slot).tobytes() == given.tobytes()
            model.channel.release(slot)


COPYING = {"data dependent", "nothing found", "input as output", "fixed and not"}


@pytest.mark.parametrize("name", CASES.keys() - COPYING)
def test_nothing_is_copied_where_sizes_are_known(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("copied")

    monkeypatch.setattr(ctypes, "memmove", forbidden)
    case = CASES[name]
    with served(case.build(tmp_path / "m.onnx"), case.dims) as model:
        model.run(case.inputs)
        model.run(case.inputs)


def test_the_engine_gets_addresses_inside_the_segment(tmp_path: Path) -> None:
    path = models.two_in_two_out(tmp_path / "m.onnx")
    with served(path, slots=3) as model:
        core = model.lane._core
        layout = model.channel._core.layout
        start = core.tensor_address(0, 0, 0) - layout.tensors[0][5]
        for slot, tensor in itertools.product(range(3), range(4)):
            _, _, _, _, _, offset, stride, size, _ = layout.tensors[tensor]
            assert core.tensor_address(0, slot, tensor) == start + offset + slot * stride
            assert offset + slot * stride + size <= layout.segment_bytes


# --- Dynamic dimensions -------------------------------------------------------------------------------------


def test_requests_of_one_slot_may_differ_in_their_dims(tmp_path: Path) -> None:
    path = models.dynamic_mlp(tmp_path / "m.onnx")
    with served(path, {"N": 8}) as model:
        for count in (1, 8, 3, 0, 8, 1):
            x = floats(count, 64)
            assert model.run({"x": x})["y"].tobytes() == plain(path, {"x": x})[0].tobytes()


def test_bindings_are_kept_up_to_a_number(tmp_path: Path) -> None:
    path = models.identity("float32", ["N"], tmp_path / "m.onnx")
    with served(path, {"N": 3 * MOST_BINDINGS}) as model:
        for count in [*range(3 * MOST_BINDINGS), *range(5)]:
            x = floats(count)
            assert model.run({"x": x})["y"].tobytes() == x.tobytes()
        assert len(model.lane._runners[0][0]._bindings) == MOST_BINDINGS


def test_inputs_must_agree_on_a_named_dimension(tmp_path: Path) -> None:
    case = CASES["attention"]
    with served(case.build(tmp_path / "m.onnx"), case.dims) as model:
        with pytest.raises(SidecamlError) as caught:
            model.run({"q": floats(3, 8), "k": floats(5, 8), "mask": np.ones((2, 5), bool)})
        assert caught.value.code is ErrorCode.BAD_DIMS
        assert "'N'" in str(caught.value)
        assert "3 in input 'q' and 2 in input 'mask'" in str(caught.value)
        assert model.run(case.inputs)["y"].shape == (3, 8)


def test_fixed_dimensions_of_a_dynamic_input_stay_fixed(tmp_path: Path) -> None:
    with served(models.dynamic_mlp(tmp_path / "m.onnx"), {"N": 8}) as model:
        with pytest.raises(
            SidecamlError, match=r"'x' came as \[2, 63\]: the model takes \[N, 64\]"
        ) as caught:
            model.run({"x": floats(2, 63)})
        assert caught.value.code is ErrorCode.BAD_DIMS


def test_an_output_that_does_not_fit_says_how_large_it_is(tmp_path: Path) -> None:
    with served(models.data_dependent(tmp_path / "m.onnx"), {"count": 2}) as model:
        for _ in range(2):
            with pytest.raises(
                SidecamlError, match=r"'y' came out as \[1, 8\], 64 bytes.*\[1, 2\]"
            ) as caught:
                model.run({"x": np.ones(8, np.float32)})
            assert caught.value.code is ErrorCode.OUTPUT_TOO_LARGE
            assert model.run({"x": np.float32([0, 0, 1, 0, 0, 0, 0, 2])})["y"].tolist() == [[2, 7]]


def test_dimensions_without_a_name_are_called_after_their_tensor(tmp_path: Path) -> None:
    node = helper.make_node("Abs", ["x"], ["y"])
    shape = [None, "M", -1, 2]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    path = unchecked(tmp_path / "m.onnx", [node], tensors[:1], tensors[1:])
    dims = {"x[0]": 2, "M": 3, "x[2]": 2, "y[0]": 2, "y[2]": 2}
    with served(path, dims) as model:
        assert model.channel.model.signature.inputs[0].shape == ("x[0]", "M", "x[2]", 2)
        x = floats(1, 3, 2, 2)
        assert model.run({"x": x})["y"].tobytes() == np.abs(x).tobytes()


def test_a_model_that_does_not_keep_to_the_dims_it_declares_is_served(tmp_path: Path) -> None:
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    path = unchecked(
        tmp_path / "m.onnx", [node], [value("x", "float32", ["N"])], [value("y", "float32", ["N"])]
    )
    with served(path, {"N": 8}) as model:
        for count in (2, 4, 2):
            x = floats(count)
            assert model.run({"x": x})["y"].tobytes() == np.concatenate([x, x]).tobytes()
        with pytest.raises(SidecamlError, match="came out as") as caught:
            model.run({"x": floats(5)})
        assert caught.value.code is ErrorCode.OUTPUT_TOO_LARGE


def test_the_dims_declared_may_prove_wrong_at_any_request(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Compress", ["x", "positive"], ["y"], axis=0),
    ]
    zero = {"zero": np.float32(0)}
    path = save(
        tmp_path / "m.onnx", nodes, [value("x", "float32", ["N"])], [value("y", "float32", ["N"])], zero
    )
    with served(path, {"N": 4}) as model:
        for x in ([1, 2, 3, 4], [1, -2, 3, -4], [5, 6, 7, 8], [-1, -2, -3, -4]):
            y = model.run({"x": np.float32(x)})["y"]
            assert y.tolist() == [item for item in x if item > 0]


def test_an_output_of_another_shape_than_its_fixed_one_is_an_engine_error(tmp_path: Path) -> None:
    node = helper.make_node("Abs", ["x"], ["y"])
    path = unchecked(
        tmp_path / "m.onnx", [node], [value("x", "float32", ["N"])], [value("y", "float32", [4])]
    )
    with served(path, {"N": 8}) as model:
        with pytest.raises(
            SidecamlError, match=r"'y' came out as \[3\] and the model declares \[4\]"
        ) as caught:
            model.run({"x": floats(3)})
        assert caught.value.code is ErrorCode.ENGINE
        assert model.run({"x": np.float32([1, -1, 2, -2])})["y"].tolist() == [1, 1, 2, 2]


# --- Failures of a run --------------------------------------------------------------------------------------


def test_a_failed_run_says_why_and_the_next_one_works(tmp_path: Path) -> None:
    with served(models.fails_inside(tmp_path / "m.onnx")) as model:
        good = {"x": np.ones(6, np.float32), "shape": np.array([3, 2], np.int64)}
        bad = {**good, "shape": np.array([4, 4], np.int64)}
        for _ in range(3):
            with pytest.raises(SidecamlError, match=r"Reshape.*requested shape:\{4,4\}") as caught:
                model.run(bad)
            assert caught.value.code is ErrorCode.ENGINE
            assert model.run(good)["y"].tolist() == [7] * 6


def test_a_failed_run_writes_nothing_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(models.fails_inside(tmp_path / "m.onnx")) as model:
        capfd.readouterr()
        with pytest.raises(SidecamlError):
            model.run({"x": np.ones(6, np.float32), "shape": np.array([4, 4], np.int64)})
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "ONNX Runtime does not say why"),
        ("plain words", "plain words"),
        ("\n\n  first line \nsecond", "first line"),
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Load model from /a b/c.onnx failed:No graph.",
            "No graph.",
        ),
        (
            "Error in execution: Non-zero status code returned while running Add node. Name:'sum' Status "
            "Message: /onnxruntime_src/a/b.cc:87 virtual OrtValue* ort::K::M(int, const S&) const x == y was "
            "false. Sizes",
            "node 'sum' (Add): x == y was false. Sizes",
        ),
    ],
)
def test_sentences_keep_what_a_person_needs(text: str, expected: str) -> None:
    assert _core.sentence(text) == expected


# --- Loading ------------------------------------------------------------------------------------------------


def test_files_that_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert f"{path} cannot be read: No such file" in refused_load(ErrorCode.MODEL_FAILED, path)
    assert "is a directory" in refused_load(ErrorCode.MODEL_FAILED, tmp_path)
    path.touch()
    assert "is empty" in refused_load(ErrorCode.MODEL_FAILED, path)
    assert "Not a directory" in refused_load(ErrorCode.MODEL_FAILED, path / "below")
    assert "is no path" in refused_load(ErrorCode.MODEL_FAILED, Path("a\0b"))
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in refused_load(ErrorCode.MODEL_FAILED, tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    assert "regular" in refused_load(ErrorCode.MODEL_FAILED, tmp_path / "fifo")
    for garbage in (b"garbage" * 100, b"\x00", models.small_mlp(tmp_path / "good.onnx").read_bytes()[:5000]):
        path.write_bytes(garbage)
        assert f"{path} could not be loaded" in refused_load(ErrorCode.MODEL_FAILED, path)


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(SidecamlError, match="no engine 'tensorflow': expected onnx, python"):
        engines.load(Settings("m", engine="tensorflow"))


@pytest.mark.parametrize("kind", [TensorProto.COMPLEX64, TensorProto.COMPLEX128])
def test_element_types_that_onnx_runtime_does_not_know(kind: int, tmp_path: Path) -> None:
    assert "complex" in refused_load(ErrorCode.MODEL_FAILED, identity_of(kind, [2], tmp_path / "m.onnx"))


def test_sequences_maps_and_optionals_are_not_carried(tmp_path: Path) -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    sequence = helper.make_sequence_type_proto(tensor)
    path = unchecked(
        tmp_path / "m.onnx",
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [value("x", "float32", [2])],
        [helper.make_value_info("y", sequence)],
    )
    assert "output 'y' is a seq(tensor(float))" in refused_load(ErrorCode.UNSUPPORTED, path)
    optional = helper.make_value_info("x", helper.make_optional_type_proto(tensor))
    node = helper.make_node("OptionalHasElement", ["x"], ["y"])
    path = unchecked(tmp_path / "m.onnx", [node], [optional], [value("y", "bool", [])])
    assert "input 'x' is a optional(" in refused_load(ErrorCode.UNSUPPORTED, path)
    texts = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.INT64, [])
    )
    node = helper.make_node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])
    path = classical(
        tmp_path / "m.onnx", node, helper.make_value_info("x", texts), value("y", "int64", [1, 2])
    )
    assert "input 'x' is a map(string,tensor(int64)): " in refused_load(ErrorCode.UNSUPPORTED, path)
    scores = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    y = helper.make_value_info("y", helper.make_sequence_type_proto(scores))
    path = classical(tmp_path / "m.onnx", node, value("x", "float32", [3, 2]), y)
    assert "output 'y' is a seq(map(int64,tensor(float))): " in refused_load(ErrorCode.UNSUPPORTED, path)


def classical(path: Path, node: onnx.NodeProto, x: onnx.ValueInfoProto, y: onnx.ValueInfoProto) -> Path:
    """A model of the operators that are not of neural networks."""
    graph = helper.make_graph([node], "graph", [x], [y])
    opsets = [helper.make_opsetid("", models.OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=models.IR_VERSION)
    path.write_bytes(model.SerializeToString())
    return path


def test_sparse_tensors_are_refused_by_name(tmp_path: Path) -> None:
    kind = helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2, 2])
    x, y = helper.make_value_info("x", kind), helper.make_value_info("y", kind)
    path = unchecked(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], [x], [y])
    said = refused_load(ErrorCode.MODEL_FAILED, path)
    assert "'sparse_tensor(float)' of input parameter (x)" in said


def test_an_output_that_only_the_run_can_size_says_what_it_needs(tmp_path: Path) -> None:
    path = models.data_dependent(tmp_path / "m.onnx")
    x = np.array([0, 1, 0, 2, 3, 0, 4, 5], np.float32)
    with served(path, {"count": 4}) as model:
        for _ in range(2):
            with pytest.raises(
                OutputTooLarge, match=r"came out as \[1, 5\], 40 bytes, and the channel"
            ) as caught:
                model.run({"x": x})
            assert (caught.value.dims, caught.value.text_bytes) == ({"y": (1, 5)}, 0)
            assert pickle.loads(pickle.dumps(caught.value)).dims == caught.value.dims
            assert model.run({"x": np.zeros(8, np.float32)})["y"].shape == (1, 0)
    with served(path, {"count": caught.value.dims["y"][1]}) as model:
        assert model.run({"x": x})["y"].tolist() == [[1, 3, 4, 6, 7]]


def test_too_many_dimensions_and_tensors(tmp_path: Path) -> None:
    path = models.identity("float32", [1] * (MAX_RANK + 1), tmp_path / "m.onnx")
    assert "'x' has 17 dimensions" in refused_load(ErrorCode.UNSUPPORTED, path)
    nodes = [helper.make_node("Identity", ["x"], [f"y{i}"]) for i in range(MAX_TENSORS)]
    outputs = [value(f"y{i}", "int8", []) for i in range(MAX_TENSORS)]
    path = save(tmp_path / "m.onnx", nodes, [value("x", "int8", [])], outputs)
    assert "256 outputs" in refused_load(ErrorCode.UNSUPPORTED, path)
    path = save(tmp_path / "m.onnx", nodes[1:], [value("x", "int8", [])], outputs[1:])
    with served(path) as model:
        assert {int(y) for y in model.run({"x": np.array(5, np.int8)}).values()} == {5}


def test_an_output_without_a_declared_shape_is_refused(tmp_path: Path) -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    node = helper.make_node("Unsqueeze", ["x", "a"], ["y"])
    axes = helper.make_node("Constant", [], ["a"], value_ints=[0])
    path = unchecked(tmp_path / "m.onnx", [axes, node], tensors[:1], tensors[1:])
    assert "output 'y' is declared with 0" in refused_load(ErrorCode.UNSUPPORTED, path)


def test_a_rank_that_depends_on_values_is_the_requests_own(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    inputs = [value("x", "float32", [2, 3, 4]), value("axes", "int64", [2])]
    path = save(tmp_path / "m.onnx", [node], inputs, [value("y", "float32", [2])])
    x = floats(2, 3, 4)
    with served(path) as model:
        # On zeros as axes, as at the warm-up, two dimensions are left.
        answer = model.run({"x": x, "axes": np.array([1, 2])})["y"]
        assert answer.tobytes() == plain(path, {"x": x, "axes": np.array([1, 2])})[0].tobytes()
        with pytest.raises(SidecamlError, match=r"shape for this run is \{2,3\}"):
            model.run({"x": x, "axes": np.array([2, 2])})
        answer = model.run({"x": x, "axes": np.array([-1, 1])})["y"]
        assert answer.tobytes() == plain(path, {"x": x, "axes": np.array([-1, 1])})[0].tobytes()


def test_a_model_that_fails_on_zeros_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with served(models.fails_inside(tmp_path / "m.onnx")):
        assert "warm-up on zeros failed" in caplog.text


def test_several_threads_give_the_same_answer(tmp_path: Path) -> None:
    path = models.small_mlp(tmp_path / "m.onnx")
    for lane in LANES:
        assert (
            engines.load(Settings("m", path, threads=2, lane=lane)).signature
            == engines.load(Settings("m", path, lane="python")).signature
        )

"""Types that ONNX Runtime does little with, bit for bit in both lanes: packed ones, float8e8m0, complex."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import models
import numpy as np
import pytest
from models import ONNX_TYPES, save, value
from onnx import helper
from served import LANE, LANES, served

from ipc_server import engines
from ipc_server.abi import DTYPE_BITS, Dtype, ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings
from ipc_server.tensor import NUMPY_DTYPE, size_of, view

# An odd number of elements: the last byte of a packed tensor is not full.
DIMS = (3, 89)
COUNT = 3 * 89
CAST = ("int4", "uint4", "int2", "uint2", "float8e8m0")


@pytest.fixture(autouse=True, params=LANES)
def each_lane(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test in each lane."""
    token = LANE.set(request.param)
    yield
    LANE.reset(token)


def unpacked(name: str, raw: np.ndarray) -> np.ndarray:
    """Take the elements' bits out of their bytes, the first of a byte in its lowest bits."""
    bits = DTYPE_BITS[Dtype[name.upper()]]
    places = np.arange(0, 8, bits)
    return ((raw[:, None] >> places) & (2**bits - 1)).ravel()[:COUNT].astype(np.uint8)


def numbers(name: str, raw: np.ndarray) -> np.ndarray:
    """Say what the bits mean."""
    codes = unpacked(name, raw)
    if name == "float8e8m0":
        return codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    bits = DTYPE_BITS[Dtype[name.upper()]]
    signed = codes.astype(np.int16) - (codes >= 2 ** (bits - 1)) * 2**bits
    return (codes if name.startswith("u") else signed).astype(np.float32)


def every_code(name: str) -> np.ndarray:
    """Give bytes that hold every code, and zeros where the last byte is not used."""
    size = size_of(Dtype[name.upper()], DIMS)
    raw = np.arange(size, dtype=np.uint16).astype(np.uint8) * (1 if size > 256 else 37)
    used = COUNT * DTYPE_BITS[Dtype[name.upper()]] % 8
    if used:
        raw[-1] &= 2**used - 1
    return raw


def casts(name: str, path: Path) -> Path:
    """`x` to float32 `f`, and that back to `y`."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=ONNX_TYPES["float32"]),
        helper.make_node("Cast", ["f"], ["y"], to=ONNX_TYPES[name]),
    ]
    outputs = [value("f", "float32", DIMS), value("y", name, DIMS)]
    return save(path, nodes, [value("x", name, DIMS)], outputs)


@pytest.mark.parametrize("name", CAST)
def test_every_code_goes_in_and_comes_out(name: str, tmp_path: Path) -> None:
    raw = every_code(name)
    expected = numbers(name, raw).reshape(DIMS)
    assert len(np.unique(unpacked(name, raw))) == min(2 ** DTYPE_BITS[Dtype[name.upper()]], 256)
    with served(casts(name, tmp_path / "m.onnx"), slots=2) as model:
        for _ in range(4):
            answer = model.run({"x": raw if is_packed(name) else raw.reshape(DIMS)})
            np.testing.assert_array_equal(answer["f"], expected)
            assert answer["y"].tobytes() == raw.tobytes()


def is_packed(name: str) -> bool:
    return DTYPE_BITS[Dtype[name.upper()]] < 8


@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
@pytest.mark.parametrize("dims", [(), (0, 3), (1,), (2, 3), (5,)], ids=str)
def test_packed_tensors_of_any_size_pass(name: str, dims: tuple[int, ...], tmp_path: Path) -> None:
    node = helper.make_node("Transpose", ["x"], ["y"], **({"perm": range(len(dims))} if dims else {}))
    path = save(tmp_path / "m.onnx", [node], [value("x", name, dims)], [value("y", name, dims)])
    size = size_of(Dtype[name.upper()], dims)
    count = int(np.prod(dims))
    raw = np.full(size, 0b01101101, np.uint8)
    if used := count * DTYPE_BITS[Dtype[name.upper()]] % 8:
        raw[-1] &= 2**used - 1
    with served(path) as model:
        for _ in range(2):
            assert model.run({"x": raw})["y"].tobytes() == raw.tobytes()


@pytest.mark.parametrize("name", ["int4", "uint2"])
def test_packed_tensors_of_dynamic_dims_are_told_apart(name: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=ONNX_TYPES["float32"])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", name, ["N"])], [value("y", "float32", ["N"])])
    with served(path, {"N": 9}) as model:
        for count in (9, 1, 0, 4, 9):
            size = size_of(Dtype[name.upper()], [count])
            model.channel.set_dims("x", [count])
            model.channel.input("x")[:] = 0b01010101
            assert model.channel.input("x").shape == (size,)
            slot = model.channel.submit()
            model.serve(slot)
            model.channel.await_(slot)
            assert model.channel.output("y").tolist() == [5.0 if name == "int4" else 1.0] * count
            model.channel.release(slot)


def test_an_input_that_is_an_output_passes_whatever_its_type(tmp_path: Path) -> None:
    """ONNX Runtime has no kernel for float4e2m1 that gives one, and needs none here."""
    tensor = value("x", "float4e2m1", DIMS)
    raw = every_code("float4e2m1")
    with served(save(tmp_path / "m.onnx", [], [tensor], [tensor])) as model:
        for _ in range(3):
            assert model.run({"x": raw})["x"].tobytes() == raw.tobytes()


@pytest.mark.parametrize("name", ["float4e2m1", "float8e8m0", "int2"])
def test_types_newer_than_the_header_are_taken_as_inputs(name: str, tmp_path: Path) -> None:
    node = helper.make_node("Shape", ["x"], ["y"])
    path = save(tmp_path / "m.onnx", [node], [value("x", name, DIMS)], [value("y", "int64", [2])])
    raw = every_code(name)
    with served(path) as model:
        answer = model.run({"x": raw if is_packed(name) else raw.reshape(DIMS)})
        assert answer["y"].tolist() == list(DIMS)


@pytest.mark.parametrize(
    ("name", "node", "said"),
    [
        ("float4e2m1", "Identity", "Could not find an implementation for Identity"),
        ("int4", "Reshape", "Could not find an implementation for Reshape"),
        ("complex64", "Identity", "tensor(complex64) is not currently registered or supported"),
        ("complex128", "Identity", "tensor(complex128) is not currently registered or supported"),
    ],
)
def test_what_onnx_runtime_lacks_is_said_in_its_words(
    name: str, node: str, said: str, tmp_path: Path
) -> None:
    inputs = ["x", "shape"] if node == "Reshape" else ["x"]
    tensors = [value("x", name, [2]), value("y", name, [2])]
    constants = {"shape": np.array([2])} if node == "Reshape" else None
    path = save(
        tmp_path / "m.onnx", [helper.make_node(node, inputs, ["y"])], *([t] for t in tensors), constants
    )
    with pytest.raises(SidecamlError) as caught:
        engines.load(Settings("model", path, lane=LANE.get()))
    assert caught.value.code is ErrorCode.MODEL_FAILED
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("dtype", [dtype for dtype in Dtype if dtype is not Dtype.STRING])
def test_every_type_is_seen_by_numpy_in_its_size(dtype: Dtype) -> None:
    for dims in ((), (0,), (3,), (2, 5)):
        array = view(bytearray(size_of(dtype, dims)), dtype, dims)  # type: ignore[arg-type]
        assert array.nbytes == size_of(dtype, dims)
        assert array.dtype == NUMPY_DTYPE[dtype]
        assert array.shape == ((array.nbytes,) if DTYPE_BITS[dtype] < 8 else dims)


def test_every_type_of_the_models_is_a_channels() -> None:
    assert (
        {dtype.name.lower() for dtype in Dtype}
        == set(ONNX_TYPES)
        == {*models.IDENTITY_TYPES, "string"} | (models.WITHOUT_IDENTITY)
    )

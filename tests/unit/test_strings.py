"""Tensors of strings, in both lanes: what comes out, what is said of bad ones, and what room they need."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import save, value
from onnx import helper
from served import LANE, LANES, Served, served

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.errors import OutputTooLarge, SidecamlError
from ipc_server.settings import Settings

ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test in each lane."""
    token = LANE.set(request.param)
    yield
    LANE.reset(token)


each_lane = pytest.mark.usefixtures("lane")


def refused(code: ErrorCode, model: Served, inputs: dict[str, Any]) -> SidecamlError:
    """Run, expect this error, and return it."""
    with pytest.raises(SidecamlError) as caught:
        model.run(inputs)
    assert caught.value.code is code, caught.value
    return caught.value


def doubled(path: Path) -> Path:
    """`x` string[N] and `n` int64[N] to `y` string[2,N] = `x` twice, and `m` = `n`."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "zero"], ["row"]),
        helper.make_node("Concat", ["row", "row"], ["y"], axis=0),
        helper.make_node("Identity", ["n"], ["m"]),
    ]
    inputs = [value("x", "string", ["N"]), value("n", "int64", ["N"])]
    outputs = [value("y", "string", [2, "N"]), value("m", "int64", ["N"])]
    return save(path, nodes, inputs, outputs, {"zero": np.zeros(1, np.int64)})


def chosen(path: Path) -> Path:
    """`x` string[N] to `y` string[M]: those of which `keep` bool[N] is true."""
    node = helper.make_node("Compress", ["x", "keep"], ["y"], axis=0)
    inputs = [value("x", "string", ["N"]), value("keep", "bool", ["N"])]
    return save(path, [node], inputs, [value("y", "string", ["M"])])


@each_lane
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 0), (2, 3), (1,) * 16], ids=str)
def test_strings_of_every_shape_pass(shape: tuple[int, ...], tmp_path: Path) -> None:
    count = int(np.prod(shape))
    x = np.array([*(f"{'é' * index}\0{index}" for index in range(count)), None], object)[:-1].reshape(shape)
    with served(models.identity("string", shape, tmp_path / "m.onnx")) as model:
        for _ in range(3):
            y = model.run({"x": x})["y"]
            assert (y.dtype, y.shape) == (np.dtype(object), shape)
            assert y.tolist() == x.tolist()


@each_lane
def test_requests_of_one_slot_differ_in_text_and_dims(tmp_path: Path) -> None:
    path = doubled(tmp_path / "m.onnx")
    with served(path, {"N": 4}, slots=2) as model:
        for texts in (["a", "bc"], [], ["", "\0", "𝄞", "d" * 1000], ["x"], ["a", "bc"]):
            answer = model.run({"x": texts, "n": np.arange(len(texts))})
            assert answer["y"].tolist() == [texts, texts]
            assert answer["m"].tolist() == list(range(len(texts)))


@each_lane
def test_numpys_own_strings_are_taken(tmp_path: Path) -> None:
    with served(models.identity("string", [2, 2], tmp_path / "m.onnx")) as model:
        x = np.array([["a", "bc"], ["", "dé"]])
        assert model.run({"x": x})["y"].tolist() == x.tolist()


@each_lane
def test_a_slot_of_zeros_is_of_empty_strings(tmp_path: Path) -> None:
    with served(models.identity("string", [3], tmp_path / "m.onnx")) as model:
        slot = model.channel.submit()
        model.serve(slot)
        model.channel.await_(slot)
        assert model.channel.strings("y").tolist() == ["", "", ""]


@each_lane
def test_an_output_whose_number_of_strings_only_the_run_tells(tmp_path: Path) -> None:
    x = ["a", "bb", "ccc", "dddd"]
    with served(chosen(tmp_path / "m.onnx"), {"N": 4, "M": 2}) as model:
        for keep in ([0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]):
            y = model.run({"x": x, "keep": np.array(keep, bool)})["y"]
            assert y.tolist() == [text for text, kept in zip(x, keep, strict=True) if kept]
        error = refused(ErrorCode.OUTPUT_TOO_LARGE, model, {"x": x, "keep": np.ones(4, bool)})
        assert isinstance(error, OutputTooLarge)
        assert (error.dims, error.text_bytes) == ({"y": (4,)}, 0)
        assert model.run({"x": x, "keep": np.array([1, 0, 0, 0], bool)})["y"].tolist() == ["a"]


@each_lane
def test_text_without_room_says_how_much_it_needs(tmp_path: Path) -> None:
    path = doubled(tmp_path / "m.onnx")
    inputs = {"x": ["abcde", "fghij"], "n": np.arange(2)}
    with served(path, {"N": 4}, text_bytes=10) as model:
        error = refused(ErrorCode.OUTPUT_TOO_LARGE, model, inputs)
        assert isinstance(error, OutputTooLarge)
        assert error.text_bytes == 20
        assert error.dims == {"y": (2, 2), "m": (2,)}
        assert str(error) == (
            "output 'y': its strings came out as 20 bytes of text, and the channel has room for 10: open "
            "with larger text_bytes"
        )
        assert model.run({"x": ["ab"], "n": np.arange(1)})["y"].tolist() == [["ab"], ["ab"]]
    with served(path, {"N": 4}, text_bytes=error.text_bytes) as model:
        assert model.run(inputs)["y"].tolist() == [inputs["x"]] * 2


def write(model: Served, table: list[int], text: bytes) -> None:
    """Scribble over the first slot's two strings."""
    place = memoryview(model.channel._core.tensor(0, 0)).cast("B")
    raw = np.array(table, np.uint64).tobytes()
    place[: len(raw)] = raw
    place[len(raw) : len(raw) + len(text)] = text


@each_lane
@pytest.mark.parametrize(
    ("table", "text", "said"),
    [
        ([1, 1, 1], b"a", "input 'x': the first string begins at byte 1 of the text: expected 0"),
        ([0, 2, 1], b"ab", "input 'x': string 1 begins at byte 2 of the text and ends at 1"),
        ([0, 2, 5000], b"ab", "input 'x': string 1 ends at byte 5000 of the text, which has room for 4096"),
        (
            [0, 2, 2**64 - 1],
            b"ab",
            "input 'x': string 1 ends at byte 18446744073709551615 of the text, which",
        ),
        ([0, 1, 2], b"a\xff", "input 'x': string 1 is not UTF-8 from its byte 0 on"),
    ],
)
def test_bad_strings_are_named_and_the_next_ones_served(
    table: list[int], text: bytes, said: str, tmp_path: Path
) -> None:
    with served(models.identity("string", [2], tmp_path / "m.onnx")) as model:
        for _ in range(2):
            write(model, table, text)
            slot = model.channel.submit()
            model.serve(slot)
            with pytest.raises(SidecamlError) as caught:
                model.channel.await_(slot)
            assert caught.value.code is ErrorCode.BAD_STRINGS
            assert str(caught.value).startswith(said)
            assert model.run({"x": ["a", "b"]})["y"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("strings", "code", "said"),
    [
        ([["a", "b"], ["c"]], ErrorCode.BAD_DIMS, "strings in 2 dimensions, got 1"),
        (["a", "b"], ErrorCode.BAD_DIMS, "strings in 2 dimensions, got 1"),
        ([["a", b"b"]], ErrorCode.INVALID, "string 1: expected str, got b'b'"),
        ([["a", "\ud800"]], ErrorCode.INVALID, "string 1 is no text that UTF-8 has"),
        ([["a" * 4097, ""]], ErrorCode.INVALID, "4097 bytes of text, and the channel has room for 4096"),
        ([["a", "b"]] * 3, ErrorCode.BAD_DIMS, "beyond the largest"),
    ],
)
def test_what_the_client_cannot_write_is_said_at_once(
    strings: Any, code: ErrorCode, said: str, tmp_path: Path
) -> None:
    path = models.identity("string", ["N", 2], tmp_path / "m.onnx")
    with served(path, {"N": 2}) as model, pytest.raises(SidecamlError, match=said) as caught:
        model.channel.set_strings("x", strings)
    assert caught.value.code is code


def test_strings_of_other_dimensions_are_refused(tmp_path: Path) -> None:
    with served(models.identity("string", [2], tmp_path / "m.onnx")) as model:
        with pytest.raises(SidecamlError, match=r"expected strings of dimensions \[2\], got \[3\]"):
            model.channel.set_strings("x", ["a", "b", "c"])
        for read, name in ((model.channel.input, "x"), (model.channel.output, "y")):
            with pytest.raises(SidecamlError, match="use `set_strings` and `strings`"):
                read(name)


def test_numbers_are_no_strings(tmp_path: Path) -> None:
    with served(models.identity("float32", [2], tmp_path / "m.onnx")) as model:
        with pytest.raises(SidecamlError, match="'x' is a tensor of float32, not of strings"):
            model.channel.set_strings("x", ["a", "b"])
        with pytest.raises(SidecamlError, match="'y' is a tensor of float32, not of strings"):
            model.channel.strings("y")


def test_strings_pass_through_the_steps_of_a_pipeline(tmp_path: Path) -> None:
    step = Settings("", models.identity("string", ["N"], tmp_path / "m.onnx"))
    pipeline = Settings("model", engine="pipeline", steps=(step,))
    with served(pipeline, {"N": 3}) as model:
        for texts in (["a", "bc"], ["é" * 500, "", "x"]):
            assert model.run({"x": texts})["y"].tolist() == texts


# --- Tables -------------------------------------------------------------------------------------------------


def aligned(size: int) -> Any:
    """Make memory as a slot has it."""
    return (ctypes.c_uint8 * size).from_buffer((ctypes.c_uint64 * -(-size // 8))())


@settings(max_examples=200, deadline=None)
@given(st.lists(ANY_TEXT, max_size=6), st.integers(0, 4))
def test_strings_are_read_as_they_were_written(texts: list[str], spare: int) -> None:
    most = len(texts) + spare
    raw = [text.encode() for text in texts]
    place = aligned(8 * (most + 1) + sum(map(len, raw)) + spare)
    _core.write_strings(place, most, raw)
    assert _core.read_strings("input", "x", place, most, len(texts)) == texts


def by_the_page(offsets: list[int], text: bytes) -> list[str] | None:
    """Read a table as docs/protocol.md 1.6 has it; None when it is none."""
    if offsets[0] != 0 or offsets != sorted(offsets) or offsets[-1] > len(text):
        return None
    try:
        return [text[start:end].decode() for start, end in itertools.pairwise(offsets)]
    except UnicodeDecodeError:
        return None


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, list[int], bytes]:
    """Draw room for so many strings, offsets of a table that may be none, and 16 bytes of text."""
    most = draw(st.integers(0, 5))
    count = draw(st.integers(0, most))
    number = st.integers(0, 24) | st.sampled_from([2**32, 2**63, 2**64 - 1])
    increasing = st.lists(st.integers(0, 16), min_size=count, max_size=count).map(
        lambda ends: [0, *sorted(ends)]
    )
    offsets = draw(increasing | st.lists(number, min_size=count + 1, max_size=count + 1))
    text = draw(st.binary(min_size=16, max_size=16) | st.text("aé", min_size=8, max_size=8).map(str.encode))
    return most, offsets, text.ljust(16, b"\0")


@settings(max_examples=1000, deadline=None)
@given(tables())
def test_hostile_tables_are_taken_as_the_protocol_says_or_refused(
    drawn: tuple[int, list[int], bytes],
) -> None:
    most, offsets, text = drawn
    place = aligned(8 * (most + 1) + 16)
    memoryview(place).cast("B")[: 8 * len(offsets)] = np.array(offsets, np.uint64).tobytes()
    memoryview(place).cast("B")[8 * (most + 1) :] = text
    expected = by_the_page(offsets, text)
    if expected is not None:
        assert _core.read_strings("input", "x", place, most, len(offsets) - 1) == expected
        return
    with pytest.raises(SidecamlError) as caught:
        _core.read_strings("input", "x", place, most, len(offsets) - 1)
    assert caught.value.code is ErrorCode.BAD_STRINGS
    assert str(caught.value).startswith("input 'x': ")


@pytest.mark.parametrize(("size", "most"), [(0, 0), (7, 0), (16, 2), (8, 2**61), (8, 2**64 - 1)])
def test_places_without_room_for_a_table_are_refused(size: int, most: int) -> None:
    with pytest.raises(SidecamlError, match="no room for a table"):
        _core.read_strings("input", "x", aligned(size), most, 0)
    with pytest.raises(SidecamlError, match="no room for a table"):
        _core.write_strings(aligned(size), most, [])


def test_strings_without_room_are_not_written() -> None:
    place = aligned(8 * 3 + 4)
    for items, said in (
        ([b"abc", b"de"], "5 bytes of text have no room"),
        ([b""] * 3, "3 strings have no room"),
    ):
        with pytest.raises(SidecamlError, match=said):
            _core.write_strings(place, 2, items)
    assert bytes(place) == bytes(len(place))

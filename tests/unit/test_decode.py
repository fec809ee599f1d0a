"""The independent decoder against the golden vectors, and against the C core on hostile bytes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.decode import DecodeError, decode_segment, decode_status, render_segment, render_status
from ipc_server.errors import SidecamlError

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SEGMENTS = ["scalar", "no_tensors", "every_type", "every_state"]
NOW_NS = 1_500_000_000


def read_vector(name: str) -> bytearray:
    """Read a vector: a first line `size N`, then lines of an offset and 32 bytes; all others are zeros."""
    first, *lines = (GOLDEN / f"{name}.hex").read_text().splitlines()
    data = bytearray(int(first.removeprefix("size ")))
    for line in lines:
        offset, digits = line.split()
        data[int(offset, 16) : int(offset, 16) + len(digits) // 2] = bytes.fromhex(digits)
    return data


def text_of(digits: str) -> str:
    return bytes.fromhex(digits).decode("utf-8", "replace")


def expected_segment(name: str) -> dict[str, Any]:
    """Bring what the C core says about a vector into the decoder's form."""
    said: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    for tensor in said["tensors"]:
        tensor["name"] = text_of(tensor.pop("name_hex"))
    for index, slot in enumerate(said["slots"]):
        slot["message"] = text_of(slot.pop("message_hex"))
        slot.update(index=index, problem=None)
    return said


def plain(decoded: Any) -> Any:
    """Turn dataclasses and tuples into what JSON has."""
    return json.loads(json.dumps(dataclasses.asdict(decoded)))


@pytest.mark.parametrize("name", SEGMENTS)
def test_decoder_reads_what_the_core_wrote(name: str) -> None:
    assert plain(decode_segment(read_vector(name))) == expected_segment(name)


@pytest.mark.parametrize("name", SEGMENTS)
def test_core_reads_what_the_core_wrote(name: str) -> None:
    data = read_vector(name)
    assert read_by_core(data) == layout_of(data)


def test_decoder_reads_the_status_page() -> None:
    assert plain(decode_status(read_vector("status"))) == json.loads((GOLDEN / "status.json").read_text())


def test_every_state_and_every_type_is_among_the_vectors() -> None:
    states = {slot.state for slot in decode_segment(read_vector("every_state")).slots}
    assert states == {"FREE", "SUBMITTED", "RUNNING", "DONE", "FAILED", "ABANDONED"}
    tensors = decode_segment(read_vector("every_type")).tensors
    assert len({tensor.dtype for tensor in tensors}) == 26
    assert {len(tensor.max_dims) for tensor in tensors} == set(range(17))


def test_rendering_shows_states_ages_and_texts() -> None:
    text = render_segment(decode_segment(read_vector("every_state")), NOW_NS)
    assert "fingerprint 000000000000002a" in text
    assert "ticket 10       RUNNING   deadline in 500 ms  submitted 500 ms ago" in text
    assert "status -6: Größe passt nicht: ? is no shape" in text  # the control character is not printed
    assert "x: dims [3,2]" in text
    assert "NOT AS THE PROTOCOL SAYS" not in text
    status = render_status(decode_status(read_vector("status")), NOW_NS)
    assert "pid 4711" in status
    assert "9 served, 1 failed" in status


def test_rendering_counts_and_writes_shapes_as_people_do() -> None:
    status = decode_status(read_vector("status"))
    one, two = (
        render_status(dataclasses.replace(status, channels=n, parks=n), NOW_NS).splitlines()[2].strip()
        for n in (1, 2)
    )
    assert (one.startswith("1 channel, "), one.endswith(" slept 1 time")) == (True, True), one
    assert (two.startswith("2 channels, "), two.endswith(" slept 2 times")) == (True, True), two
    text = render_segment(decode_segment(read_vector("every_state")), NOW_NS)
    assert "tensors  1 input, 2 outputs" in text
    assert "x: int64[3,4] at most (dynamic)  96 B" in text
    assert "z: float16[2,16]  64 B" in text


# --- Hostile bytes ------------------------------------------------------------------------------------------

# offset, bytes, what the error names
BROKEN_HEADERS = [
    (0, b"X", "magic"),
    (8, b"\x01", "abi_version"),
    (12, b"\x00", "header_bytes"),
    (16, b"\x01", "segment_bytes"),
    (32, b"\x00", "slot_count"),
    (32, b"\x01\x04", "slot_count"),
    (36, b"\x01\x01", "input_count"),
    (44, b"\x01", "bytes 44"),
    (48, b"\x00", "tensors_offset"),
    (56, b"\x00", "client_offset"),
    (64, b"\x00\x00", "slots_offset"),
    (72, b"\x00", "dims_offset"),
    (88, b"\x80", "worker_offset"),
    (80, b"\x00\xff", "arrays_offset"),
    (127, b"\x01", "bytes 96"),
    (128, b"\x00", "dtype"),
    (128, b"\x1b", "dtype"),
    (132, b"\x11", "rank"),
    (136, b"\x0a", "flags"),
    (136, b"\x01", "flags"),
    (140, b"\x01", "reserved"),
    (144, b"\x01", "array_offset"),
    (144, b"\x00\x00", "array_offset"),
    (151, b"\x80", "array"),
    (152, b"\x01", "slot_stride"),
    (152, b"\x40", "slot_stride"),
    (159, b"\x80", "array"),
    (160, b"\x00", "max_bytes"),
    (175, b"\x80", "max_dims"),
    (184, b"\x01", "max_dims"),
    (296, b"\x01", "text_bytes"),
]


@pytest.mark.parametrize(("offset", "change", "named"), BROKEN_HEADERS)
def test_a_broken_header_or_descriptor_is_refused_by_name(offset: int, change: bytes, named: str) -> None:
    data = read_vector("every_state")
    data[offset : offset + len(change)] = change
    with pytest.raises(DecodeError, match=named) as refused:
        decode_segment(data)
    assert refused.value.place
    assert refused.value.expected
    with pytest.raises(SidecamlError) as refused_by_core:
        _core.Layout.read(data)
    assert refused_by_core.value.code == (
        ErrorCode.ABI_MISMATCH if named == "abi_version" else ErrorCode.CORRUPT
    )


def test_a_broken_slot_does_not_hide_the_others() -> None:
    data = read_vector("every_state")
    slots = decode_segment(data).header.slots_offset
    data[slots] = 8 << 3 | 7
    data[slots + 512] = 0
    data[slots + 1024 + 124 : slots + 1024 + 128] = b"\xff" * 4
    segment = decode_segment(data)
    problems = [slot.problem or "" for slot in segment.slots]
    assert "state: expected 0 to 5, found 7" in problems[0]
    assert "ticket: expected one of slot 1 modulo 8, found 0" in problems[1]
    assert "message_bytes: expected at most 384, found 4294967295" in problems[2]
    assert problems[3:] == [""] * 5
    assert "NOT AS THE PROTOCOL SAYS: state" in render_segment(segment, NOW_NS)


def test_dims_beyond_the_maximum_are_a_slots_problem() -> None:
    data = read_vector("every_state")
    dims = decode_segment(data).header.dims_offset
    data[dims] = 4
    assert "dims of 'x'" in (decode_segment(data).slots[0].problem or "")


def layout_of(data: bytes | bytearray) -> tuple[Any, ...] | None:
    """Give what both readers know of a layout, as the decoder reads it; None when it refuses."""
    try:
        segment = decode_segment(data)
    except DecodeError:
        return None
    tensors = tuple(
        (
            tensor.output,
            tensor.dynamic,
            tensor.max_dims,
            tensor.array_offset,
            tensor.slot_stride,
            tensor.max_bytes,
            tensor.text_bytes,
        )
        for tensor in segment.tensors
    )
    return segment.header.segment_bytes, segment.header.slot_count, tensors


def read_by_core(data: bytes | bytearray) -> tuple[Any, ...] | None:
    """Give the same as the C core reads it."""
    try:
        layout = _core.Layout.read(data)
    except SidecamlError as error:
        assert error.code in (ErrorCode.CORRUPT, ErrorCode.ABI_MISMATCH)
        return None
    tensors = tuple(
        (output, dynamic, tuple(dims), *places) for _, _, output, dynamic, dims, *places in layout.tensors
    )
    return layout.segment_bytes, layout.slots, tensors


# Values that sit on the edge of some check, written as 4 or 8 bytes.
EDGES = [
    0,
    1,
    16,
    17,
    63,
    64,
    65,
    127,
    128,
    256,
    257,
    1024,
    1025,
    4096,
    2**31,
    2**32 - 1,
    2**61,
    2**62,
    2**62 + 1,
]
EDGES += [2**63 - 1, 2**63, 2**64 - 64, 2**64 - 1]


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, list[tuple[int, bytes]], int]:
    """Draw a vector, places to overwrite in its header and descriptors, and a length to cut it to."""
    name = draw(st.sampled_from(SEGMENTS))
    segment = decode_segment(read_vector(name))
    tables = segment.header.client_offset
    number = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)
    fields = st.tuples(st.integers(0, tables // 4 - 1), number, st.sampled_from([4, 8])).map(
        lambda drawn: (drawn[0] * 4, (drawn[1] % 2 ** (8 * drawn[2])).to_bytes(drawn[2], "little"))
    )
    single = st.tuples(st.integers(0, tables - 1), st.binary(min_size=1, max_size=1))
    size = segment.header.segment_bytes
    cut = draw(st.just(size) | st.integers(0, size + 4096))
    return name, draw(st.lists(fields | single, max_size=4)), cut


@settings(max_examples=1500, deadline=None)
@given(changes())
@example(("scalar", [], 0))
@example(("scalar", [], 127))
def test_decoder_and_core_agree_on_hostile_headers(change: tuple[str, list[tuple[int, bytes]], int]) -> None:
    name, writes, size = change
    data = read_vector(name)
    for offset, written in writes:
        data[offset : offset + len(written)] = written
    data = (data + bytes(4096))[:size]
    assert layout_of(data) == read_by_core(data)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8191), st.binary(min_size=1, max_size=16)), max_size=8))
def test_hostile_slots_decode_or_are_refused(writes: list[tuple[int, bytes]]) -> None:
    data = read_vector("every_state")
    size = len(data)
    for offset, written in writes:
        data[offset : offset + len(written)] = written
    assert len(data) == size
    try:
        text = render_segment(decode_segment(data), NOW_NS)
    except DecodeError as error:
        text = str(error)
    assert text.replace("\n", "").isprintable()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_segment(data)
    with pytest.raises(DecodeError):
        decode_status(data)

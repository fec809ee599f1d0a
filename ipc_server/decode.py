"""A read-only decoder of segments and status pages, written from docs/protocol.md alone.

Its numbers are typed from that page on purpose: a mistake in the C core or in the page shows as a
disagreement between the two, on the golden vectors and on live segments. Nothing here is imported from the
bindings, and nothing is written.

What nobody vouches for is read once and checked. A header or a descriptor that is not as the page says raises
`DecodeError`; a slot that is not is reported in its `problem`, so that one broken slot does not hide the
others.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ABI_VERSION = 4
PAGE = 4096
LARGEST = 2**62

HEADER_BYTES = 128
DESCRIPTOR_BYTES = 256
CLIENT_BYTES = 128
WORKER_BYTES = 128
SLOT_BYTES = 512
DIMS_BYTES = 128
STATUS_BYTES = 4096
MESSAGE_BYTES = 384
MAX_RANK = 16
MAX_TENSORS = 256
MAX_SLOTS = 1024
ALIGNMENT = 64
PACKED_ALIGNMENT = 16
MAX_INSTANCES = 64

# Name, bits of one element.
DTYPES = {
    1: ("float32", 32),
    2: ("float64", 64),
    3: ("float16", 16),
    4: ("bfloat16", 16),
    5: ("int8", 8),
    6: ("int16", 16),
    7: ("int32", 32),
    8: ("int64", 64),
    9: ("uint8", 8),
    10: ("uint16", 16),
    11: ("uint32", 32),
    12: ("uint64", 64),
    13: ("bool", 8),
    14: ("complex64", 64),
    15: ("complex128", 128),
    16: ("float8e4m3fn", 8),
    17: ("float8e4m3fnuz", 8),
    18: ("float8e5m2", 8),
    19: ("float8e5m2fnuz", 8),
    20: ("int4", 4),
    21: ("uint4", 4),
    22: ("string", 0),
    23: ("float4e2m1", 4),
    24: ("float8e8m0", 8),
    25: ("int2", 2),
    26: ("uint2", 2),
}
STATES = ("FREE", "SUBMITTED", "RUNNING", "DONE", "FAILED", "ABANDONED")
# The code of a request whose outputs had no room: their true dims stand in the slot.
OUTPUT_TOO_LARGE = 8
OUTPUT = 1
DYNAMIC = 2
PACKED = 4

Buffer = bytes | bytearray | memoryview


class DecodeError(ValueError):
    """Bytes that are not laid out as docs/protocol.md says."""

    def __init__(self, place: str, expected: str, found: object) -> None:
        """Say where, what the page asks for there, and what there is."""
        super().__init__(f"{place}: expected {expected}, found {found}")
        self.place = place
        self.expected = expected
        self.found = found


@dataclass(frozen=True)
class Header:
    """The header, protocol section 1.1."""

    abi_version: int
    segment_bytes: int
    fingerprint: int
    slot_count: int
    input_count: int
    output_count: int
    tensors_offset: int
    client_offset: int
    worker_offset: int
    slots_offset: int
    dims_offset: int
    arrays_offset: int


@dataclass(frozen=True)
class Tensor:
    """A tensor descriptor, section 1.2."""

    name: str
    dtype: str
    output: bool
    dynamic: bool
    packed: bool
    max_dims: tuple[int, ...]
    text_bytes: int
    max_bytes: int
    array_offset: int
    slot_stride: int


@dataclass(frozen=True)
class Client:
    """The client block, section 1.3. `core` is None when unknown, `thread` 0."""

    waiting: bool
    core: int | None
    thread: int


@dataclass(frozen=True)
class Served:
    """The worker block, section 1.4: which of the model's status pages is the worker's."""

    page: int


@dataclass(frozen=True)
class Slot:
    """A slot, section 1.5, with its dims, section 1.6; `dims` has None for a tensor that is not dynamic."""

    index: int
    ticket: int
    state: str
    deadline_ns: int
    submitted_ns: int
    seen_ns: int
    started_ns: int
    finished_ns: int
    status: int
    all_stamps: bool
    reset: bool
    text_needed: int
    message: str
    dims: tuple[tuple[int, ...] | None, ...]
    problem: str | None


@dataclass(frozen=True)
class Segment:
    """Everything of a segment but the tensors' elements."""

    header: Header
    tensors: tuple[Tensor, ...]
    client: Client
    served: Served
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Status:
    """A worker's status page, section 2. `core` is None when unknown, `crowd` and `cores` 0."""

    abi_version: int
    pid: int
    started_ns: int
    parked: bool
    core: int | None
    crowd: int
    cores: int
    heartbeat_ns: int
    served: int
    failed: int
    abandoned: int
    parks: int
    channels: int
    running_ns: int
    batches: int
    batched: int
    refused: int
    busy_ns: int


def _u32(data: memoryview, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def _u64(data: memoryview, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")


def _check(holds: bool, place: str, expected: str, found: object) -> None:
    if not holds:
        raise DecodeError(place, expected, found)


def _check_zero(data: memoryview, start: int, end: int, place: str) -> None:
    reserved = bytes(data[start:end])
    _check(not any(reserved), f"{place}, bytes {start} to {end - 1}", "zeros", reserved.hex())


def _core(published: int) -> int | None:
    return published - 1 if published else None


def _decode_header(data: memoryview) -> Header:
    _check(data.nbytes >= HEADER_BYTES, "header", f"at least {HEADER_BYTES} bytes", f"{data.nbytes} bytes")
    copy = memoryview(bytes(data[:HEADER_BYTES]))
    magic = bytes(copy[:8])
    _check(magic == b"SIDECAML", "header, magic", "b'SIDECAML'", magic)
    _check(_u32(copy, 8) == ABI_VERSION, "header, abi_version", str(ABI_VERSION), _u32(copy, 8))
    _check(_u32(copy, 12) == HEADER_BYTES, "header, header_bytes", str(HEADER_BYTES), _u32(copy, 12))
    header = Header(
        abi_version=_u32(copy, 8),
        segment_bytes=_u64(copy, 16),
        fingerprint=_u64(copy, 24),
        slot_count=_u32(copy, 32),
        input_count=_u32(copy, 36),
        output_count=_u32(copy, 40),
        tensors_offset=_u64(copy, 48),
        client_offset=_u64(copy, 56),
        slots_offset=_u64(copy, 64),
        dims_offset=_u64(copy, 72),
        arrays_offset=_u64(copy, 80),
        worker_offset=_u64(copy, 88),
    )
    _check(
        header.segment_bytes == data.nbytes,
        "header, segment_bytes",
        f"{data.nbytes}, the real size",
        header.segment_bytes,
    )
    _check(
        header.segment_bytes % PAGE == 0,
        "header, segment_bytes",
        f"a multiple of {PAGE}",
        header.segment_bytes,
    )
    _check_zero(copy, 44, 48, "header")
    _check_zero(copy, 96, 128, "header")
    _check(1 <= header.slot_count <= MAX_SLOTS, "header, slot_count", f"1 to {MAX_SLOTS}", header.slot_count)
    tensors = header.input_count + header.output_count
    _check(tensors <= MAX_TENSORS, "header, input_count + output_count", f"at most {MAX_TENSORS}", tensors)
    _check_tables(header, tensors)
    return header


def _check_tables(header: Header, tensors: int) -> None:
    offset = HEADER_BYTES
    _check(header.tensors_offset == offset, "header, tensors_offset", str(offset), header.tensors_offset)
    offset += tensors * DESCRIPTOR_BYTES
    _check(header.client_offset == offset, "header, client_offset", str(offset), header.client_offset)
    offset += CLIENT_BYTES
    _check(header.worker_offset == offset, "header, worker_offset", str(offset), header.worker_offset)
    offset += WORKER_BYTES
    _check(header.slots_offset == offset, "header, slots_offset", str(offset), header.slots_offset)
    offset += header.slot_count * SLOT_BYTES
    _check(header.dims_offset == offset, "header, dims_offset", str(offset), header.dims_offset)
    offset += header.slot_count * tensors * DIMS_BYTES
    offset = _round_up(offset, PAGE)
    _check(header.arrays_offset == offset, "header, arrays_offset", str(offset), header.arrays_offset)
    _check(
        offset <= header.segment_bytes, "header, segment_bytes", f"at least {offset}", header.segment_bytes
    )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _decode_tensor(data: memoryview, index: int, header: Header) -> Tensor:
    place = f"tensor {index}"
    start = header.tensors_offset + index * DESCRIPTOR_BYTES
    copy = memoryview(bytes(data[start : start + DESCRIPTOR_BYTES]))
    dtype, rank, flags, reserved, array_offset, slot_stride, max_bytes = struct.unpack_from(
        "<IIIIQQQ", copy, 0
    )
    _check(dtype in DTYPES, f"{place}, dtype", "1 to 26", dtype)
    _check(rank <= MAX_RANK, f"{place}, rank", f"0 to {MAX_RANK}", rank)
    _check(flags & ~(OUTPUT | DYNAMIC | PACKED) == 0, f"{place}, flags", "bits 0, 1 and 2 only", hex(flags))
    _check(reserved == 0, f"{place}, reserved", "0", reserved)
    is_output = index >= header.input_count
    _check(
        bool(flags & OUTPUT) == is_output,
        f"{place}, flags",
        "an output" if is_output else "an input",
        hex(flags),
    )

    all_dims = struct.unpack_from("<16Q", copy, 40)
    dims, beyond = all_dims[:rank], all_dims[rank:]
    _check(not any(beyond), f"{place}, max_dims from {rank} on", "zeros", beyond)
    name, bits = DTYPES[dtype]
    text_bytes = _u64(copy, 168)
    _check(text_bytes == 0 or name == "string", f"{place}, text_bytes", f"0 for {name}", text_bytes)
    _check_bytes(place, bits, dims, text_bytes, max_bytes)
    packed = bool(flags & PACKED)
    _check_packed(place, packed, name, max_bytes)
    _check_stride(place, packed, slot_stride, max_bytes)
    _check_array(place, header, array_offset, slot_stride)
    return Tensor(
        name=bytes(copy[176:256]).split(b"\0", 1)[0].decode("utf-8", "replace"),
        dtype=name,
        output=is_output,
        dynamic=bool(flags & DYNAMIC),
        packed=packed,
        max_dims=dims,
        text_bytes=text_bytes,
        max_bytes=max_bytes,
        array_offset=array_offset,
        slot_stride=slot_stride,
    )


def _check_bytes(place: str, bits: int, dims: Sequence[int], text_bytes: int, max_bytes: int) -> None:
    _check(max(dims, default=0) <= LARGEST, f"{place}, max_dims", "at most 2^62 each", dims)
    room, wanted = (_bytes_of(bits, elements, text_bytes) for elements in (_count(dims), math.prod(dims)))
    _check(room <= LARGEST, f"{place}, max_dims and text_bytes", "at most 2^62 bytes", room)
    _check(max_bytes == wanted, f"{place}, max_bytes", str(wanted), max_bytes)


def _count(dims: Iterable[int]) -> int:
    return math.prod(max(dim, 1) for dim in dims)


def _bytes_of(bits: int, elements: int, text_bytes: int) -> int:
    # Strings: an offset for each, one more, and their text.
    return -(-elements * bits // 8) if bits else 8 * (elements + 1) + text_bytes


def _check_packed(place: str, packed: bool, dtype: str, max_bytes: int) -> None:
    may_be = dtype != "string" and max_bytes > 0 and max_bytes % PACKED_ALIGNMENT == 0
    _check(not packed or may_be, f"{place}, flags", "bit 2 for no strings, no such size", max_bytes)


def _check_array(place: str, header: Header, array_offset: int, slot_stride: int) -> None:
    _check(
        array_offset % ALIGNMENT == 0, f"{place}, array_offset", f"a multiple of {ALIGNMENT}", array_offset
    )
    _check(
        array_offset >= header.arrays_offset,
        f"{place}, array_offset",
        f"at least {header.arrays_offset}",
        array_offset,
    )
    end = array_offset + slot_stride * header.slot_count
    _check(end <= header.segment_bytes, f"{place}, end of its array", f"at most {header.segment_bytes}", end)


def _check_stride(place: str, packed: bool, slot_stride: int, max_bytes: int) -> None:
    if packed:
        _check(slot_stride == max_bytes, f"{place}, slot_stride", str(max_bytes), slot_stride)
        return
    _check(slot_stride % ALIGNMENT == 0, f"{place}, slot_stride", f"a multiple of {ALIGNMENT}", slot_stride)
    least = max(max_bytes, ALIGNMENT)
    _check(slot_stride >= least, f"{place}, slot_stride", f"at least {least}", slot_stride)


def _decode_dims(
    data: memoryview, slot: int, header: Header, tensors: tuple[Tensor, ...]
) -> tuple[tuple[int, ...] | None, ...]:
    decoded: list[tuple[int, ...] | None] = []
    for index, tensor in enumerate(tensors):
        start = header.dims_offset + (slot * len(tensors) + index) * DIMS_BYTES
        dims = struct.unpack_from(f"<{len(tensor.max_dims)}Q", data, start)
        decoded.append(dims if tensor.dynamic else None)
    return tuple(decoded)


def _problems(slot: int, state: int, ticket: int, length: int, header: Header) -> Iterable[str]:
    if state >= len(STATES):
        yield f"state: expected 0 to {len(STATES) - 1}, found {state}"
    if ticket % header.slot_count != slot:
        yield f"ticket: expected one of slot {slot} modulo {header.slot_count}, found {ticket}"
    if length > MESSAGE_BYTES:
        yield f"message_bytes: expected at most {MESSAGE_BYTES}, found {length}"


def _decode_slot(data: memoryview, index: int, header: Header, tensors: tuple[Tensor, ...]) -> Slot:
    start = header.slots_offset + index * SLOT_BYTES
    copy = memoryview(bytes(data[start : start + SLOT_BYTES]))
    word, deadline, submitted, seen, started, finished, status, flags = struct.unpack_from(
        "<QQQQQQiI", copy, 0
    )
    length = _u32(copy, 124)
    ticket, state = word >> 3, word & 7
    dims = _decode_dims(data, index, header, tensors)
    problems = list(_problems(index, state, ticket, length, header))
    # From that answer until the worker takes the slot's next request.
    too_large = status == -OUTPUT_TOO_LARGE
    for tensor, given in zip(tensors, dims, strict=True):
        if given is None or (tensor.output and too_large):
            continue
        if any(dim > most for dim, most in zip(given, tensor.max_dims, strict=True)):
            problems.append(f"dims of {tensor.name!r}: expected at most {tensor.max_dims}, found {given}")
    return Slot(
        index=index,
        ticket=ticket,
        state=STATES[state] if state < len(STATES) else f"state {state}",
        deadline_ns=deadline,
        submitted_ns=submitted,
        seen_ns=seen,
        started_ns=started,
        finished_ns=finished,
        status=status,
        all_stamps=bool(flags & 1),
        reset=bool(flags & 2),
        text_needed=_u64(copy, 56),
        message=bytes(copy[128 : 128 + min(length, MESSAGE_BYTES)]).decode("utf-8", "replace"),
        dims=dims,
        problem="; ".join(problems) or None,
    )


def decode_segment(data: Buffer) -> Segment:
    """Decode a whole segment, of which only header and tables are read.

    Raises:
        DecodeError: the header or a tensor descriptor is not as docs/protocol.md says.
    """
    view = memoryview(data).cast("B")
    header = _decode_header(view)
    count = header.input_count + header.output_count
    tensors = tuple(_decode_tensor(view, index, header) for index in range(count))
    client = Client(
        waiting=_u32(view, header.client_offset) != 0,
        core=_core(_u32(view, header.client_offset + 4)),
        thread=_u32(view, header.client_offset + 8),
    )
    served = Served(page=_u32(view, header.worker_offset))
    slots = tuple(_decode_slot(view, index, header, tensors) for index in range(header.slot_count))
    return Segment(header, tensors, client, served, slots)


def decode_status(data: Buffer) -> Status:
    """Decode a status page.

    Raises:
        DecodeError: it is not as docs/protocol.md says.
    """
    view = memoryview(data).cast("B")
    _check(view.nbytes == STATUS_BYTES, "status page", f"{STATUS_BYTES} bytes", f"{view.nbytes} bytes")
    copy = memoryview(bytes(view))
    magic = bytes(copy[:8])
    _check(magic == b"SIDESTAT", "status page, magic", "b'SIDESTAT'", magic)
    _check(_u32(copy, 8) == ABI_VERSION, "status page, abi_version", str(ABI_VERSION), _u32(copy, 8))
    heartbeat, served, failed, abandoned, parks, channels, running = struct.unpack_from("<7Q", copy, 256)
    batches, batched, refused, busy = struct.unpack_from("<4Q", copy, 312)
    return Status(
        abi_version=_u32(copy, 8),
        pid=_u32(copy, 12),
        started_ns=_u64(copy, 16),
        parked=_u32(copy, 128) != 0,
        core=_core(_u32(copy, 132)),
        crowd=_u32(copy, 136),
        cores=_u32(copy, 140),
        heartbeat_ns=heartbeat,
        served=served,
        failed=failed,
        abandoned=abandoned,
        parks=parks,
        channels=channels,
        running_ns=running,
        batches=batches,
        batched=batched,
        refused=refused,
        busy_ns=busy,
    )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def counted(number: int, thing: str, things: str = "") -> str:
    """Say how many there are: `1 slot`, `2 slots`."""
    return f"{number} {thing}" if number == 1 else f"{number} {things or thing + 's'}"


def _shape(dims: Iterable[int]) -> str:
    return f"[{','.join(map(str, dims))}]"


def _duration(nanoseconds: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds >= size:
            return (
                f"{nanoseconds / size:.3g} {unit}"
                if nanoseconds < 1000 * size
                else f"{nanoseconds // size} {unit}"
            )
    return f"{nanoseconds} ns"


def _relative(stamp_ns: int, now_ns: int) -> str:
    return (
        f"{_duration(now_ns - stamp_ns)} ago" if stamp_ns <= now_ns else f"in {_duration(stamp_ns - now_ns)}"
    )


def _on_core(core: int | None) -> str:
    return "core unknown" if core is None else f"core {core}"


def _render_tensor(tensor: Tensor) -> str:
    kind = "output" if tensor.output else "input"
    note = " at most (dynamic)" if tensor.dynamic else ""
    note += ", slots side by side" if tensor.packed else ""
    note += f" with {tensor.text_bytes} B of text" if tensor.dtype == "string" else ""
    return (
        f"  {kind:<6}  {_printable(tensor.name)}: {tensor.dtype}{_shape(tensor.max_dims)}{note}"
        f"  {tensor.max_bytes} B at {tensor.array_offset} + slot * {tensor.slot_stride}"
    )


# What a slot holds of a stamp before its request came this far is left from an earlier request.
_STAMPS = {
    "SUBMITTED": ("deadline", "submitted"),
    "RUNNING": ("deadline", "submitted", "seen", "started"),
    "ABANDONED": ("deadline", "submitted", "seen", "started"),
    "DONE": ("deadline", "submitted", "seen", "started", "finished"),
    "FAILED": ("deadline", "submitted", "seen", "started", "finished"),
}


def _render_slot(slot: Slot, tensors: tuple[Tensor, ...], now_ns: int) -> Iterable[str]:
    stamps = {
        "deadline": slot.deadline_ns,
        "submitted": slot.submitted_ns,
        "seen": slot.seen_ns,
        "started": slot.started_ns,
        # Otherwise it is of some earlier request.
        "finished": slot.finished_ns if slot.all_stamps else 0,
    }
    known = [(name, stamps[name]) for name in _STAMPS.get(slot.state, ()) if stamps[name]]
    ages = "  ".join(f"{name} {_relative(at, now_ns)}" for name, at in known)
    yield f"  {slot.index:>4}  ticket {slot.ticket:<8} {slot.state:<9} {ages}".rstrip()
    if slot.reset and slot.state != "FREE":
        yield "        carried state starts anew"
    if slot.state == "FAILED":
        yield f"        status {slot.status}: {_printable(slot.message)}"
    if slot.state != "FREE":
        for tensor, dims in zip(tensors, slot.dims, strict=True):
            if dims is not None:
                yield f"        {_printable(tensor.name)}: dims {_shape(dims)}"
    if slot.problem:
        yield f"        NOT AS THE PROTOCOL SAYS: {_printable(slot.problem)}"


def render_segment(segment: Segment, now_ns: int) -> str:
    """Describe a segment in lines of text; `now_ns` is CLOCK_MONOTONIC's time, for the ages of the stamps."""
    header = segment.header
    lines = [
        f"segment  {header.segment_bytes} B, ABI {header.abi_version}, fingerprint {header.fingerprint:016x}",
        f"tables   tensors at {header.tensors_offset}, client at {header.client_offset}, "
        f"worker at {header.worker_offset}, "
        f"slots at {header.slots_offset}, dims at {header.dims_offset}, arrays at {header.arrays_offset}",
        f"client   {'sleeps' if segment.client.waiting else 'awake'}, {_on_core(segment.client.core)}",
        f"worker   writes status page {segment.served.page}",
        f"tensors  {counted(header.input_count, 'input')}, {counted(header.output_count, 'output')}",
        *(_render_tensor(tensor) for tensor in segment.tensors),
        f"slots    {header.slot_count}",
    ]
    for slot in segment.slots:
        lines.extend(_render_slot(slot, segment.tensors, now_ns))
    return "\n".join(lines)


def render_status(status: Status, now_ns: int) -> str:
    """Describe a status page in lines of text; `now_ns` as for `render_segment`."""
    started = _relative(status.started_ns, now_ns)
    heartbeat = _relative(status.heartbeat_ns, now_ns) if status.heartbeat_ns else "never"
    running = f", runs a request since {_relative(status.running_ns, now_ns)}" if status.running_ns else ""
    return "\n".join(
        [
            f"worker   pid {status.pid}, ABI {status.abi_version}, started {started}",
            f"         {'sleeps' if status.parked else 'awake'}, {_on_core(status.core)}, "
            f"looked for work {heartbeat}{running}",
            f"         {counted(status.channels, 'channel')}, {status.served} served, "
            f"{status.failed} failed, {status.abandoned} abandoned, slept {counted(status.parks, 'time')}",
            f"         {status.batched} in {counted(status.batches, 'batch', 'batches')}, "
            f"{status.refused} refused by deadline, busy for {_duration(status.busy_ns)}, "
            f"machine-wide at work: {status.crowd or 'unknown'} on {status.cores or 'unknown'} cores",
        ]
    )

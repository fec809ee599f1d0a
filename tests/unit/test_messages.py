"""Control messages: what is sent arrives, and what is none is refused without losing a descriptor."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc_server import messages
from ipc_server.abi import CONTROL_BYTES, ErrorCode
from ipc_server.errors import SidecamlError

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(10)
        yield ours, theirs


def send_raw(sock: socket.socket, data: bytes, fds: list[int] | None = None) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights)


def test_a_message_arrives_with_its_descriptors(pair: Pair) -> None:
    ours, theirs = pair
    read, write = os.pipe()
    messages.send(theirs, {"id": 1, "op": "open"}, [write])
    os.close(write)
    message = messages.receive(ours)
    assert message is not None
    assert message.body == {"id": 1, "op": "open"}
    assert not os.get_inheritable(message.fds[0])
    os.write(message.fds[0], b"x")
    assert os.read(read, 1) == b"x"
    message.close_fds()
    os.close(read)


def test_the_end_reads_as_none(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    assert messages.receive(ours) is None


def test_the_end_with_messages_unread_at_the_other_side_reads_as_none(pair: Pair) -> None:
    ours, theirs = pair
    messages.send(ours, {"id": 1})
    theirs.close()
    assert messages.receive(ours) is None


def test_a_message_of_the_largest_size_fits_and_one_byte_more_does_not(pair: Pair) -> None:
    ours, theirs = pair
    overhead = len(messages.pack({"text": "x" * 60000})) - 60000
    largest = {"text": "x" * (CONTROL_BYTES - overhead)}
    messages.send(theirs, largest)
    received = messages.receive(ours)
    assert received is not None
    assert received.body == largest
    with pytest.raises(SidecamlError, match="65537 bytes") as caught:
        messages.pack({"text": largest["text"] + "x"})
    assert caught.value.code is ErrorCode.INVALID


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\udcff", object()])
def test_what_msgpack_cannot_carry_is_invalid(value: object) -> None:
    with pytest.raises(SidecamlError, match="a control message cannot carry a value") as caught:
        messages.pack({"value": value})
    assert caught.value.code is ErrorCode.INVALID


BAD = {
    "empty": b"",
    "not msgpack": b"\xc1",
    "a number": msgpack.packb(3),
    "a list": msgpack.packb([1, 2]),
    "nil": b"\xc0",
    "cut short": messages.pack({"id": 1, "op": "hello"})[:-2],
    "two in one": messages.pack({"id": 1}) * 2,
    "keys that are numbers": msgpack.packb({1: 2}),
    "keys that are bytes": msgpack.packb({b"id": 2}),
    "keys that are lists": b"\x81\x91\x01\x02",
    "not UTF-8": b"\x81\xa2id\xa2\xff\xfe",
    "nested deeply": b"\x81\xa1x" + b"\x91" * 5000 + b"\xc0",
    "a length it has not": b"\xdf\xff\xff\xff\xff",
    "a text of 4 GiB it has not": b"\x81\xa1x\xdb\xff\xff\xff\xff",
    "oversized": b"\x81\xa1x\xdb\x00\x01\x11\x70" + b"x" * 70000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_message_is_refused_and_its_descriptors_closed(pair: Pair, data: bytes) -> None:
    ours, theirs = pair
    read, write = os.pipe()
    send_raw(theirs, data, [write])
    os.close(write)
    with pytest.raises(SidecamlError, match="not a control message") as caught:
        messages.receive(ours)
    assert caught.value.code is ErrorCode.PROTOCOL
    # End-of-file: nobody holds the other end any more.
    assert os.read(read, 1) == b""
    os.close(read)


def test_more_descriptors_than_anybody_sends_are_refused_and_closed(pair: Pair) -> None:
    ours, theirs = pair
    read, write = os.pipe()
    send_raw(theirs, messages.pack({"id": 1}), [write] * (messages.MAX_DESCRIPTORS + 1))
    os.close(write)
    with pytest.raises(SidecamlError, match="descriptors"):
        messages.receive(ours)
    assert os.read(read, 1) == b""
    os.close(read)


def test_an_empty_message_is_not_taken_for_the_end(pair: Pair) -> None:
    ours, theirs = pair
    send_raw(theirs, b"")
    with pytest.raises(SidecamlError, match="it is empty"):
        messages.receive(ours)


def test_an_error_reply_and_the_error_say_the_same() -> None:
    error = SidecamlError(ErrorCode.NO_SPACE, "wanted 7, has 3")
    reply = messages.reply_error({"id": 9}, error)
    assert reply == {"id": 9, "ok": False, "code": 23, "error": "NO_SPACE", "message": "wanted 7, has 3"}
    back = messages.error_of(reply)
    assert (back.code, str(back)) == (error.code, str(error))


@pytest.mark.parametrize(
    "reply", [{}, {"code": "x"}, {"code": 9999, "message": "m"}, {"code": None}, {"code": []}]
)
def test_an_error_reply_without_a_known_code_is_a_protocol_error(reply: dict[str, object]) -> None:
    assert messages.error_of(reply).code is ErrorCode.PROTOCOL


@pytest.mark.parametrize("value", [True, -1, 2**64, "1", None, 1.0])
def test_only_unsigned_integers_are_ids(value: object) -> None:
    assert not messages.is_count(value)
    assert "id" not in messages.reply_error({"id": value}, SidecamlError(ErrorCode.PROTOCOL, "no"))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_raw(theirs, data)
        try:
            message = messages.receive(ours)
        except SidecamlError as error:
            assert error.code is ErrorCode.PROTOCOL
        else:
            assert message is not None


@given(st.recursive(st.none() | st.binary() | st.text() | st.floats(), st.lists))
def test_what_came_from_outside_is_shown_briefly(value: object) -> None:
    shown = messages.shown(value)
    assert len(shown) <= 80
    assert shown.isprintable()

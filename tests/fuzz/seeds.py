"""Writes inputs for the fuzz targets to begin with: seeds.py FOLDER makes FOLDER/TARGET/NAME.

Segments are the golden vectors, control messages those that a daemon and its workers send.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ipc_server.abi import ABI_VERSION  # noqa: E402

# As enum kind of fuzz_handshake.c has them.
SEGMENT, DOORBELL, STATUS = 0, 1, 2
# What the segment there has for its signature.
FINGERPRINT = 77

TENSORS: Mapping[str, Any] = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 8]}],
    "outputs": [{"name": "y", "dtype": "int64", "shape": [4]}],
}
MODEL: Mapping[str, Any] = {
    "name": "m",
    "engine": "onnx",
    "state": "ready",
    "problem": "",
    "fingerprint": FINGERPRINT,
    "max_slots": 8,
    **TENSORS,
}
BATCHING = {
    **{"dim": "N", "policy": "exact", "most": 12, "why": "2 s are over", "gather_from": 4, "in_place": True},
    **{"rest_from": 2, "shared": ["rate"], "sizes": {"T": [256]}},
}
CARRIED = [{"output": "y", "name": "h", "dtype": "float32", "shape": [1, "M"]}]
FAILED = {**MODEL, "name": "n", "state": "failed", "problem": "no such file", "inputs": [], "outputs": []}

HELLO, DESCRIBE, OPEN, PING = 0, 1, 2, 3


def golden(name: str) -> bytes:
    """Read a golden vector."""
    head, *lines = (ROOT / "tests/golden" / f"{name}.hex").read_text().splitlines()
    data = bytearray(int(head.split()[1]))
    for line in lines:
        offset, text = line.split()
        data[int(offset, 16) : int(offset, 16) + len(text) // 2] = bytes.fromhex(text)
    return bytes(data)


def layouts() -> Iterator[tuple[str, bytes]]:
    """Make segments for fuzz_layout: pages, what is left as it is, bytes."""
    for name in ("every_state", "every_type", "no_tensors", "scalar"):
        data = golden(name)
        pages = len(data) // 4096
        if pages <= 8:
            yield name, bytes([pages, 0b111]) + data.rstrip(b"\0")
            yield f"{name}_mended", bytes([pages, 0]) + data.rstrip(b"\0")


def said(message: Mapping[str, Any], things: Sequence[int] = ()) -> bytes:
    """Make one message as `say` in fuzz_handshake.c reads it."""
    data = msgpack.packb(message)
    return struct.pack("<H", len(data)) + bytes([len(things), *things]) + data


def ok(number: int, **fields: Any) -> dict[str, Any]:
    """Make the reply to a request."""
    return {"id": number, "ok": True, **fields}


def script(*ops: int, ends: bool = True) -> bytes:
    """Make the first byte: what the client does."""
    return bytes([int(ends) | sum(op << 1 + 2 * place for place, op in enumerate(ops))])


def handshakes() -> Iterator[tuple[str, bytes]]:
    """Make conversations for fuzz_handshake."""
    hello = said(ok(1, abi=ABI_VERSION, server="sidecaml 0.1.0", pid=1))
    refused = said({"id": 2, "ok": False, "code": 9, "error": "X", "message": "no model is called 'm'"})
    opened = ok(2, channel=1, model=MODEL, slots=2, segment_bytes=1, fingerprint=FINGERPRINT)
    things = (SEGMENT, DOORBELL, DOORBELL, STATUS)
    page = said(ok(2, models=[MODEL, FAILED], more=True)) + said(ok(3, models=[MODEL], more=False))
    yield "hello", script(HELLO) + hello
    yield "refused", script(OPEN) + refused
    yield "describe", script(HELLO, DESCRIBE) + hello + page
    yield "carried", script(DESCRIBE) + said(ok(2, models=[{**MODEL, "carried": CARRIED}], more=False))
    batched = {**MODEL, "batching": BATCHING}
    yield "batched", script(DESCRIBE) + said(ok(2, models=[batched], more=False))
    yield "open", script(HELLO, OPEN) + hello + said(opened, things)
    gone = {"event": "gone", "channel": 1, "code": 12, "message": "the worker is gone"}
    yield "gone", script(OPEN) + said(opened, things) + said(gone)
    yield "unknown_event", script(OPEN) + said(opened, things) + said({"event": "later", "channel": 1})
    yield "wrong_things", script(OPEN) + said(opened, things[::-1])
    yield "ping", script(PING) + said(ok(3, time_ns=1))


def texts() -> Iterator[tuple[str, bytes]]:
    """Make sentences for fuzz_texts: a text of ONNX Runtime's, a type."""
    sentences = (
        b"Load model from /m.onnx failed:/onnxruntime/core/graph/model.cc:180 onnxruntime::Model::Model(...) "
        b"Unknown model file format version.",
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: é\n".encode(),
        b"tensor(float)",
        b"tensor(bfloat16)",
        b"float8e4m3fn",
    )
    for number, sentence in enumerate(sentences):
        yield f"sentence_{number}", bytes([0, 63, len(sentence)]) + sentence
    table = bytes([2, 2, 20, 2, 0, 3, 5, 6]) + "aé€".encode()
    yield "strings", table


def asked(*requests: Mapping[str, Any]) -> bytes:
    """Make a conversation as fuzz_protocol.py reads it."""
    packed = [msgpack.packb({"id": number, **request}) for number, request in enumerate(requests, 1)]
    return b"".join(struct.pack("<H", len(data)) + b"\0" + data for data in packed)


def protocols() -> Iterator[tuple[str, bytes]]:
    """Make what clients say to fuzz_protocol."""
    hello = {"op": "hello", "abi": ABI_VERSION, "client": "fuzz"}
    opened = {"op": "open", "model": "m", "slots": 2, "dims": {"N": 4, "M": 2}}
    yield "hello", asked(hello)
    yield "old", asked({**hello, "abi": 1})
    yield "ping", asked(hello, {"op": "ping"})
    yield "describe", asked(hello, {"op": "describe"}, {"op": "describe", "model": "m"})
    yield "after", asked(hello, {"op": "describe", "after": "a"}, {"op": "channels", "after": 1})
    yield "open", asked(hello, opened, {"op": "close", "channel": 1}, {"op": "channels"})
    yield "refused", asked(hello, {**opened, "slots": 1, "text_bytes": 9}, {"op": "inspect", "channel": 1})
    yield "unknown", asked(hello, {"op": "opne"}, {**opened, "model": "n"})


def orders() -> Iterator[tuple[str, bytes]]:
    """Make what supervisors and daemons say to fuzz_messages: what is done with it, the message."""
    tensor = {
        "name": "x",
        "dtype": "float32",
        "output": False,
        "dynamic": True,
        "max_dims": [4],
        "text_bytes": 0,
    }
    attach = {"op": "attach", "channel": 1, "slots": 2, "fingerprint": 7, "dims": {"N": 4}, "staged": True}
    load = {"op": "load", "name": "m", "path": "/m.onnx", "engine": "onnx", "threads": 1, "lane": "native"}
    for number, message in enumerate(
        (
            {**attach, "tensors": [tensor, {**tensor, "name": "y", "output": True}]},
            {"op": "detach", "channel": 1},
            {"op": "drain"},
            {"op": "ping"},
            {"op": "keep", "channels": [1]},
        )
    ):
        yield f"order_{number}", bytes([9]) + msgpack.packb({"id": 1, **message})
    steps = {"steps": [load], "keep": ["a"], "rename": {"a": "b"}, "state": {"a": "b"}, **TENSORS}
    yield "settings", b"\0" + msgpack.packb({**load, **steps})
    yield "signature", b"\0" + msgpack.packb({**MODEL, "carried": CARRIED})
    yield "failure", b"\0" + msgpack.packb({"id": 1, "ok": False, "code": 9, "error": "X", "message": "no"})


def images() -> Iterator[tuple[str, bytes]]:
    """Make what fuzz_decode shows."""
    for name in ("every_state", "no_tensors", "scalar"):
        data = golden(name)
        yield name, bytes([len(data) // 4096 << 1]) + data.rstrip(b"\0")
    yield "status", b"\1" + golden("status").rstrip(b"\0")


SEEDS = {
    "layout": layouts,
    "handshake": handshakes,
    "texts": texts,
    "protocol": protocols,
    "messages": orders,
    "decode": images,
}


def main() -> None:
    """Write them all."""
    for target, seeds in SEEDS.items():
        folder = Path(sys.argv[1], target)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()

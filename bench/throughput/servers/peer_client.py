"""A client with one request in flight: peer_client.py KIND ADDRESS.

Says `ready` after its first answer, reads a line `START_NS SECONDS`, and says `done N` and how many were
answered; `error TEXT` when something is wrong.
"""

from __future__ import annotations

import http.client
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx_model import INPUTS, MODEL

OUTPUT_BYTES = 40
PATIENCE_S = 30.0
Call = Callable[[Any], bytes]


def msgpack_call(address: str) -> Call:
    """Call by msgpack over a Unix socket."""
    import msgpack  # noqa: PLC0415

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(address)
    packer, unpacker = msgpack.Packer(), msgpack.Unpacker()

    def call(x: Any) -> bytes:
        connection.sendall(packer.pack({"x": x.tobytes()}))
        while True:
            for answer in unpacker:
                return bytes(answer["y"])
            unpacker.feed(connection.recv(1 << 16))

    return call


def mosec_call(address: str) -> Call:
    """Call by HTTP, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", int(address), timeout=PATIENCE_S)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(x: Any) -> bytes:
        connection.request("POST", "/inference", x.tobytes())
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"status {response.status}: {content[:200]!r}")
        return content

    return call


def triton_call(address: str) -> Call:
    """Call by gRPC, with Triton's own client."""
    from tritonclient import grpc  # noqa: PLC0415

    client = grpc.InferenceServerClient(f"127.0.0.1:{int(address) + 1}")

    def call(x: Any) -> bytes:
        taken = grpc.InferInput("x", [1, INPUTS], "FP32")
        taken.set_data_from_numpy(x.reshape(1, INPUTS))
        found = client.infer(MODEL, [taken]).as_numpy("y")
        return bytes(found.tobytes())

    return call


CALLS = {"msgpack": msgpack_call, "mosec": mosec_call, "triton": triton_call}


def main() -> None:
    """Call as often as possible."""
    call = CALLS[sys.argv[1]](sys.argv[2])
    x = np.random.default_rng(1).standard_normal(INPUTS).astype(np.float32)
    if len(call(x)) != OUTPUT_BYTES:
        raise RuntimeError("the answer has not the size of the model's output")
    print("ready", flush=True)
    start_ns, seconds = sys.stdin.readline().split()
    while time.monotonic_ns() < int(start_ns):
        time.sleep(0.001)
    end_ns = int(start_ns) + int(float(seconds) * 1e9)
    count = 0
    # At least once, however late it is run.
    while not count or time.monotonic_ns() < end_ns:
        call(x)
        count += 1
    print(f"done {count}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        print(f"error {type(error).__name__}: {error}".replace("\n", " "), flush=True)
        sys.exit(1)

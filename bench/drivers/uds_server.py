"""The server of the path `uds-msgpack`: requests and answers are maps from a tensor's name to its bytes.

uds_server.py FILE.onnx SOCKET_FD

What one would write in an afternoon, and meant to be good: one copy where one is needed, one thread.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

# Before it is loaded: it would keep a database under the home directory otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import msgpack
import numpy as np
import onnxruntime

RECEIVE_BYTES = 1 << 20
# Far above what the benchmark sends; msgpack's own limit is 100 MiB.
MOST_BYTES = 1 << 30
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class Model:
    """A model that takes and gives bytes."""

    def __init__(self, path: str) -> None:
        """Load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = {put.name: (DTYPES[put.type], put.shape) for put in self._session.get_inputs()}
        self._outputs = [put.name for put in self._session.get_outputs()]

    def run(self, request: dict[str, bytes]) -> dict[str, bytes]:
        """Answer a request."""
        feeds = {}
        for name, content in request.items():
            dtype, shape = self._inputs[name]
            feeds[name] = np.frombuffer(content, dtype).reshape(shape)
        results = self._session.run(self._outputs, feeds)
        return {name: result.tobytes() for name, result in zip(self._outputs, results, strict=True)}


def answer(model: Model, request: Any) -> dict[str, bytes] | str:
    """Run a request, or say why not."""
    try:
        return model.run(request)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def serve(model: Model, connection: socket.socket) -> None:
    """Answer requests until the client is gone."""
    unpacker = msgpack.Unpacker(max_buffer_size=MOST_BYTES)
    packer = msgpack.Packer()
    while received := connection.recv(RECEIVE_BYTES):
        unpacker.feed(received)
        for request in unpacker:
            connection.sendall(packer.pack(answer(model, request)))


def main() -> None:
    """Load the model and serve."""
    model = Model(sys.argv[1])
    with socket.socket(fileno=int(sys.argv[2])) as connection:
        serve(model, connection)


if __name__ == "__main__":
    main()

"""msgpack over a Unix socket, a thread a connection: msgpack_server.py FILE.onnx SOCKET."""

from __future__ import annotations

import socket
import sys
import threading

import msgpack
import numpy as np
from onnx_model import INPUTS, OnnxModel

RECEIVE_BYTES = 1 << 16


def serve(model: OnnxModel, connection: socket.socket) -> None:
    """Answer requests until the client is gone."""
    unpacker, packer = msgpack.Unpacker(), msgpack.Packer()
    with connection:
        while received := connection.recv(RECEIVE_BYTES):
            unpacker.feed(received)
            for request in unpacker:
                x = np.frombuffer(request["x"], np.float32).reshape(1, INPUTS)
                connection.sendall(packer.pack({"y": model.run(x).tobytes()}))


def main() -> None:
    """Load the model and take connections."""
    model = OnnxModel(sys.argv[1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(sys.argv[2])
        listener.listen()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(model, connection), daemon=True).start()


if __name__ == "__main__":
    main()

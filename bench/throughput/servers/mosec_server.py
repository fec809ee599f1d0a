"""mosec with its dynamic batches: mosec_server.py --port N, the model's file in $PEER_MODEL."""

from __future__ import annotations

import os

import numpy as np
from mosec import Server, Worker
from numpy.typing import NDArray
from onnx_model import INPUTS, OnnxModel

MOST = 32
LONGEST_WAIT_MS = 1
Row = NDArray[np.float32]


class Small(Worker):  # type: ignore[misc]
    """Rows as their bytes."""

    def __init__(self) -> None:
        """Load the model."""
        super().__init__()
        self._model = OnnxModel(os.environ["PEER_MODEL"])

    def deserialize(self, data: bytes) -> Row:
        """Take a row out of a request."""
        return np.frombuffer(data, np.float32)

    def serialize(self, data: Row) -> bytes:
        """Put a row into an answer."""
        return data.tobytes()

    def forward(self, data: list[Row]) -> list[Row]:
        """Run a batch."""
        return list(self._model.run(np.stack(data).reshape(-1, INPUTS)))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Small, num=1, max_batch_size=MOST, max_wait_time=LONGEST_WAIT_MS)
    server.run()

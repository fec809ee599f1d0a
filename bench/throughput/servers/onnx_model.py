"""The model of every one of these servers: rows in, rows out, on one thread."""

from __future__ import annotations

import os
from typing import Any

# Before it is loaded: it would keep a database under the home directory otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

MODEL = "small"
INPUTS = 64


class OnnxModel:
    """A model with the input `x` and the output `y`, whose first dimension counts requests."""

    def __init__(self, path: str) -> None:
        """Load it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, x: Any) -> Any:
        """Run one batch."""
        return self._session.run(["y"], {"x": x})[0]

"""What the pyml driver has Python do: load a model, and bind all its tensors to memory of OCaml's."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

# Before it is loaded: it would keep a database under the home directory otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime

ELEMENTS = {"tensor(float)": "float32", "tensor(int64)": "int64"}
LOG_ERRORS = 3

Tensor = tuple[str, str, list[int]]


def load(path: str) -> Any:
    """Load a model, with the options that every other path has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = LOG_ERRORS
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def inputs(session: Any) -> list[Tensor]:
    """List name, element type and dimensions of each input."""
    return [_tensor(arg) for arg in session.get_inputs()]


def outputs(session: Any) -> list[Tensor]:
    """List the outputs likewise."""
    return [_tensor(arg) for arg in session.get_outputs()]


def bind(
    session: Any, input_addresses: Sequence[int], output_addresses: Sequence[int]
) -> Callable[[], object]:
    """Bind every tensor to its address, and give the function that runs the model."""
    io = session.io_binding()
    for arg, address in zip(session.get_inputs(), input_addresses, strict=True):
        io.bind_input(arg.name, "cpu", 0, _dtype(arg), arg.shape, address)
    for arg, address in zip(session.get_outputs(), output_addresses, strict=True):
        io.bind_output(arg.name, "cpu", 0, _dtype(arg), arg.shape, address)
    # The public objects around these two only check and pass on.
    return partial(session._sess.run_with_iobinding, io._iobinding, None)


def _dtype(arg: Any) -> type:
    return np.dtype(ELEMENTS[arg.type]).type


def _tensor(arg: Any) -> Tensor:
    if not all(isinstance(size, int) for size in arg.shape):
        raise ValueError(
            f"tensor {arg.name!r} is of {arg.shape}; the benchmark takes models of fixed dimensions"
        )
    return arg.name, ELEMENTS.get(arg.type, arg.type), arg.shape

"""ONNX Runtime through its Python package, imported here only: it would open a database at home unasked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from ipc_server import _core
from ipc_server.abi import Dtype
from ipc_server.engines.onnx_session import Description, Value, words_of
from ipc_server.tensor import ONNX_CODE

CPU = ort.OrtDevice(ort.OrtDevice.cpu(), ort.OrtDevice.default_memory(), 0)
# ONNX Runtime's numbers for errors and worse, and for less than that.
LOG_ERRORS = 3
LOG_FATAL = 4


class PythonSession:
    """A model, loaded with the options that c_shim/ort/session.c has, too."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A pool that spins takes the processor from whoever waits for the answer.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Its warnings are hints to whoever exported the model, some of them one for each of its weights.
        options.log_severity_level = LOG_ERRORS
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        # The public object costs 38 µs a run when it is given options: the one it wraps is called directly.
        self._session: Any = session._sess

    @property
    def inputs(self) -> Sequence[Description]:
        """Its inputs."""
        return [_description(arg) for arg in self._session.inputs_meta]

    @property
    def outputs(self) -> Sequence[Description]:
        """Its outputs."""
        return [_description(arg) for arg in self._session.outputs_meta]

    def bind(self) -> PythonBinding:
        """Bind nothing yet."""
        return PythonBinding(self._session)

    def explain(self, error: Exception) -> str:
        """Say in one line what went wrong."""
        return _core.sentence(words_of(error))


class PythonBinding:
    """A session's tensors bound to memory."""

    def __init__(self, session: Any) -> None:
        """Bind nothing yet."""
        self._io = ort.SessionIOBinding(session)
        options = ort.RunOptions()
        # A run's failure is the client's to hear of.
        options.log_severity_level = LOG_FATAL
        self.run: Callable[[], object] = partial(session.run_with_iobinding, self._io, options)

    def bind_input(self, name: str, dtype: Dtype, dims: Sequence[int], address: int) -> None:
        """Read an input from there."""
        self._io.bind_input(name, CPU, ONNX_CODE[dtype], dims, address)

    def bind_output(self, name: str, dtype: Dtype, dims: Sequence[int], address: int) -> None:
        """Write an output there."""
        self._io.bind_output(name, CPU, ONNX_CODE[dtype], dims, address)

    def bind_output_anywhere(self, name: str) -> None:
        """Write an output where ONNX Runtime allocates it."""
        self._io.bind_output(name, CPU)

    def outputs(self) -> Sequence[Value]:
        """Tell where the last run left its outputs."""
        return [
            (tuple(value.shape()), value.data_ptr(), value.tensor_size_in_bytes())
            for value in self._io.get_outputs()
        ]


def _description(arg: Any) -> Description:
    try:
        return arg.name, arg.type, tuple(arg.shape)
    except UnicodeDecodeError as error:
        return error.object, "", ()

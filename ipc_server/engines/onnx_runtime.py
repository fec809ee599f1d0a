"""ONNX Runtime through its Python package, imported here only: it would open a database at home unasked."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from ipc_server import _core
from ipc_server.abi import Dtype
from ipc_server.engines.onnx_session import Description, IoBinding, Value, words_of
from ipc_server.tensor import OFFSET_BYTES, ONNX_CODE, size_of

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

    def bind(self) -> IoBinding:
        """Bind nothing yet."""
        metas = (*self._session.inputs_meta, *self._session.outputs_meta)
        with_strings = any(meta.type == "tensor(string)" for meta in metas)
        return StringsBinding(self._session) if with_strings else PythonBinding(self._session)

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

    def bind_strings(self, name: str, dims: Sequence[int], address: int, most: int, text_bytes: int) -> None:
        """Never called: a model with strings has a StringsBinding."""
        raise AssertionError(name)

    def copy_strings(self, output: int, name: str, address: int, most: int, text_bytes: int) -> None:
        """Never called: a model with strings has a StringsBinding."""
        raise AssertionError(name)


class StringsBinding:
    """The same for a model with strings, which the Python package takes and gives as numpy arrays only."""

    def __init__(self, session: Any) -> None:
        """Bind nothing yet."""
        self._session = session
        self._options = ort.RunOptions()
        self._options.log_severity_level = LOG_FATAL
        self._names: list[str] = []
        self._inputs: dict[str, Callable[[], object]] = {}
        self._values: list[NDArray[Any]] = []

    def bind_input(self, name: str, dtype: Dtype, dims: Sequence[int], address: int) -> None:
        """Read an input from there."""
        value = onnxruntime.OrtValue(
            ort.OrtValue.ortvalue_from_shape_and_onnx_type(list(dims), ONNX_CODE[dtype], CPU)
        )
        size = size_of(dtype, dims)

        def read() -> object:
            ctypes.memmove(value.data_ptr(), address, size)
            return value

        self._inputs[name] = read

    def bind_output(self, name: str, _dtype: Dtype, _dims: Sequence[int], _address: int) -> None:
        """Write an output where the caller will find that it is not at the address."""
        self.bind_output_anywhere(name)

    def bind_output_anywhere(self, name: str) -> None:
        """Write an output where ONNX Runtime allocates it."""
        if name not in self._names:
            self._names.append(name)

    def bind_strings(self, name: str, dims: Sequence[int], address: int, most: int, text_bytes: int) -> None:
        """Read an input from the strings that lie there now."""
        place = _memory(address, OFFSET_BYTES * (most + 1) + text_bytes)
        strings = _core.read_strings("input", name, place, most, math.prod(dims))
        array = np.array([*strings, None], object)[:-1].reshape(dims)
        self._inputs[name] = lambda: array

    def copy_strings(self, output: int, _name: str, address: int, most: int, text_bytes: int) -> None:
        """Write an output of strings to a place with room for it."""
        place = _memory(address, OFFSET_BYTES * (most + 1) + text_bytes)
        _core.write_strings(place, most, _encoded(self._values[output]))

    def run(self) -> None:
        """Run the model on what is bound."""
        feeds = {name: read() for name, read in self._inputs.items()}
        self._values = self._session.run(self._names, feeds, self._options)

    def outputs(self) -> Sequence[Value]:
        """Tell where the last run left its outputs."""
        return [_value(array) for array in self._values]


def _value(array: NDArray[Any]) -> Value:
    if array.dtype == object:
        return array.shape, 0, sum(map(len, _encoded(array)))
    return array.shape, array.ctypes.data, array.nbytes


def _encoded(strings: NDArray[Any]) -> list[bytes]:
    return [text.encode() for text in strings.ravel()]


def _memory(address: int, size: int) -> ctypes.Array[ctypes.c_uint8]:
    return (ctypes.c_uint8 * size).from_address(address)


def _description(arg: Any) -> Description:
    try:
        return arg.name, arg.type, tuple(arg.shape)
    except UnicodeDecodeError as error:
        return error.object, "", ()

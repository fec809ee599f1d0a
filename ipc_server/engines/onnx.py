"""The engine `onnx`: ONNX Runtime on the processor, on the memory of slots."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ipc_server.abi import MAX_RANK, MAX_TENSORS, Dtype, ErrorCode
from ipc_server.engines import Runner, ServedChannel
from ipc_server.engines.onnx_binding import slot_runner
from ipc_server.engines.onnx_error import sentence
from ipc_server.engines.onnx_runtime import CPU, onnxruntime, ort, run_options
from ipc_server.errors import SidecamlError
from ipc_server.signature import Signature, Tensor
from ipc_server.tensor import DTYPE_OF_ONNX_TYPE, ONNX_CODE, size_of

log = logging.getLogger(__name__)

WARM_UP_RUNS = 3
# ONNX Runtime's number for errors and worse.
LOG_ERRORS = 3


class OnnxEngine:
    """One model in one session."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load and warm up."""
        check_file(path)
        # The public object costs 38 µs a run when it is given options: the one it wraps is called directly.
        self._session = _create_session(path, threads)._sess
        self._signature = signature_of_session(self._session)
        self._warm_up()

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs."""
        return self._signature

    def attach(self, channel: ServedChannel) -> Sequence[Runner]:
        """Bind every slot."""
        return [slot_runner(self._session, self._signature, channel, slot) for slot in range(channel.slots)]

    def explain(self, error: Exception) -> str:
        """Say in one line what ONNX Runtime found wrong."""
        return sentence(error)

    def _warm_up(self) -> None:
        try:
            shapes = run_on_zeros(self._session, self._signature, WARM_UP_RUNS)
        except Exception as error:
            log.info("the warm-up on zeros failed, which need not matter: %s", sentence(error))
            return
        for tensor, shape in zip(self._signature.outputs, shapes, strict=True):
            # ONNX Runtime shows an output without a declared shape as if it were a scalar.
            if len(shape) != len(tensor.shape):
                raise _unsupported(
                    f"output {tensor.name!r} is declared with {len(tensor.shape)} dimensions, or without a "
                    f"shape, and has {len(shape)}: export the model with its shape"
                )


def check_file(path: Path) -> None:
    """Raise MODEL_FAILED for what cannot be a model at all."""
    try:
        if path.is_dir():
            raise _failed(f"{path} is a directory: expected an ONNX file")
        if path.exists() and not path.is_file():
            raise _failed(f"{path} is no regular file: expected an ONNX file")
        with path.open("rb") as file:
            if not file.read(1):
                raise _failed(f"{path} is empty: expected an ONNX file")
    except OSError as error:
        raise _failed(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _failed(f"{str(path)!r} is no path: {error}") from error


def _create_session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A pool that spins takes the processor from whoever waits for the answer.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its warnings are hints to whoever exported the model, some of them one for each of its weights.
    options.log_severity_level = LOG_ERRORS
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _failed(f"{path} could not be loaded as an ONNX model: {sentence(error)}") from error


def signature_of_session(session: Any) -> Signature:
    """Read inputs and outputs; UNSUPPORTED names the one that a channel cannot carry."""
    inputs, outputs = session.inputs_meta, session.outputs_meta
    if len(inputs) + len(outputs) > MAX_TENSORS:
        raise _unsupported(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs: a channel carries at most "
            f"{MAX_TENSORS} together"
        )
    try:
        return Signature(
            tuple(_tensor("input", arg) for arg in inputs), tuple(_tensor("output", arg) for arg in outputs)
        )
    except UnicodeDecodeError as error:
        raise _unsupported(
            f"the name {error.object!r} of an input, output or dimension is not UTF-8: rename it"
        ) from error


def _tensor(kind: str, arg: Any) -> Tensor:
    dtype = DTYPE_OF_ONNX_TYPE.get(arg.type)
    if dtype is None:
        carried = ", ".join(known.name.lower() for known in Dtype)
        raise _unsupported(f"{kind} {arg.name!r} is a {arg.type}: a channel carries tensors of {carried}")
    if len(arg.shape) > MAX_RANK:
        raise _unsupported(
            f"{kind} {arg.name!r} has {len(arg.shape)} dimensions: a channel carries at most {MAX_RANK}"
        )
    return Tensor(arg.name, dtype, tuple(_dim(arg.name, axis, dim) for axis, dim in enumerate(arg.shape)))


def _dim(tensor: str, axis: int, dim: int | str | None) -> int | str:
    """Give a dimension its size or its name; one with neither is called after its tensor and axis."""
    if isinstance(dim, int) and dim >= 0:
        return dim
    return dim if isinstance(dim, str) and dim else f"{tensor}[{axis}]"


def run_on_zeros(session: Any, signature: Signature, times: int) -> list[tuple[int, ...]]:
    """Run on zeros in private memory, dynamic dimensions 1; the shapes that the outputs had."""
    binding = ort.SessionIOBinding(session)
    options = run_options()
    held = []
    for tensor in signature.inputs:
        dims = [1 if isinstance(dim, str) else dim for dim in tensor.shape]
        zeros = np.zeros(max(size_of(tensor.dtype, dims), 1), np.uint8)
        held.append(zeros)
        binding.bind_input(tensor.name, CPU, ONNX_CODE[tensor.dtype], dims, zeros.ctypes.data)
    for _ in range(times):
        for tensor in signature.outputs:
            binding.bind_output(tensor.name, CPU)
        session.run_with_iobinding(binding, options)
    return [tuple(value.shape()) for value in binding.get_outputs()]


def _failed(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.MODEL_FAILED, what)


def _unsupported(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.UNSUPPORTED, what)

"""The engine `onnx`: ONNX Runtime on the processor, on the memory of slots."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ipc_server.abi import MAX_RANK, MAX_TENSORS, Dtype, ErrorCode
from ipc_server.engines import Runner, ServedChannel
from ipc_server.engines.onnx_binding import slot_runner
from ipc_server.engines.onnx_error import sentence
from ipc_server.engines.onnx_session import Session, create_session, is_native
from ipc_server.errors import SidecamlError
from ipc_server.signature import Signature, Tensor
from ipc_server.tensor import DTYPE_OF_ONNX_TYPE, size_of

log = logging.getLogger(__name__)

WARM_UP_RUNS = 3


class OnnxEngine:
    """One model in one session."""

    def __init__(self, path: Path, threads: int, lane: str) -> None:
        """Load and warm up."""
        check_file(path)
        self._native = is_native(lane)
        self._session = _load(path, threads, self._native)
        self._signature = signature_of_session(self._session)
        self._warm_up()

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs."""
        return self._signature

    @property
    def native(self) -> bool:
        """Whether the native lane can run it."""
        return self._native

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


def _load(path: Path, threads: int, native: bool) -> Session:
    try:
        return create_session(path, threads, native)
    except Exception as error:
        raise _failed(f"{path} could not be loaded as an ONNX model: {sentence(error)}") from error


def signature_of_session(session: Session) -> Signature:
    """Read inputs and outputs; UNSUPPORTED names the one that a channel cannot carry."""
    try:
        inputs, outputs = session.inputs, session.outputs
    except UnicodeDecodeError as error:
        raise _unsupported(
            f"the name {error.object!r} of an input, output or dimension is not UTF-8: rename it"
        ) from error
    if len(inputs) + len(outputs) > MAX_TENSORS:
        raise _unsupported(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs: a channel carries at most "
            f"{MAX_TENSORS} together"
        )
    return Signature(
        tuple(_tensor("input", *given) for given in inputs),
        tuple(_tensor("output", *given) for given in outputs),
    )


def _tensor(kind: str, name: str, type_name: str, shape: Sequence[int | str | None]) -> Tensor:
    dtype = DTYPE_OF_ONNX_TYPE.get(type_name)
    if dtype is None:
        carried = ", ".join(known.name.lower() for known in Dtype)
        raise _unsupported(f"{kind} {name!r} is a {type_name}: a channel carries tensors of {carried}")
    if len(shape) > MAX_RANK:
        raise _unsupported(
            f"{kind} {name!r} has {len(shape)} dimensions: a channel carries at most {MAX_RANK}"
        )
    return Tensor(name, dtype, tuple(_dim(name, axis, dim) for axis, dim in enumerate(shape)))


def _dim(tensor: str, axis: int, dim: int | str | None) -> int | str:
    """Give a dimension its size or its name; one with neither is called after its tensor and axis."""
    if isinstance(dim, int) and dim >= 0:
        return dim
    return dim if isinstance(dim, str) and dim else f"{tensor}[{axis}]"


def run_on_zeros(session: Session, signature: Signature, times: int) -> list[tuple[int, ...]]:
    """Run on zeros in private memory, dynamic dimensions 1; the shapes that the outputs had."""
    binding = session.bind()
    held = []
    for tensor in signature.inputs:
        dims = [1 if isinstance(dim, str) else dim for dim in tensor.shape]
        zeros = np.zeros(max(size_of(tensor.dtype, dims), 1), np.uint8)
        held.append(zeros)
        binding.bind_input(tensor.name, tensor.dtype, dims, zeros.ctypes.data)
    for _ in range(times):
        for tensor in signature.outputs:
            binding.bind_output_anywhere(tensor.name)
        binding.run()
    return [dims for dims, _, _ in binding.outputs()]


def _failed(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.MODEL_FAILED, what)


def _unsupported(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.UNSUPPORTED, what)

"""The engine `onnx`: ONNX Runtime on the processor, on the memory of slots."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ipc_server import _core
from ipc_server.abi import Dtype
from ipc_server.engines import Runner, ServedChannel
from ipc_server.engines.onnx_binding import Loaded, slot_runner
from ipc_server.engines.onnx_session import Session, create_session, is_native
from ipc_server.signature import Signature, Tensor
from ipc_server.tensor import size_of

log = logging.getLogger(__name__)

WARM_UP_RUNS = 3


class OnnxEngine:
    """One model in one session."""

    def __init__(self, path: Path, threads: int, lane: str) -> None:
        """Load and warm up."""
        _core.check_model_file(path)
        self._native = is_native(lane)
        self._session = create_session(path, threads, self._native)
        self._tensors = _core.Tensors(self._session.inputs, self._session.outputs)
        self._signature = signature_of(self._tensors)
        self._warm_up()

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs."""
        return self._signature

    @property
    def native(self) -> bool:
        """Whether the native lane can run it."""
        return self._native

    @property
    def loaded(self) -> Loaded:
        """What runs it."""
        return Loaded(self._session, self._tensors, self._signature)

    def attach(self, channel: ServedChannel) -> Sequence[Runner]:
        """Bind every slot."""
        model = self.loaded
        return [slot_runner(model, channel, slot) for slot in range(channel.slots)]

    def explain(self, error: Exception) -> str:
        """Say in one line what ONNX Runtime found wrong."""
        return self._session.explain(error)

    def _warm_up(self) -> None:
        try:
            shapes = run_on_zeros(self._session, self._signature, WARM_UP_RUNS)
        except Exception as error:
            log.info("the warm-up on zeros failed, which need not matter: %s", self.explain(error))
            return
        for output, shape in enumerate(shapes, len(self._signature.inputs)):
            self._tensors.check_rank(output, len(shape))


def signature_of(tensors: _core.Tensors) -> Signature:
    """Give the tensors that a session declares as a signature."""
    inputs, outputs = (
        tuple(Tensor(name, Dtype(dtype), shape) for name, dtype, shape in group)
        for group in (tensors.inputs, tensors.outputs)
    )
    return Signature(inputs, outputs)


def run_on_zeros(session: Session, signature: Signature, times: int) -> list[tuple[int, ...]]:
    """Run on zeros in private memory, dynamic dimensions 1; the shapes that the outputs had."""
    binding = session.bind()
    held = []
    for tensor in signature.inputs:
        dims = [1 if isinstance(dim, str) else dim for dim in tensor.shape]
        zeros = np.zeros(max(size_of(tensor.dtype, dims), 1), np.uint8)
        held.append(zeros)
        if tensor.dtype is Dtype.STRING:
            binding.bind_strings(tensor.name, dims, zeros.ctypes.data, math.prod(dims), 0)
        else:
            binding.bind_input(tensor.name, tensor.dtype, dims, zeros.ctypes.data)
    for _ in range(times):
        for tensor in signature.outputs:
            binding.bind_output_anywhere(tensor.name)
        binding.run()
    return [dims for dims, _, _ in binding.outputs()]

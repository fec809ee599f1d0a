"""Sidecaml as ONNX's tests see a backend: `onnx.backend.base`, over a daemon."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from daemon_process import Daemon
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from conformance.tensors import Tensor, tensor_of_array
from ipc_server import client
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.errors import OutputTooLarge, SidecamlError
from ipc_server.signature import Signature
from ipc_server.signature import Tensor as Declared
from ipc_server.tensor import ONNX_CODE


class SidecamlBackend(Backend):
    """Each prepared model is served by a daemon of its own, until it is out of reach."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> SidecamlRep:
        """Serve a model."""
        assert cls.supports_device(device), device
        folder = tempfile.TemporaryDirectory(prefix="sidecaml-")
        path = Path(folder.name) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        daemon = Daemon(Path(folder.name), {"model": path})
        prepared = SidecamlRep(daemon.socket, "model")
        weakref.finalize(prepared, _end, daemon, folder)
        return prepared

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the processor."""
        return Device(device).type == DeviceType.CPU


def _end(daemon: Daemon, folder: tempfile.TemporaryDirectory[str]) -> None:
    daemon.stop()
    folder.cleanup()


class SidecamlRep(BackendRep):
    """A model that a daemon serves."""

    def __init__(self, socket: Path, model: str) -> None:
        """Look at it; MODEL_FAILED with the daemon's words when it could not be loaded."""
        self._socket = str(socket)
        self._model = model
        described = client.describe(model, self._socket)
        if described.state != "ready":
            raise SidecamlError(ErrorCode.MODEL_FAILED, described.problem)
        self.signature = described.signature

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """Run on arrays, given in the model's order."""
        answers = self.run_tensors([tensor_of_array(array) for array in inputs])
        names = [tensor.name for tensor in self.signature.outputs]
        return tuple(namedtupledict("Outputs", names)(*[answer.array() for answer in answers]))

    def run_tensors(
        self, inputs: Sequence[Tensor], outputs: Sequence[Sequence[int]] | None = None
    ) -> list[Tensor]:
        """Run on bits; `outputs` are the dimensions that the outputs will have, where they are known."""
        shapes = [tensor.dims for tensor in inputs]
        if outputs is not None:
            return self._run(inputs, maxima_of(self.signature, [*shapes, *outputs]))
        try:
            return self._run(inputs, maxima_of(self.signature, shapes))
        except OutputTooLarge as error:
            needed = [error.dims.get(tensor.name, ()) for tensor in self.signature.outputs]
            return self._run(inputs, maxima_of(self.signature, [*shapes, *needed]))

    def _run(self, inputs: Sequence[Tensor], maxima: Mapping[str, int]) -> list[Tensor]:
        with client.open_model(self._model, socket=self._socket, dims=maxima) as channel:
            for declared, tensor in zip(self.signature.inputs, inputs, strict=True):
                assert tensor.type == ONNX_CODE[declared.dtype], (declared, tensor.type_name)
                _fill(channel, declared, tensor)
            channel.run()
            return [_taken(channel, declared) for declared in self.signature.outputs]


def maxima_of(signature: Signature, shapes: Iterable[Sequence[int]]) -> dict[str, int]:
    """Give each dynamic dimension its largest size in the shapes, of the inputs or of all tensors."""
    # A dimension that is always empty needs no room, but at least 1 is asked for.
    maxima = dict.fromkeys(signature.dim_names, 1)
    for tensor, dims in zip((*signature.inputs, *signature.outputs), shapes, strict=False):
        for name, size in zip(tensor.shape, dims, strict=False):
            if isinstance(name, str):
                maxima[name] = max(maxima[name], size)
    return maxima


def _fill(channel: client.Channel, declared: Declared, tensor: Tensor) -> None:
    if declared.dtype is Dtype.STRING:
        channel.set_strings(declared.name, tensor.array().astype(object))
        return
    if declared.dynamic:
        channel.set_dims(declared.name, tensor.dims)
    place = channel.input(declared.name).reshape(-1).view(np.uint8)
    assert isinstance(tensor.data, bytes) and place.size == len(tensor.data), (place.size, tensor.dims)
    place[...] = np.frombuffer(tensor.data, np.uint8)


def _taken(channel: client.Channel, declared: Declared) -> Tensor:
    if declared.dtype is Dtype.STRING:
        return tensor_of_array(channel.strings(declared.name))
    bits = channel.output(declared.name).tobytes()
    return Tensor(ONNX_CODE[declared.dtype], channel.output_dims(declared.name), bits)

"""A model on its channel in this process, without a daemon: engine, lane and client hand to hand."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ring_pair import FINGERPRINT, Descriptors

from ipc_server import _core, engines
from ipc_server.abi import STATUS_BYTES, Dtype
from ipc_server.client import Channel, Model
from ipc_server.decode import Status, decode_status
from ipc_server.errors import SidecamlError
from ipc_server.lane import Lane, lane_for
from ipc_server.settings import Settings
from ipc_server.signature import Tensor

LANES = ("native", "python")
# Of the models that a test loads.
LANE = ContextVar("LANE", default="native")
# And of their channels: flags of _core.
HOW = ContextVar("HOW", default=0)


class Served:
    """A model with open channels, of which most tests need but one."""

    def __init__(self, lane: Lane, channels: Sequence[Channel], status_fd: int) -> None:
        self.lane = lane
        self.channels = channels
        self.channel = channels[0]
        self._status_fd = status_fd

    @property
    def status(self) -> Status:
        """What the worker's status page says now."""
        return decode_status(os.pread(self._status_fd, STATUS_BYTES, 0))

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one request and copy its outputs."""
        slot = self.fill(inputs)
        self.channel.submit()
        self.serve(slot)
        self.channel.await_(slot)
        answer = {tensor.name: self._read(tensor, slot) for tensor in self._outputs}
        self.channel.release(slot)
        return answer

    def serve(self, slot: int) -> None:
        """Have the lane run the request in the slot; its failure is await_'s to raise."""
        with contextlib.suppress(SidecamlError):
            while not self.channel.poll(slot):
                self.lane.serve()

    def fill(self, inputs: Mapping[str, np.ndarray]) -> int:
        """Write inputs into the claimed slot."""
        slot = self.channel.claim()
        for tensor in self.channel.model.signature.inputs:
            given = inputs[tensor.name]
            if tensor.dtype is Dtype.STRING:
                self.channel.set_strings(tensor.name, given, slot)
                continue
            if tensor.dynamic:
                self.channel.set_dims(tensor.name, given.shape, slot)
            place = self.channel.input(tensor.name, slot)
            assert place.shape == given.shape
            place[...] = (
                given.view(place.dtype) if given.ndim else np.frombuffer(given.tobytes(), place.dtype)[0]
            )
        return slot

    def _read(self, tensor: Tensor, slot: int) -> np.ndarray:
        if tensor.dtype is Dtype.STRING:
            return self.channel.strings(tensor.name, slot)
        return self.channel.output(tensor.name, slot).copy()

    @property
    def _outputs(self) -> Any:
        return self.channel.model.signature.outputs


def python_runs(model: Served, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note each request that the lane has Python run."""
    noted: list[object] = []
    run = model.lane._run

    def noting(channel: int, slot: int) -> None:
        noted.append((channel, slot))
        run(channel, slot)

    monkeypatch.setattr(model.lane, "_run", noting)
    return noted


@contextlib.contextmanager
def served(
    model: Path | Settings,
    dims: Mapping[str, int] | None = None,
    slots: int = 1,
    text_bytes: int | None = None,
    *,
    together: bool = False,
    copies_from: tuple[int, int] = (2, 2),
    channels: int = 1,
) -> Iterator[Served]:
    """Load a model and open channels on it; dynamic dimensions get the maxima `dims`.

    A path is an ONNX file's. With `together`, requests are batched as far as that is proven, and copied as if
    that paid from so many on (Batching.gather_from and rest_from), whatever it costs on this machine.
    """
    chosen = model if isinstance(model, Settings) else Settings("model", model, lane=LANE.get())
    engine = engines.load(chosen)
    batches = _batches(engine, chosen, *copies_from) if together else None
    tensors = engine.signature.bind(dims or {}, text_bytes)
    if batches:
        tensors = batches.batching.packed(engine.signature, tensors)
    layout = _core.Layout([spec.for_layout for spec in tensors], slots, FINGERPRINT)
    with contextlib.ExitStack() as stack:
        made, *others = [Descriptors(layout) for _ in range(channels)]
        for each in (made, *others):
            stack.callback(each.close)
        worker = _core.Worker(os.dup(made.status), made.worker_control.fileno(), _core.BLOCK)
        loop = lane_for(worker, batches.engine if batches else engine)
        if batches:
            loop.run_together(batches)
        stack.callback(loop.close)
        # The loop comes back as soon as it has nothing to do.
        made.client_control.send(b"there is always something to hear")
        described = Model("model", "onnx", "ready", "", slots, engine.signature)
        opened = []
        for each in (made, *others):
            loop.attach(each.for_lane(), tensors, layout, dims or {}, how=HOW.get())
            core = _core.Channel(*each.for_channel(made.status), FINGERPRINT, _core.BLOCK)
            opened.append(stack.enter_context(Channel(core, described)))
        yield Served(loop, opened, made.status)


def _batches(engine: engines.Engine, settings: Settings, gather_from: int, rest_from: int) -> engines.Batches:
    found = engines.batches_of(engine, settings)
    if not found.batching.is_on:
        return found
    batching = dataclasses.replace(found.batching, gather_from=gather_from, rest_from=rest_from)
    return dataclasses.replace(found, batching=batching)

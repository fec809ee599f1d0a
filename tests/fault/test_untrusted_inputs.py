"""A client that is not trusted rewrites its tensors while they are in use: its own answers suffer.

In place, ONNX Runtime's TopK does not survive this: it looks at an input twice. The same client on a channel
that was not staged crashed the worker each time that it was tried.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import models
import numpy as np
import pytest
from one_worker import Attached, OneWorker, one_worker

from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings

SIZE = 100_000
RUNS = 60
PATIENCE_S = 60


@contextmanager
def writing(write: Callable[[int], None]) -> Iterator[None]:
    """Write without pause, in a thread of its own."""
    stopped = threading.Event()

    def go() -> None:
        count = 0
        while not stopped.is_set():
            write(count)
            count += 1

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@pytest.fixture(params=["native", "python"])
def worker(request: pytest.FixtureRequest, nothing_left: None, tmp_path: Path) -> Iterator[OneWorker]:
    chosen = Settings("model", models.top_half(tmp_path / "top.onnx", SIZE), lane=request.param)
    with one_worker(chosen, tmp_path / "worker.log") as started:
        yield started


def run(channel: Attached) -> bytes:
    client = channel.client
    slot = client.submit(PATIENCE_S)
    client.await_(slot)
    bits: bytes = client.output("y", slot).tobytes() + client.output("places", slot).tobytes()
    client.release(slot)
    return bits


def honest(worker: OneWorker) -> tuple[Attached, bytes]:
    channel = worker.attach(slots=1, staged=True)
    channel.client.input("x")[...] = np.random.default_rng(6).standard_normal(SIZE)
    return channel, run(channel)


def test_inputs_that_change_under_a_kernel(worker: OneWorker) -> None:
    neighbour, expected = honest(worker)
    hostile = worker.attach(slots=1, staged=True)
    x = hostile.client.input("x")
    arrays = [np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32) for seed in range(4)]

    def write(count: int) -> None:
        x[...] = arrays[count % 4]

    with writing(write):
        for _ in range(RUNS):
            run(hostile)
    assert run(neighbour) == expected


def test_outputs_that_are_written_under_a_kernel(worker: OneWorker) -> None:
    neighbour, expected = honest(worker)
    hostile = worker.attach(slots=1, staged=True)
    hostile.client.input("x")[...] = neighbour.client.input("x")
    y, places = hostile.client.output("y"), hostile.client.output("places")

    def write(count: int) -> None:
        y[...] = np.nan
        places[...] = -count

    with writing(write):
        for _ in range(RUNS):
            with suppress(SidecamlError):
                run(hostile)
    assert run(hostile) == expected
    assert run(neighbour) == expected

"""A daemon's folder, and clients that go on while the supervisor dies and is started again."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
from daemon_process import REPOSITORY, RawClient, wait_until

from ipc_server import client
from ipc_server.abi import Policy
from ipc_server.errors import SidecamlError

sys.path.insert(0, str(REPOSITORY / "tests" / "systemd"))

import make_models


def make_folder(folder: Path) -> None:
    """Put models and a configuration there."""
    make_models.affine(folder / "triple.onnx", 3)
    make_models.affine(folder / "fivefold.onnx", 5)
    make_models.total(folder / "total.onnx")
    configure(folder)


def configure(folder: Path, more: str = "", triple: str = "triple.onnx") -> None:
    """Write the configuration: two models, one of which carries state, and more."""
    (folder / "sidecaml.toml").write_text(
        f"""
        socket = "{folder}/sidecaml.sock"
        [limits]
        standbys = 1
        [models.triple]
        path = "{folder}/{triple}"
        [models.total]
        path = "{folder}/total.onnx"
        state = {{ next_sum = "sum" }}
        {more}
        """
    )


class Calls:
    """Channels on both models that are called all the time; every answer is checked."""

    def __init__(self, folder: Path) -> None:
        """Open nothing yet."""
        self.socket = str(folder / "sidecaml.sock")
        self.failures: list[str] = []
        self.calls = {"triple": 0, "total": 0}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(model,)) for model in self.calls]

    def __enter__(self) -> Calls:
        for thread in self._threads:
            thread.start()
        self.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait(self, more: int) -> None:
        """Wait until each channel was called so many times more, or anything failed."""
        wanted = {model: count + more for model, count in self.calls.items()}
        wait_until(
            "calls", lambda: self.failures or all(self.calls[model] >= wanted[model] for model in wanted)
        )
        assert not self.failures, self.failures

    def _run(self, model: str) -> None:
        try:
            with client.open_model(model, socket=self.socket, policy=Policy.BLOCK) as channel:
                self._call(model, channel)
        except (SidecamlError, AssertionError) as error:
            self.failures.append(f"{model}: {error}")

    def _call(self, model: str, channel: client.Channel) -> None:
        x, total = channel.input("x"), np.zeros(16, np.int64)
        while not self._ended.is_set():
            x[...] = np.random.default_rng().integers(-1000, 1000, 16)
            total += x
            channel.run(30.0)
            wanted = 3 * x + 1 if model == "triple" else total
            assert np.array_equal(channel.output("y"), wanted), f"after {self.calls[model]} calls"
            self.calls[model] += 1
            time.sleep(0.001)


def serving(folder: Path) -> dict[str, int]:
    """Find the worker of each model's channels."""
    with RawClient(folder / "sidecaml.sock") as asking:
        return {row["model"]: row["worker_pid"] for row in asking.ok("channels")["channels"]}


class Opens:
    """A client that opens a channel, calls it once and closes it, again and again: none of it may fail."""

    def __init__(self, folder: Path) -> None:
        """Open nothing yet."""
        self.socket = str(folder / "sidecaml.sock")
        self.failures: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Opens:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert not self.failures, self.failures

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with client.open_model("triple", socket=self.socket) as channel:
                    channel.input("x")[...] = 1
                    channel.run(30.0)
                    assert channel.output("y")[0] == 4
            except (SidecamlError, AssertionError) as error:
                self.failures.append(str(error))

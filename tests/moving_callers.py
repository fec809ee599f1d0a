"""Channels on a model of several instances whose answers tell whether a request was lost, or ran twice.

`python moving_callers.py SOCKET` opens one, prints its number, and calls it once it is given a line.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
from daemon_process import RawClient, environment, wait_until
from numpy.typing import NDArray

from ipc_server import client
from ipc_server.abi import Policy
from ipc_server.errors import SidecamlError

# How long loads must stay apart: enough for a handful of requests, even here.
SOON_S = 0.15
PATIENCE_S = 60.0
WINDOW = 3
# Of some 20 µs each: the time in runs is most of the time of a channel that is called without a pause.
PRODUCTS = 30
# By name: what writes it, and the state that it carries.
MODELS = {"total": (models.slow_total, '{ next_sum = "sum" }'), "rolled": (models.rolled, "{}")}


def configured(
    folder: Path,
    model: str = "total",
    *,
    lane: str = "auto",
    policy: str = "adaptive",
    worker_timeout_s: float = 10,
) -> Path:
    """Write the model, and a configuration that has two instances of it, without standbys."""
    make, state = MODELS[model]
    path = make(folder / f"{model}.onnx")
    file = folder / "moves.toml"
    file.write_text(
        f"""
        socket = "{folder}/sidecaml.sock"
        [limits]
        rebalance_after_s = {SOON_S}
        worker_timeout_s = {worker_timeout_s}
        [models.{model}]
        path = "{path}"
        state = {state}
        instances = 2
        standbys = 0
        lane = "{lane}"
        policy = "{policy}"
        """
    )
    return file


class Caller:
    """A channel that is called without a pause while it is busy, some requests at a time.

    It sums up all that it was ever sent: a request that was lost, or ran twice, shows.
    """

    model = "total"
    window = WINDOW
    dims: Mapping[str, int] = {}

    def __init__(self, socket: Path) -> None:
        """Open it; it is idle."""
        opening = partial(client.open_model, socket=str(socket), policy=Policy.BLOCK)
        self.channel = opening(self.model, slots=self.window, dims=self.dims)
        self.number = self._number_on(socket)
        self.busy = threading.Event()
        self.answered = 0
        self.failure = ""
        self._submitted = 0
        self._over = False
        # Of each request under way: its slot, and its answer.
        self._under_way: deque[tuple[int, NDArray[Any]]] = deque()
        self._sum = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Close it, in the middle of whatever it does."""
        self._over = True
        self.busy.set()
        self._thread.join()
        with contextlib.suppress(SidecamlError):
            self.channel.close()

    def _number_on(self, socket: Path) -> int:
        """The daemon's number of the channel: the latest there is."""
        return max(places(socket))

    def _run(self) -> None:
        try:
            while self.busy.wait() and not self._over:
                while len(self._under_way) < self.window:
                    self._submit()
                self._await()
        except (SidecamlError, AssertionError) as error:
            self.failure = f"{type(error).__name__}: {error}"

    def _submit(self) -> None:
        slot = self.channel.claim()
        answer = self._fill(slot)
        self._submitted += 1
        assert self.channel.submit(PATIENCE_S) == slot
        self._under_way.append((slot, answer))

    def _fill(self, slot: int) -> NDArray[Any]:
        """Fill a slot; what its answer must be."""
        sent = self._submitted % 1000 - 300
        self._sum += sent
        self.channel.input("n", slot)[...] = PRODUCTS
        self.channel.input("x", slot)[...] = sent
        return np.full(16, self._sum)

    def _await(self) -> None:
        slot, wanted = self._under_way.popleft()
        self.channel.await_(slot)
        found = self.channel.output("y", slot)
        assert np.array_equal(found, wanted), f"answer {self.answered} is {found}, and not {wanted}"
        self.channel.release(slot)
        self.answered += 1


class TogetherCaller(Caller):
    """One whose requests may run together, as one batch."""

    model = "rolled"
    window = 8
    dims: Mapping[str, int] = {"N": 1}

    def _fill(self, slot: int) -> NDArray[Any]:
        x = np.random.default_rng((self.number, self._submitted)).standard_normal((1, 256), np.float32)
        self.channel.input("x", slot)[...] = x
        return np.roll(x, 12, axis=1)


class Program:
    """A caller that is a program of its own, to be killed."""

    def __init__(self, socket: Path) -> None:
        """Open its channel; it is idle."""
        command = [sys.executable, __file__, str(socket)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, env=environment(), **pipes)
        assert self._process.stdout is not None
        self.number = int(self._process.stdout.readline())

    def begin(self) -> None:
        """Have it call without a pause."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"begin\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it, wherever it is."""
        self._process.kill()
        self._process.communicate()


def places(socket: Path) -> dict[int, int]:
    """By channel, the worker that serves it."""
    with RawClient(socket) as asking:
        rows = asking.ok("channels")["channels"]
    return {row["channel"]: row["worker_pid"] for row in rows}


class Stage:
    """The channels on a daemon with two instances."""

    def __init__(self, socket: Path, log: Callable[[], str], kind: type[Caller] = Caller) -> None:
        """Open none yet."""
        self.kind = kind
        self.socket = socket
        self.callers: list[Caller] = []
        self._log = log

    def open(self, count: int) -> list[Caller]:
        """Open channels, all idle."""
        opened = [self.kind(self.socket) for _ in range(count)]
        self.callers += opened
        return opened

    def together(self) -> list[Caller]:
        """Open channels until two of them are on one instance; those two."""
        self.await_both()
        callers = self.open(3)
        found = places(self.socket)
        pids = [found[caller.number] for caller in callers]
        return [caller for caller, pid in zip(callers, pids, strict=True) if pids.count(pid) > 1][:2]

    def await_both(self) -> None:
        """Wait until both instances have a worker."""

        def both() -> bool:
            with RawClient(self.socket) as asking:
                (model,) = asking.ok("describe", model=self.kind.model)["models"]
            return bool(model["served"] == model["instances"] == 2)

        wait_until("both instances are served", both, PATIENCE_S)

    def are_apart(self, *callers: Caller) -> bool:
        """Whether each of these has a worker of its own."""
        self.check()
        found = places(self.socket)
        pids = {found.get(caller.number, 0) for caller in callers}
        return 0 not in pids and len(pids) == len(callers)

    def check(self) -> None:
        """Fail when any answer was wrong, or did not come."""
        failures = {caller.number: caller.failure for caller in self.callers if caller.failure}
        assert not failures, f"{failures}\n{self._log()}"

    def await_calls(self, callers: Sequence[Caller], more: int = 20) -> None:
        """Wait until each of them has so many answers more."""
        wanted = [caller.answered + more for caller in callers]

        def done() -> bool:
            self.check()
            return all(caller.answered >= want for caller, want in zip(callers, wanted, strict=True))

        wait_until("they are answered", done, PATIENCE_S)

    def close(self) -> None:
        """Close every channel."""
        for caller in self.callers:
            caller.close()
        self.callers.clear()


@contextlib.contextmanager
def staged(socket: Path, log: Callable[[], str], kind: type[Caller] = Caller) -> Iterator[Stage]:
    """Give a stage; at its end every answer was right."""
    stage = Stage(socket, log, kind)
    try:
        yield stage
        stage.await_calls([caller for caller in stage.callers if caller.busy.is_set()], 3)
        stage.check()
    finally:
        stage.close()


def _call_on(socket: Path) -> None:
    caller = Caller(socket)
    print(caller.number, flush=True)
    sys.stdin.readline()
    caller.busy.set()


if __name__ == "__main__":
    _call_on(Path(sys.argv[1]))

"""The client processes, seen from the command."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ipc_server.abi import ErrorCode
from ipc_server.bench.client import Result
from ipc_server.bench.plan import Plan, Turn
from ipc_server.errors import SidecamlError

# Room for so many samples of one client, of which only those that come take memory.
SAMPLES_A_SECOND: Final = 4_000_000
MOST_SAMPLES: Final = 2**26
_SAMPLE_BYTES: Final = 8
# For all to have read when they begin, each in its own time.
_HEAD_START_NS: Final = 50_000_000
_EACH_NS: Final = 2_000_000


class Clients:
    """Processes of their own, each with channels of its own; use it in a `with` statement."""

    def __init__(self, plan: Plan) -> None:
        """Start them, and wait until all have opened and filled. Raises what is wrong with the plan."""
        self._plan = plan
        self._room = int(min(MOST_SAMPLES, max(1024 * plan.channels, SAMPLES_A_SECOND * plan.seconds)))
        self._clients: list[_Client] = []
        try:
            for number in range(plan.clients):
                self._clients.append(_Client(plan, number, self._room * _SAMPLE_BYTES))
            for each in self._clients:
                each.hear("ready")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Clients:
        """Give them."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        self.close()

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return [each.process.pid for each in self._clients]

    def interrupt(self) -> None:
        """End the load that runs, or the next one; from a signal's handler, too."""
        for each in self._clients:
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGINT)

    def begin(self, rate: float) -> Turn:
        """Have all begin at once: `rate` requests a second of all together, 0 for a closed loop."""
        plan = self._plan
        start_ns = time.monotonic_ns() + _HEAD_START_NS + plan.clients * _EACH_NS
        measure_ns = start_ns + int(plan.warm_up * 1e9)
        end_ns = measure_ns + int(plan.seconds * 1e9)
        turn = Turn(rate / plan.clients, start_ns, measure_ns, end_ns)
        for each in self._clients:
            each.say({name: getattr(turn, name) for name in turn.__slots__})
        return turn

    def wait(self, until_ns: int) -> None:
        """Wait until then, or until one of them has ended its load before."""
        waiting = select.poll()
        for each in self._clients:
            waiting.register(each.words, select.POLLIN)
        while (left_ns := until_ns - time.monotonic_ns()) > 0:
            if waiting.poll(left_ns / 1e6):
                return

    def results(self) -> list[tuple[Result, NDArray[np.uint64]]]:
        """Wait for the results of all, with the nanoseconds of what was answered."""
        found = [Result(**each.hear("result")) for each in self._clients]
        return [
            (result, each.samples(result.outcomes.get("OK", 0)))
            for result, each in zip(found, self._clients, strict=True)
        ]

    def close(self) -> None:
        """End the processes."""
        for each in self._clients:
            each.close()


class _Client:
    def __init__(self, plan: Plan, number: int, samples_bytes: int) -> None:
        self._samples_fd = os.memfd_create("sidecaml-bench-samples")
        try:
            os.ftruncate(self._samples_fd, samples_bytes)
            self.process = _spawn(self._samples_fd)
        except BaseException:
            os.close(self._samples_fd)
            raise
        assert self.process.stdout and self.process.stdin
        self.words = self.process.stdout
        self._orders = self.process.stdin
        self.say({"plan": plan.to_json(), "number": number})

    def say(self, what: dict[str, Any]) -> None:
        # Where it is gone, what it has to say about that is still to be read.
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(json.dumps(what).encode() + b"\n")

    def hear(self, what: str) -> Any:
        line = self.words.readline()
        if not line:
            raise SidecamlError(
                ErrorCode.SYSTEM, f"a client process of the benchmark ended with {self.process.wait()}"
            )
        said = json.loads(line)
        if "error" in said:
            raise SidecamlError(*said["error"])
        return said[what]

    def samples(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(os.pread(self._samples_fd, count * _SAMPLE_BYTES, 0), np.uint64)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._samples_fd)
        self.words.close()
        self._orders.close()


def _spawn(samples_fd: int) -> subprocess.Popen[bytes]:
    command: Sequence[str] = [sys.executable, "-m", "ipc_server.bench.client", str(samples_fd)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[samples_fd], bufsize=0
    )

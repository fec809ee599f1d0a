"""Clients under load whose answers are known: `load.py MODEL,... SECONDS [FILE [once]]`.

Opens channels, calls, and checks every value; half of the channels are closed and opened again now and then.
At the end, or at SIGTERM, one line of JSON: calls, opens, wrong answers, failures by what they said, the
slowest call and the slowest open in milliseconds. FILE is made when all are at it; with `once` nobody opens a
second time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from ipc_server import client
from ipc_server.abi import Policy
from ipc_server.errors import SidecamlError

SOCKET = os.environ.get("SIDECAML_SOCKET", "/run/sidecaml/sidecaml.sock")
FACTORS = {"triple": 3, "fivefold": 5}
# No call may take longer: whoever waits for ever is lost.
TIMEOUT_S = 60.0


class Results:
    """What all threads saw."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = self.opens = self.wrong = 0
        self.failures: Counter[str] = Counter()
        self.slowest_call = self.slowest_open = 0.0

    def call(self, seconds: float, right: bool) -> None:
        with self._lock:
            self.calls += 1
            self.wrong += not right
            self.slowest_call = max(self.slowest_call, seconds)

    def open(self, seconds: float) -> None:
        with self._lock:
            self.opens += 1
            self.slowest_open = max(self.slowest_open, seconds)

    def failed(self, what: str, error: Exception) -> None:
        with self._lock:
            self.failures[f"{what}: {getattr(error, 'name', type(error).__name__)}: {error}"] += 1

    def line(self) -> str:
        return json.dumps(
            {
                "calls": self.calls,
                "opens": self.opens,
                "wrong": self.wrong,
                "failures": dict(self.failures),
                "slowest_call_ms": round(self.slowest_call * 1e3, 1),
                "slowest_open_ms": round(self.slowest_open * 1e3, 1),
            }
        )


class Caller:
    """One channel after the other on one model, and the sums that those of `total` must give."""

    def __init__(
        self, model: str, results: Results, ended: threading.Event, calls_a_channel: int, once: bool
    ) -> None:
        self._once = once
        self._model = model
        self._results = results
        self._ended = ended
        self._calls_a_channel = calls_a_channel
        self.is_open = False
        self._random = np.random.default_rng(threading.get_ident())

    def run(self) -> None:
        while not self._ended.is_set() and not (self._once and self._results.failures):
            try:
                began = time.monotonic()
                channel = client.open_model(self._model, socket=SOCKET, policy=Policy.BLOCK)
                self._results.open(time.monotonic() - began)
            except SidecamlError as error:
                self._results.failed("open", error)
                time.sleep(0.05)
                continue
            with channel:
                self.is_open = True
                self._call_until_closed(channel)
                self.is_open = False

    def _call_until_closed(self, channel: client.Channel) -> None:
        x, total = channel.input("x"), np.zeros(16, np.int64)
        for _ in range(self._calls_a_channel):
            if self._ended.is_set():
                return
            x[...] = self._random.integers(-1000, 1000, 16)
            total += x
            wanted = total if self._model == "total" else x * FACTORS[self._model] + 1
            began = time.monotonic()
            try:
                channel.run(TIMEOUT_S)
            except SidecamlError as error:
                self._results.failed("call", error)
                return
            right = np.array_equal(channel.output("y"), wanted)
            self._results.call(time.monotonic() - began, right)
            # Some pause: the machine's two cores are also for others.
            time.sleep(0.001)


def main() -> None:
    models, seconds = sys.argv[1].split(","), float(sys.argv[2])
    results, ended = Results(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    once = sys.argv[4:] == ["once"]
    lengths = (10**9, 10**9 if once else 200)
    callers = [Caller(model, results, ended, calls, once) for model in models for calls in lengths]
    threads = [threading.Thread(target=caller.run) for caller in callers]
    for thread in threads:
        thread.start()
    if len(sys.argv) > 3:
        while not ended.is_set() and (results.calls < 20 or not all(caller.is_open for caller in callers)):
            time.sleep(0.01)
        Path(sys.argv[3]).touch()
    ended.wait(seconds)
    ended.set()
    for thread in threads:
        thread.join()
    print(results.line(), flush=True)


if __name__ == "__main__":
    main()

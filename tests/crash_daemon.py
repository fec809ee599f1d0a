"""A daemon whose processes die and stop on order, and clients that check every bit while they do.

`python crash_daemon.py SOCKET` is a client to kill and stop: given a line, it does a bit of everything.
With `open` after it, it opens at once, calls once and ends, as tests/crash_client.c does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import models
import numpy as np
from channels import attach, open_channel, submit_slow
from crash_build import Orders, build
from daemon_process import Daemon, RawClient, environment, is_alive, wait_until

from ipc_server import _core
from ipc_server.abi import ErrorCode, Policy
from ipc_server.client import open_model
from ipc_server.errors import SidecamlError

CALLS = 6
# Some 20 µs each: longer than it takes to give up.
SOME_MS = 500
# Whoever is stopped is killed after so long.
STOPPED_S = 1.0
CONFIG = """
[models.m]
path = "{folder}/m.onnx"
policy = "block"
state = {{ next = "state" }}
[models.slow]
path = "{folder}/slow.onnx"
policy = "block"
[limits]
worker_timeout_s = {stopped_s}
"""


class Stateful:
    """A channel of a model whose answers depend on all requests before: one more or less shows."""

    def __init__(self, path: Path) -> None:
        """Open it, with the state at its beginning."""
        self.channel = attach(RawClient(path), "m", slots=2, policy="block")
        self.calls = 0

    def call(self) -> bytes:
        """Run once; the bits of the answer."""
        slot = self.channel.claim()
        x = np.float32(self.calls * 7 % 5) * np.float32(0.1) - np.float32(0.2)
        np.frombuffer(self.channel.tensor(slot, 0), np.float32)[...] = x
        np.frombuffer(self.channel.tensor(slot, 1), np.int64)[...] = 8
        self.channel.submit()
        self.calls += 1
        self.channel.wait(slot)
        bits = bytes(self.channel.tensor(slot, 2))
        self.channel.release(slot)
        return bits


@contextlib.contextmanager
def stateful(path: Path) -> Iterator[Stateful]:
    """Open a stateful channel; close it at the end."""
    opened = Stateful(path)
    try:
        yield opened
    finally:
        opened.channel.close()


def give_up_on(channel: _core.Channel) -> bool:
    """Submit something slow, and give it up while it runs: False when it was answered, as to one not run."""
    await_quiet(channel)
    slot = submit_slow(channel, SOME_MS)
    try:
        channel.wait(slot, time.monotonic_ns() + 3_000_000)
    except SidecamlError:
        return True
    channel.release(slot)
    return False


def await_quiet(channel: _core.Channel) -> None:
    """Wait until what was given up runs no more."""
    wait_until("the slot is quiet", lambda: _is_quiet(channel))


def _is_quiet(channel: _core.Channel) -> bool:
    try:
        channel.claim()
    except SidecamlError as error:
        assert error.code is ErrorCode.BUSY
        return False
    return True


class CrashDaemon:
    """A daemon of the build with crash points."""

    def __init__(self, folder: Path, standbys: int) -> None:
        """Start it, ready, its standbys warm."""
        models.recurrent(folder / "m.onnx")
        models.slow(folder / "slow.onnx")
        self.orders = Orders(folder / "orders")
        self.build = build()
        self.environment = self.orders.environment(self.build)
        config = folder / "crash.toml"
        config.write_text(CONFIG.format(folder=folder, stopped_s=STOPPED_S))
        self.daemon = Daemon(folder, {}, f"--config={config}", env=self.environment, standbys=standbys)
        self.socket = self.daemon.socket
        self.control = RawClient(self.socket)
        with stateful(self.socket) as alone:
            self.expected = [alone.call() for _ in range(100)]

    def stop(self) -> None:
        """End it, as an operator does."""
        self.control.close()
        self.daemon.stop()

    def rows(self) -> list[Mapping[str, int]]:
        """List the open channels."""
        rows: list[Mapping[str, int]] = self.control.ok("channels")["channels"]
        return rows

    def active(self, model: str) -> int:
        """Find the worker that serves a model, of which a channel must be open; 0 while none does."""
        return next((row["worker_pid"] for row in self.rows() if row["model"] == model), 0)

    def warm(self, model: str) -> list[int]:
        """List the standbys of a model that are ready."""
        told = f"model {model}: standby "
        lines = [line.split(told)[1] for line in self.daemon.log().splitlines() if told in line]
        pids = [int(line.split()[0]) for line in lines if " is warm " in line]
        return [pid for pid in pids if pid != self.active(model) and is_alive(pid)]

    def check(self, channel: Stateful) -> None:
        """Run once more on it, and compare."""
        number = channel.calls
        assert channel.call() == self.expected[number], f"call {number} was answered wrong"


@contextlib.contextmanager
def victim(crashing: CrashDaemon) -> Iterator[subprocess.Popen[bytes]]:
    """Start this file as a client that waits for its line."""
    command = [sys.executable, __file__, str(crashing.socket)]
    env = environment(**crashing.environment)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=env, **pipes) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def opener(crashing: CrashDaemon, language: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a client that opens at once: by Python's handshake, or by that of C and OCaml."""
    here = {"python": [sys.executable, __file__], "c": [str(crashing.build / "crash_client")]}
    command = [*here[language], str(crashing.socket), "open"]
    with subprocess.Popen(
        command, env=environment(**crashing.environment), stdout=subprocess.PIPE
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def _open_and_call(path: Path) -> None:
    with open_model("m", socket=str(path), policy=Policy.BLOCK) as channel:
        channel.input("x")[...] = -0.2
        channel.input("shape")[...] = 8
        channel.run(30.0)
        print(channel.output("y").tobytes().hex())
    print("done")


def _a_bit_of_everything(path: Path) -> None:
    with stateful(path) as channel, open_channel(path, "slow", policy="block") as slow:
        os.write(1, b"ready\n")
        sys.stdin.readline()
        for _ in range(CALLS):
            os.write(1, channel.call().hex().encode() + b"\n")
        while not give_up_on(slow):
            pass
    os.write(1, b"done\n")


if __name__ == "__main__":
    (_open_and_call if sys.argv[2:] else _a_bit_of_everything)(Path(sys.argv[1]))

"""Channels on the C core without the Python client, and client programs to kill.

`python channels.py run SOCKET POLICY N` runs the model `slow` with that `n` again and again.
`python channels.py hold SOCKET` opens `scalar`, gives its connection to a child too, prints its id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from daemon_process import Daemon, RawClient, environment, wait_until

from ipc_server import _core

POLICIES = {"spin": _core.SPIN, "adaptive": _core.ADAPTIVE, "block": _core.BLOCK}


def attach(
    client: RawClient, model: str, slots: int = 1, policy: str = "adaptive", **fields: object
) -> _core.Channel:
    """Open a channel on a connection, which belongs to the channel from now on."""
    try:
        message = client.open(model, slots, **fields)
    except BaseException:
        client.close()
        raise
    return _core.Channel(*message.fds, client.sock.detach(), message.body["fingerprint"], POLICIES[policy])


@contextmanager
def open_channel(
    path: Path, model: str, slots: int = 1, policy: str = "adaptive", **fields: object
) -> Iterator[_core.Channel]:
    """Connect and open; close at the end."""
    channel = attach(RawClient(path), model, slots, policy, **fields)
    try:
        yield channel
    finally:
        channel.close()


def double(channel: _core.Channel, value: float) -> float:
    """Run the model `scalar` once."""
    slot = channel.claim()
    np.frombuffer(channel.tensor(slot, 0), np.float32)[0] = value
    channel.submit()
    channel.wait(slot)
    result = float(np.frombuffer(channel.tensor(slot, 1), np.float32)[0])
    channel.release(slot)
    return result


def submit_slow(channel: _core.Channel, products: int) -> int:
    """Submit to the model `slow`; the slot."""
    slot = channel.claim()
    np.frombuffer(channel.tensor(slot, 0), np.int64)[0] = products
    channel.submit()
    return slot


def submit_running(channel: _core.Channel, products: int) -> int:
    """As submit_slow, and wait until it runs: before that, its worker may do what else it is asked to."""
    channel.set_stamps(True)
    slot = submit_slow(channel, products)

    def is_taken() -> bool:
        submitted, _, started, _ = channel.stamps(slot)
        return started >= submitted

    wait_until("it runs", is_taken)
    return slot


def products_of(channel: _core.Channel, seconds: float) -> int:
    """Measure how many products the model `slow` makes in a time: processors differ by ten.

    At least so many: a time in which the processor was taken away is no measure.
    """
    tried = 1000
    return int(tried * seconds / min(_seconds_of(channel, tried) for _ in range(10)))


def _seconds_of(channel: _core.Channel, products: int) -> float:
    began = time.monotonic()
    slot = submit_slow(channel, products)
    channel.wait(slot)
    channel.release(slot)
    return time.monotonic() - began


@contextmanager
def program(daemon: Daemon, policy: str, products: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run this file as a client of the model `slow`, until it has had its first answer and beyond."""
    command = [sys.executable, __file__, "run", str(daemon.socket), policy, str(products)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"running\n"
            yield running
        finally:
            running.kill()


def serves_others(daemon: Daemon) -> bool:
    """Whether the daemon serves a client of the model `scalar`."""
    with open_channel(daemon.socket, "scalar") as channel:
        return double(channel, 21.0) == 42.0


def returns_to(before: int, count: Callable[[], int]) -> Callable[[], bool]:
    """Make a condition: the count is what it was."""
    return lambda: count() <= before


def _run(path: str, policy: str, products: str) -> None:
    with open_channel(Path(path), "slow", policy=policy) as channel:
        channel.wait(submit_slow(channel, 0))
        channel.release(0)
        os.write(1, b"running\n")
        while True:
            channel.wait(submit_slow(channel, int(products)))
            channel.release(0)


def _hold(path: str) -> None:
    client = RawClient(Path(path))
    client.open("scalar")
    # Our own end stays open here, too: only our death can tell the daemon.
    with subprocess.Popen(
        ["sleep", "600"], pass_fds=[client.sock.fileno()], stdout=subprocess.DEVNULL
    ) as child:
        os.write(1, f"{child.pid}\n".encode())
        signal.pause()


if __name__ == "__main__":
    {"run": _run, "hold": _hold}[sys.argv[1]](*sys.argv[2:])

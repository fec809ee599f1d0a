"""What a daemon costs whose clients do nothing: processor time, wake-ups, memory for each open channel."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.daemon import Daemon
from bench.driver import Samples, Served
from bench.models import write
from bench.process import LineProcess
from bench.processes import Usage, family, usage
from bench.results import Row

MODEL = "small"
VARIANT = "native-adaptive"
CHANNELS = 64
SLOTS = (1, 32)
SECONDS = 20
PATIENCE_S = 120.0
# Once the last call has been answered: whoever spins, sleeps.
SETTLE_S = 2.0

CORE_SHARE, BYTES_A_CHANNEL = 0.005, 2**20


@dataclass(frozen=True)
class Idle:
    """A daemon with its channels open, and nobody who calls."""

    channels: int
    slots: int
    before: Usage
    """With one channel, which is where whatever all channels share was made."""
    after: Usage
    """With the others, each slot of which ran once."""
    tensor_bytes: int
    """Of one channel."""
    seconds: Sequence[Usage]
    """One after the other, beginning with the first second's start."""

    @property
    def samples(self) -> Samples:
        """Nanoseconds of processor time, second by second."""
        return np.diff([each.cpu_ns for each in self.seconds]).astype("<u8")


def measure(slots: int, *, channels: int = CHANNELS, seconds: int = SECONDS) -> Idle:
    """Start a daemon, open channels with so many slots, and watch them do nothing."""
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        folder = Path(name)
        daemon = Daemon(MODEL, write(MODEL, folder), [VARIANT], folder, None, standbys=1)
        try:
            found = _watch(daemon, folder, slots, channels, seconds)
            daemon.stop()
        finally:
            daemon.kill()
    return found


def rows_of(found: Sequence[Idle]) -> list[Row]:
    """Make a row of each."""
    return [_row(idle) for idle in found]


def _row(idle: Idle) -> Row:
    channels = idle.channels
    cpu_ns, seconds = idle.seconds[-1].cpu_ns - idle.seconds[0].cpu_ns, len(idle.seconds) - 1
    wakeups = idle.seconds[-1].wakeups - idle.seconds[0].wakeups
    private = (idle.after.private_bytes - idle.before.private_bytes) / channels
    shared = (idle.after.shared_bytes - idle.before.shared_bytes) / channels
    return {
        "path": "daemon",
        "model": MODEL,
        "caller": f"none, {channels} channels of {idle.slots} slots",
        "slots": idle.slots,
        "n": seconds,
        "core_share": round(cpu_ns / seconds / 1e9, 6),
        "wakeups_per_s": round(wakeups / seconds, 1),
        "private_bytes_per_channel": round(private),
        "shared_bytes_per_channel": round(shared),
        "tensor_bytes_per_channel": idle.tensor_bytes,
        "bytes_per_channel": round(private + shared - idle.tensor_bytes),
        "fds_per_channel": (idle.after.fds - idle.before.fds) / channels,
    }


def _watch(daemon: Daemon, folder: Path, slots: int, channels: int, seconds: int) -> Idle:
    processes = family(daemon.pid)
    client = _client(daemon.served(f"{MODEL}--{VARIANT}"), folder, slots)
    try:
        _open(client, 1)
        before = usage(processes)
        tensor_bytes = _open(client, channels)
        time.sleep(SETTLE_S)
        after = usage(processes)
        found = Idle(channels, slots, before, after, tensor_bytes, _each_second(processes, seconds))
        client.end()
    finally:
        client.kill()
    return found


def _client(served: Served, folder: Path, slots: int) -> LineProcess:
    command = [sys.executable, "-m", "bench.drivers.idle_client", *served.arguments, "--slots", str(slots)]
    return LineProcess("the client of an idle daemon", command, log=folder / "client.log")


def _open(client: LineProcess, channels: int) -> int:
    client.send(f"open {channels}")
    word, _, tensor_bytes = client.line(PATIENCE_S, "answer 'open'").split()
    assert word == "open"
    return int(tensor_bytes)


def _each_second(processes: Sequence[int], seconds: int) -> list[Usage]:
    """Read what they have used, at the beginning and at each second's end."""
    found = [usage(processes)]
    began = time.monotonic()
    for second in range(1, seconds + 1):
        time.sleep(max(0.0, began + second - time.monotonic()))
        found.append(usage(processes))
    return found

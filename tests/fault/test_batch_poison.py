"""Requests that kill whoever runs them, among others that are run with them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import StartDaemon
from daemon_process import RawClient, wait_until

from ipc_server.abi import ErrorCode
from ipc_server.client import Channel, open_model
from ipc_server.errors import SidecamlError
from ipc_server.watch import is_stopped

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
SLOTS = 8
FIRST, POISON = 1000, 2000


class Poisoned:
    """Channels of the function, whose worker finds the requests of all of them at once."""

    def __init__(self, channels: Sequence[Channel], control: RawClient, runs: Path) -> None:
        """Have each slot known to the worker."""
        self.channels = channels
        self._control = control
        self._runs = runs
        self.answers({(channel, slot): FIRST for channel in range(len(channels)) for slot in range(SLOTS)})

    def answers(self, numbers: dict[tuple[int, int], int]) -> dict[int, float | ErrorCode]:
        """Submit requests by channel and slot, at once; each one's answer, or error, by its number."""
        worker = wait_until("a worker serves", self._worker)
        os.kill(worker, signal.SIGSTOP)
        wait_until("the worker is stopped", lambda: is_stopped(worker))
        self._runs.write_bytes(b"")
        for (channel, slot), number in numbers.items():
            assert self.channels[channel].claim() == slot
            self.channels[channel].set_dims("x", (1, 16), slot)
            self.channels[channel].input("x", slot)[...] = number
            self.channels[channel].submit()
        os.kill(worker, signal.SIGCONT)
        return {number: self._answer(*place) for place, number in numbers.items()}

    def _worker(self) -> int:
        pid: int = self._control.ok("channels")["channels"][0]["worker_pid"]
        return pid

    def _answer(self, channel: int, slot: int) -> float | ErrorCode:
        try:
            self.channels[channel].await_(slot)
        except SidecamlError as error:
            return error.code
        answer = float(self.channels[channel].output("output", slot)[0, 0])
        self.channels[channel].release(slot)
        return answer

    def runs(self) -> list[list[int]]:
        """Which requests each run had, since they were submitted."""
        return [[*map(int, line.split())] for line in self._runs.read_text(encoding="ascii").splitlines()]


@contextlib.contextmanager
def poisoned(start: StartDaemon, tmp_path: Path, clients: int, attempts: int) -> Iterator[Poisoned]:
    config = tmp_path / "poison.toml"
    config.write_text(
        f'[limits]\nmax_attempts = {attempts}\n[models.p]\nengine = "python"\ncallable = "poison:triple"\n'
        f'python_path = ["{CALLABLES}"]\nbatching = "any"\npolicy = "block"\n'
    )
    runs = tmp_path / "runs"
    running = start({}, f"--config={config}", env={"RUNS": str(runs)}, standbys=2)
    with contextlib.ExitStack() as stack:
        channels = [
            stack.enter_context(open_model("p", socket=str(running.socket), slots=SLOTS, dims={"N": 1}))
            for _ in range(clients)
        ]
        yield Poisoned(channels, stack.enter_context(RawClient(running.socket)), runs)


@pytest.mark.parametrize("clients", [1, 2])
@pytest.mark.parametrize(
    ("poisons", "attempts"), [([0], 2), ([3], 2), ([3], 1), ([SLOTS - 1], 3), ([2, 5], 2)], ids=str
)
def test_who_kills_is_given_up_and_nobody_who_was_run_with_it(
    daemon: StartDaemon, tmp_path: Path, clients: int, poisons: list[int], attempts: int
) -> None:
    numbers = {
        (channel, slot): (POISON if slot in poisons and channel == 0 else FIRST) + channel * SLOTS + slot
        for channel in range(clients)
        for slot in range(SLOTS)
    }
    with poisoned(daemon, tmp_path, clients, attempts) as served:
        found = served.answers(numbers)
        runs = served.runs()
    assert found == {n: ErrorCode.WORKER_CRASHED if n >= POISON else 3.0 * n for n in numbers.values()}
    assert sorted(runs[0]) == sorted(numbers.values()), "all of them together"
    # Their batch is one of them: each is then run alone.
    limit = max(attempts, 2)
    starts = Counter(number for run in runs for number in run if number >= POISON)
    first, *others = (POISON + slot for slot in poisons)
    assert starts[first] == limit
    # The journal remembers the attempts of the request that was run last, and of no other.
    assert all(limit <= starts[number] <= limit + 1 for number in others)
    assert sum(max(run) >= POISON for run in runs) <= limit * len(poisons)

"""The clients: OCaml programs that are started again when they end, and what each life left in its files."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from chaos import catalogue

ROOT = Path(__file__).resolve().parents[2]
# Where there is no build folder, the variable says where the program is.
PROGRAM = Path(
    os.environ.get("CHAOS_CLIENT")
    or ROOT / "_build" / "default" / "ocaml_lib" / "test" / "chaos" / "chaos_client.exe"
)
# From here on a call has a line of its own.
SLOW_US = 1500
# Between two rounds of requests, so that two cores can also load workers meanwhile.
PAUSE_US = 500
SLOTS = {"network": 8, "doubled": 4, "trailing": 3, "rows": 2}
# How a life may wait for its answers. One at most spins: the others' workers need processors, too.
POLICIES = {
    "network": ("adaptive", "block"),
    "doubled": ("spin", "adaptive", "block"),
    "trailing": ("adaptive", "block"),
    "rows": ("adaptive", "block"),
}
IDS_A_LIFE = 10**10
END_S = 90.0


class Call(NamedTuple):
    """A slow call of a client, in nanoseconds of CLOCK_MONOTONIC."""

    start_ns: int
    end_ns: int


class Counters(NamedTuple):
    """What a life counted; the order is that of ledger.ml."""

    submitted: int = 0
    answered: int = 0
    wrong: int = 0
    crashed: int = 0
    failed: int = 0
    opened_ns: int = 0
    slowest_ns: int = 0
    # When the request was submitted that was answered last.
    heard_ns: int = 0


@dataclass
class Life:
    """One process of a client, from its start to its end."""

    job: str
    policy: str
    process: subprocess.Popen[bytes]
    files: Path
    began_ns: int
    ended_ns: int = 0
    # Killed by us: what it then had under way needs no answer.
    killed: bool = False
    stops: list[tuple[int, int]] = field(default_factory=list)

    @property
    def counters(self) -> Counters:
        """Read what it counted so far."""
        try:
            data = self.files.with_suffix(".counters").read_bytes()
        except FileNotFoundError:
            data = b""
        layout = f"<{len(Counters._fields)}q"
        size = struct.calcsize(layout)
        return Counters(*struct.unpack(layout, data[:size].ljust(size, b"\0")))

    def slow_calls(self) -> list[Call]:
        """Read its slow calls, in the order in which they ended."""
        try:
            lines = self.files.with_suffix(".slow").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return []
        return [Call(*map(int, line.split()[:2])) for line in lines]

    def words(self) -> str:
        """Read what it said to standard error."""
        return self.files.with_suffix(".log").read_text(encoding="utf-8", errors="replace").strip()


class Fleet:
    """One client a job; keeps every life that there was."""

    def __init__(
        self, socket: Path, folder: Path, random_source: random.Random, first_number: int = 0
    ) -> None:
        """Know where to connect, and where the files of lives go."""
        self._first_number = first_number
        # Whom the clients of a job belong to, where that is somebody else.
        self.users: dict[str, tuple[str, str]] = {}
        self.lives: list[Life] = []
        self.now: dict[str, Life] = {}
        self._socket = socket
        self._folder = folder
        self._random = random_source

    def start(self, job: str, rounds: int | None = None) -> Life:
        """Begin a life of the job's client; it ends by itself after so many rounds, if it is told."""
        number = self._first_number + len(self.lives)
        files = self._folder / f"{number:05d}-{job}"
        policy = self._random.choice(POLICIES[job])
        command = [
            *(str(PROGRAM), f"--socket={self._socket}", f"--job={job}", f"--policy={policy}"),
            *(f"--slots={SLOTS[job]}", f"--counters={files}.counters", f"--slow-calls={files}.slow"),
            *(f"--slow-us={SLOW_US}", f"--pause-us={PAUSE_US}", f"--first={number * IDS_A_LIFE + 1}"),
            *(f"--table={self._folder / catalogue.TABLE}", f"--seed={number}"),
            *([f"--rounds={rounds}"] if rounds else []),
        ]
        words = [word for option in command for word in option.split("=", 1)]
        with files.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._whose(job)
            )
        life = Life(job, policy, process, files, time.monotonic_ns())
        self.lives.append(life)
        self.now[job] = life
        return life

    def _whose(self, job: str) -> dict[str, Any]:
        if job not in self.users:
            return {}
        user, group = self.users[job]
        return {"user": user, "group": group, "extra_groups": []}

    def kill(self, life: Life) -> None:
        """Kill it; what it had under way is nobody's any more."""
        life.killed = True
        life.process.kill()
        self._over(life)

    def stop(self, life: Life) -> None:
        """Stop it where it is, until `go_on`."""
        life.stops.append((time.monotonic_ns(), 0))
        life.process.send_signal(signal.SIGSTOP)

    def go_on(self, life: Life) -> None:
        """Let it go on."""
        if life.stops and not life.stops[-1][1]:
            life.process.send_signal(signal.SIGCONT)
            life.stops[-1] = (life.stops[-1][0], time.monotonic_ns())

    def is_stopped(self, life: Life) -> bool:
        """Whether it was stopped and does not go on yet."""
        return bool(life.stops) and not life.stops[-1][1]

    def fallen(self) -> list[Life]:
        """Find clients that ended by themselves: none should."""
        return [life for life in self.now.values() if not life.ended_ns and life.process.poll() is not None]

    def bury(self, life: Life) -> None:
        """Note that it has ended by itself."""
        self._over(life)

    def end(self) -> None:
        """Let everybody come to an end with nothing under way."""
        living = [life for life in self.now.values() if not life.ended_ns]
        for life in living:
            self.go_on(life)
            life.process.send_signal(signal.SIGTERM)
        for life in living:
            try:
                life.process.wait(END_S)
            except subprocess.TimeoutExpired:
                life.process.kill()
            self._over(life)

    def kill_all(self) -> None:
        """Leave none, whatever state they are in."""
        for life in self.now.values():
            if life.process.poll() is None:
                life.process.kill()
                life.process.wait()

    def _over(self, life: Life) -> None:
        life.process.wait()
        life.ended_ns = time.monotonic_ns()


def wait_open(lives: list[Life], patience_s: float) -> None:
    """Wait until each of them has its channel."""
    end = time.monotonic() + patience_s
    for life in lives:
        while not life.counters.answered:
            if life.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the client of {life.job} does not get going: {life.words()}")
            time.sleep(0.01)


def environment_check() -> None:
    """Say what to build when the program is not there."""
    if not os.access(PROGRAM, os.X_OK):
        raise AssertionError(f"{PROGRAM} is not there: dune build ocaml_lib/test/chaos")

"""Who is hit, how, and when it is over."""

from __future__ import annotations

import heapq
import itertools
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos import catalogue
from chaos.fleet import Fleet, Life
from chaos.served import Served, Worker, state_of
from chaos.stalls import STALL_S, Stalls

FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 0.5
SHARE_OF_STOPS = 0.2
# How long a client stays stopped, and dead.
STOPPED_S = (0.02, 0.3)
DEAD_S = (0.0, 0.1)
ROLES = ("active", "standby", "client")
_IDLE_S = 0.01
# The supervisor has this long, and not only its timeout, for the last ones that were stopped.
FOUND_S = 10.0


@dataclass
class Strike:
    """One victim."""

    role: str
    how: str  # kill or stop
    model: str
    pid: int
    at_ns: int
    # Standbys of the model that were warm then.
    ready: int
    # Of a stopped worker: when the supervisor had found and ended it.
    found_ns: int = 0


@dataclass(order=True)
class _Due:
    at: float
    number: int
    act: Callable[[], None] = field(compare=False)


class Attack:
    """Strikes at random victims until enough of them were killed."""

    def __init__(self, served: Served, fleet: Fleet, source: random.Random) -> None:
        """Know who can be hit."""
        self.strikes: list[Strike] = []
        # Clients that ended though nobody hit them.
        self.fallen: list[Life] = []
        self.served = served
        self.fleet = fleet
        self.stalls = Stalls(served, fleet)
        self._random = source
        self._due: list[_Due] = []
        self._numbers = itertools.count()
        self._unfound: list[Strike] = []

    def run(self, kills: int, progress: Callable[[int], None]) -> None:
        """Kill so many, and stop some besides; every client is back when it is over."""
        done = 0
        while done < kills:
            self._pass(self._random.uniform(FIRST_PAUSE_S, LAST_PAUSE_S))
            self._strike()
            if self.strikes[-1].how == "kill":
                done += 1
                progress(done)
        self._pass(STOPPED_S[1] + DEAD_S[1])
        self._wait_found()
        # Nobody is hit any more: whoever waits now waits for good.
        self._pass(2 * STALL_S)

    def _wait_found(self) -> None:
        """Wait for the end of workers that are stopped; the report says when there was none."""
        end = time.monotonic() + FOUND_S
        while self._unfound and time.monotonic() < end:
            self._pass(_IDLE_S)

    def _pass(self, seconds: float) -> None:
        """Let time go by, and do what is due meanwhile."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            while self._due and self._due[0].at <= now:
                heapq.heappop(self._due).act()
            self._look()
            next_due = self._due[0].at if self._due else end
            time.sleep(max(0.0, min(_IDLE_S, end - now, next_due - now)))

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, _Due(time.monotonic() + seconds, next(self._numbers), act))

    def _look(self) -> None:
        for strike in self._unfound:
            if state_of(strike.pid) in "ZX":
                strike.found_ns = time.monotonic_ns()
        self._unfound = [strike for strike in self._unfound if not strike.found_ns]
        self.stalls.look()
        for life in self.fleet.fallen():
            self.fleet.bury(life)
            self.fallen.append(life)
            self.fleet.start(life.job)

    def _strike(self) -> None:
        """Hit somebody; a worker that ended in the same moment is no victim, and another one is chosen."""
        how = "stop" if self._random.random() < SHARE_OF_STOPS else "kill"
        while True:
            role = self._random.choice(ROLES)
            if self._hit_client(how) if role == "client" else self._hit_worker(role, how):
                return
            self._pass(_IDLE_S)

    def _hit_client(self, how: str) -> bool:
        fleet = self.fleet
        living = [life for life in fleet.now.values() if not life.ended_ns and not fleet.is_stopped(life)]
        if not living:
            return False
        life = self._random.choice(living)
        strike = Strike("client", how, life.job, life.process.pid, time.monotonic_ns(), 0)
        if how == "kill":
            fleet.kill(life)
            self._later(self._random.uniform(*DEAD_S), lambda: self._start(life.job))
        else:
            fleet.stop(life)
            self._later(self._random.uniform(*STOPPED_S), lambda: fleet.go_on(life))
        self.strikes.append(strike)
        return True

    def _start(self, job: str) -> None:
        self.fleet.start(job)

    def _hit_worker(self, role: str, how: str) -> bool:
        workers = self.served.workers()
        hit = {strike.pid for strike in self._unfound}
        victims = [worker for worker in workers if worker.role == role and worker.pid not in hit]
        if not victims:
            return False
        victim = self._random.choice(victims)
        if role == "active":
            self.stalls.hit(victim.model)
        at_ns = self.served.signal(victim, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        if at_ns is None:
            return False
        strike = Strike(role, how, victim.model, victim.pid, at_ns, self._ready(workers, victim, hit))
        self.strikes.append(strike)
        if how == "stop":
            self._unfound.append(strike)
        return True

    @staticmethod
    def _ready(workers: list[Worker], victim: Worker, hit: set[int]) -> int:
        return sum(
            worker.role == "standby" and worker.model == victim.model and worker.pid not in hit
            for worker in workers
        )


def models_of(strikes: list[Strike]) -> dict[str, list[Strike]]:
    """Sort the strikes at active workers by model."""
    return {
        job: [strike for strike in strikes if strike.role == "active" and strike.model == job]
        for job in catalogue.JOBS
    }

"""Clients that wait though somebody serves them.

A request whose wake-up was lost would be found by whatever hits its client next, and nobody would know: so
every client is looked at all the time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from chaos.fleet import Fleet, Life
from chaos.served import Served, state_of

# Without an answer for so long, while a worker serves it that lives and that nobody hit.
STALL_S = 2.5


@dataclass
class _Seen:
    answered: int
    since_ns: int


class Stalls:
    """Watches the clients; `found` says which stood still."""

    def __init__(self, served: Served, fleet: Fleet) -> None:
        """Know whom to watch."""
        self.found: list[str] = []
        self._served = served
        self._fleet = fleet
        self._seen: dict[int, _Seen] = {}
        self._hit_ns: dict[str, int] = {}

    def hit(self, model: str) -> None:
        """Hear that the model's worker was hit: until another one begins, its clients may wait."""
        self._hit_ns[model] = time.monotonic_ns()

    def look(self) -> None:
        """See who has had an answer since."""
        self._served.read_log()
        now_ns = time.monotonic_ns()
        for life in self._fleet.now.values():
            answered = life.counters.answered
            seen = self._seen.get(id(life))
            if not seen or seen.answered != answered or self._may_wait(life):
                self._seen[id(life)] = _Seen(answered, now_ns)
            elif now_ns - seen.since_ns > STALL_S * 1e9:
                self.found.append(f"{life.files.name}: no answer for {STALL_S} s after {answered}")
                self._seen[id(life)] = _Seen(answered, now_ns)

    def _may_wait(self, life: Life) -> bool:
        pid, began_ns = self._served.began.get(life.job, (0, 0))
        # The supervisor also ends a worker that nobody hit, but that the machine held up for too long: until
        # another one begins, there is nobody to answer.
        is_served = began_ns > self._hit_ns.get(life.job, 0) and state_of(pid) not in "ZXTt"
        is_there = not life.ended_ns and not self._fleet.is_stopped(life)
        return not is_served or not is_there or not life.counters.opened_ns

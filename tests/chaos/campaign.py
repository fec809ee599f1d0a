"""A whole run: the daemon, its clients, the attack, and what is left afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from daemon_process import marked_processes

from chaos import catalogue
from chaos.fleet import Fleet, Life, wait_open
from chaos.served import Holdings, Served, as_before, at_rest, resident_bytes, what_stays
from chaos.strikes import Attack, Strike

OPEN_S = 60.0
# What the supervisor may have grown by, from a tenth of the run to its end.
MOST_GROWTH = 8 * 2**20


@dataclass
class Run:
    """What came of it."""

    seed: int
    standbys: int
    seconds: float = 0.0
    strikes: list[Strike] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    fallen: list[Life] = field(default_factory=list)
    stalls: list[str] = field(default_factory=list)
    base: Holdings | None = None
    after: Holdings | None = None
    early_bytes: int = 0
    late_bytes: int = 0
    left: list[str] = field(default_factory=list)


def run(folder: Path, seed: int, kills: int, standbys: int, tell: Callable[[str], None]) -> Run:
    """Kill `kills` times, and see that everything is as it was before."""
    source = random.Random(seed)
    catalogue.build(folder)
    catalogue.write_table(folder, folder / catalogue.TABLE)
    found = Run(seed, standbys)
    before = set(Path("/dev/shm").glob("sidecaml*"))
    served = Served(folder, standbys)
    fleet = Fleet(served.socket, folder, source)
    attack = Attack(served, fleet, source)
    found.lives, found.strikes, found.fallen = fleet.lives, attack.strikes, attack.fallen
    found.stalls = attack.stalls.found
    try:
        _besiege(found, attack, kills, tell)
    finally:
        fleet.kill_all()
        code = served.close()
    if code:
        found.left.append(f"the daemon ended with code {code}")
    found.left += what_stays(lambda: _left_behind(before))
    return found


def _left_behind(before: set[Path]) -> list[str]:
    return [
        *(f"process {pid}: {what}" for pid, what in marked_processes().items()),
        *(f"{name} in shared memory" for name in set(Path("/dev/shm").glob("sidecaml*")) - before),
    ]


def _besiege(found: Run, attack: Attack, kills: int, tell: Callable[[str], None]) -> None:
    served, fleet = attack.served, attack.fleet
    _begin(fleet)
    base = found.base = at_rest(served)

    def progress(done: int) -> None:
        if done == max(1, kills // 10):
            found.early_bytes = resident_bytes(served.pid)
        if done % 50 == 0:
            tell(f"{done} of {kills}")

    began = time.monotonic()
    attack.run(kills, progress)
    found.seconds = time.monotonic() - began
    wait_open([life for life in fleet.now.values() if not life.ended_ns], OPEN_S)
    try:
        found.after = as_before(served, base)
    except AssertionError as error:
        found.left.append(str(error))
    found.late_bytes = resident_bytes(served.pid)
    fleet.end()


def _begin(fleet: Fleet) -> None:
    for job in catalogue.JOBS:
        fleet.start(job)
    wait_open(list(fleet.now.values()), OPEN_S)

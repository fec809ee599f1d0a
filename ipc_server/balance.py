"""Which channels another instance should serve, by what was measured of them: decisions only.

Loads drift: a channel falls silent, another takes all that its instance can give. A channel that is moved
costs its new worker the first run of each kind anew, so nothing is moved for little, nor at first sight, nor
soon again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# Shares of an instance's time. Differences below the first are left alone; those beyond it are evened out to
# the second, if all of that wins the third.
DRIFT = 0.25
EVEN = DRIFT / 2
LEAST_GAIN = 0.1
# Of a gap: a channel that takes more would leave one that is hardly smaller, the other way round.
LARGEST_PART = 0.75
# An instance that is busy for more has no time left, and how much is asked of it is not known.
SATURATED = 0.9
# Of what each channel would take if all took the same: one that takes less is as good as idle.
ACTIVE = 0.1
# Looks in a row that must find the same.
LOOKS = 3
MOST_AT_ONCE = 32


@dataclass(frozen=True)
class Load:
    """What one instance did between two looks."""

    # Which share of the time a request ran.
    busy: float
    # How many requests of each of its channels were started, by the channel's number.
    started: Mapping[int, int]

    def shares(self) -> dict[int, float]:
        """Say what each channel takes of the instance's time: a request of one costs what another's does."""
        total = sum(self.started.values())
        return {number: self.busy * count / total if total else 0.0 for number, count in self.started.items()}

    def active(self) -> list[int]:
        """Name the channels that want something."""
        least = ACTIVE * self.busy / max(len(self.started), 1)
        return [number for number, share in self.shares().items() if share and share >= least]


@dataclass(frozen=True)
class Move:
    """A channel that another instance should serve; instances by their places among the loads."""

    channel: int
    source: int
    target: int


def drifted(busy: Sequence[float]) -> bool:
    """Whether there may be anything to move, as far as that shows without a look at the channels."""
    return max(busy) - min(busy) >= DRIFT or min(busy) >= SATURATED


def plan(loads: Sequence[Load], may_move: Callable[[int], bool]) -> list[Move]:
    """Say what should move, at most so many channels at once; channels that may not still count."""
    if min(load.busy for load in loads) >= SATURATED:
        return _spread(loads, may_move)
    return _even_out(loads, may_move)


def _even_out(loads: Sequence[Load], may_move: Callable[[int], bool]) -> list[Move]:
    busy = [load.busy for load in loads]
    if max(busy) - min(busy) < DRIFT:
        return []
    shares = [load.shares() for load in loads]
    moves: list[Move] = []
    while len(moves) < MOST_AT_ONCE:
        hot, cold = busy.index(max(busy)), busy.index(min(busy))
        gap = busy[hot] - busy[cold]
        channel = _fitting(shares[hot], gap, may_move) if gap >= EVEN else None
        if channel is None:
            break
        moves.append(Move(channel, hot, cold))
        share = shares[hot].pop(channel)
        busy[hot] -= share
        busy[cold] += share
    gain = max(load.busy for load in loads) - max(busy)
    return moves if gain >= LEAST_GAIN else []


def _fitting(shares: Mapping[int, float], gap: float, may_move: Callable[[int], bool]) -> int | None:
    """Find the channel whose move leaves least of a gap; None when each would only turn it round."""
    most = gap * LARGEST_PART
    able = [number for number, share in shares.items() if 0 < share <= most and may_move(number)]
    return min(able, key=lambda number: abs(shares[number] - gap / 2), default=None)


def _spread(loads: Sequence[Load], may_move: Callable[[int], bool]) -> list[Move]:
    """Give every instance as many channels that want something, where all of them have no time left."""
    active = [load.active() for load in loads]
    moves: list[Move] = []
    while len(moves) < MOST_AT_ONCE:
        counts = list(map(len, active))
        full, free = counts.index(max(counts)), counts.index(min(counts))
        able = [number for number in active[full] if may_move(number)]
        if counts[full] - counts[free] <= 1 or not able:
            break
        # The latest: the others have been served where they are for longer.
        channel = max(able)
        moves.append(Move(channel, full, free))
        active[full].remove(channel)
        active[free].append(channel)
    return moves


class Persistence:
    """Lets through what was found in several looks in a row, and begins anew then."""

    def __init__(self) -> None:
        """Nothing was found yet."""
        self._found = 0

    def let(self, found: bool) -> bool:
        """Note what a look found; whether that is enough."""
        self._found = self._found + 1 if found else 0
        if self._found < LOOKS:
            return False
        self._found = 0
        return True

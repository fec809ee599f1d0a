"""What the clients felt of each strike: the slowest call that overlaps it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos.fleet import Call, Life
from chaos.strikes import Strike

# A call that began so soon after the strike met it, too: by then nobody can have taken over.
MARGIN_NS = 1_000_000


@dataclass(frozen=True)
class Felt:
    """A strike and its slowest call; `ns` is 0 when no call was slow enough to have a line."""

    strike: Strike
    ns: int
    # Why the figure says nothing of the daemon: the client itself was dead or stopped.
    unheard: str = ""


def felt(strike: Strike, lives: Iterable[Life], calls: dict[int, list[Call]]) -> Felt:
    """Find the slowest call of the model's client that overlaps a strike at a worker."""
    life = next((life for life in lives if _lived(life, strike)), None)
    if life is None:
        return Felt(strike, 0, "no client then")
    met = [call for call in calls[id(life)] if call.end_ns >= strike.at_ns >= call.start_ns - MARGIN_NS]
    slowest = max(met, key=lambda call: call.end_ns - call.start_ns, default=None)
    end_ns = slowest.end_ns if slowest else strike.at_ns
    start_ns = slowest.start_ns if slowest else strike.at_ns
    if any(began <= end_ns and (ended or end_ns) >= start_ns for began, ended in life.stops):
        return Felt(strike, 0, "its client was stopped")
    if not slowest and life.ended_ns and life.counters.heard_ns <= strike.at_ns:
        return Felt(strike, 0, "its client ended")
    return Felt(strike, slowest.end_ns - slowest.start_ns if slowest else 0)


def _lived(life: Life, strike: Strike) -> bool:
    opened = life.counters.opened_ns
    return life.job == strike.model and 0 < opened <= strike.at_ns and not 0 < life.ended_ns <= strike.at_ns


def overlaps(one: Felt, others: Sequence[Felt]) -> bool:
    """Whether its slowest call overlaps that of another strike at the same model, or could have."""
    return any(
        other.strike.model == one.strike.model
        and other.strike.at_ns <= one.strike.at_ns + one.ns
        and one.strike.at_ns <= other.strike.at_ns + other.ns
        for other in others
    )


def linked(found: Sequence[Felt]) -> dict[int, bool]:
    """Whether every strike that its slowest call overlaps found a warm standby, by the strike's place.

    Where a call lasts over several strikes, the outage is that of the worst of them.
    """
    ready = {}
    for i, one in enumerate(found):
        ready[i] = all(other.strike.ready for other in found if overlaps(one, [other]))
    return ready


def percentile(values: Sequence[int], share: float) -> float:
    """Give a percentile by nearest rank, in milliseconds."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] / 1e6

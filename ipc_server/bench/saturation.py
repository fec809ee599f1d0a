"""The search for the highest rate that a model sustains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

# Powers of two, so that doubling and halving end at the limits.
FIRST_RATE: Final = 1024.0
LEAST_RATE: Final = 1.0
MOST_RATE: Final = 2.0**26
# When the lowest rate that is too high is so near to the highest that is not.
NEAR_ENOUGH: Final = 1.05
# A rate is too high only when it was so often: a machine that its host stops for milliseconds fails any rate
# now and then.
TRIES: Final = 3
_DIGITS: Final = 3


def highest_rate(sustains: Callable[[float], bool]) -> float | None:
    """Give the highest rate that is sustained, to within a twentieth; None when not even the least is.

    Doubles or halves from FIRST_RATE until one rate is sustained and the double is not, then bisects. A rate
    that is not sustained is tried again. The same answers lead to the same questions.
    """
    return _search(lambda rate: any(sustains(rate) for _ in range(TRIES)))


def _search(sustains: Callable[[float], bool]) -> float | None:
    bracket = _bracket(sustains)
    if bracket is None:
        return None
    low, high = bracket
    while high / low > NEAR_ENOUGH:
        middle = _rounded(math.sqrt(low * high))
        if sustains(middle):
            low = middle
        else:
            high = middle
    return low


def _bracket(sustains: Callable[[float], bool]) -> tuple[float, float] | None:
    rate = FIRST_RATE
    if sustains(rate):
        while rate * 2 <= MOST_RATE:
            if not sustains(rate * 2):
                return rate, rate * 2
            rate *= 2
        return rate, rate
    while rate / 2 >= LEAST_RATE:
        if sustains(rate / 2):
            return rate / 2, rate
        rate /= 2
    return None


def _rounded(rate: float) -> float:
    """Round to a rate that one would write."""
    return round(rate, _DIGITS - 1 - math.floor(math.log10(rate)))

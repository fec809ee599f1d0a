"""Pauses between attempts: exponential with full jitter, so that clients do not come back in step."""

from __future__ import annotations

import random
import time

FIRST_S = 0.001
LONGEST_S = 0.256
_random = random.SystemRandom()


class Backoff:
    """The pauses of one series of attempts, which ends at `deadline`, a time of `time.monotonic`."""

    def __init__(self, deadline: float, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        """Pause from 0 to `first_s` at first, then to twice that, and so on up to `longest_s`."""
        self._deadline = deadline
        self._most_s = first_s
        self._longest_s = longest_s

    @property
    def left_s(self) -> float:
        """The time that is left."""
        return max(0.0, self._deadline - time.monotonic())

    def sleep(self) -> bool:
        """Sleep for the next pause, at most until the deadline; whether there is time left after that."""
        time.sleep(min(_random.uniform(0, self._most_s), self.left_s))
        self._most_s = min(2 * self._most_s, self._longest_s)
        return self.left_s > 0

"""Feeds latencies that drivers measured to pytest-benchmark: a clock that only the samples move.

pytest-benchmark reads its timer, calls the function, and reads the timer again. Here the function takes the
next sample and moves the clock on by it, so the difference of the two readings is that sample. `pedantic`
neither calibrates nor warms up, so every sample is taken once, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Clock:
    """A clock of nanoseconds that stands still between samples."""

    def __init__(self) -> None:
        """Begin at zero, with nothing to replay."""
        self._now_ns = 0
        self._samples: Iterator[int] = iter(())

    def load(self, samples_ns: Iterable[int]) -> None:
        """Take samples to replay in place of those that are left."""
        # Near zero the readings are finest.
        self._now_ns = 0
        self._samples = iter(samples_ns)

    def step(self) -> None:
        """Move on by the next sample. Raises IndexError when there is none."""
        sample = next(self._samples, None)
        if sample is None:
            raise IndexError("no sample is left to replay")
        self._now_ns += sample

    def seconds(self) -> float:
        """Read the clock."""
        return self._now_ns / 1e9


_clock = Clock()
load = _clock.load
step = _clock.step


def timer() -> float:
    """Give the time of the replayed clock in seconds, as pytest-benchmark wants it."""
    return _clock.seconds()

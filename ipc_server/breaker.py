"""A circuit breaker: after so many calls in a row that failed, none is tried for a while.

The Python of `Sidecaml.Breaker`: the same states, the same words, the same defaults.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

FAILURES = 3
COOL_DOWN_S = 5.0


class CircuitOpen(SidecamlError):
    """CIRCUIT_OPEN: so many calls in a row failed, the last of them with `last`, that none is tried.

    None has succeeded since the time `since`, and at `until` one is tried again; both are of
    `time.monotonic`.
    """

    def __init__(self, since: float, until: float, failures: int, last: SidecamlError) -> None:
        """Say so."""
        super().__init__(
            ErrorCode.CIRCUIT_OPEN,
            f"{failures} calls in a row failed, so none is tried from {since:.3f} s to {until:.3f} s of "
            f"CLOCK_MONOTONIC; the last failure: {last.name}: {last}",
        )
        self.since, self.until, self.failures, self.last = since, until, failures, last

    def __reduce__(self) -> tuple[type[SidecamlError], tuple[object, ...]]:
        """Pickle with what it tells."""
        return CircuitOpen, (self.since, self.until, self.failures, self.last)


@dataclass(frozen=True, slots=True)
class _Opened:
    since: float
    until: float
    last: SidecamlError
    # A call is under way which decides; others wait for it, until it is given up as lost.
    on_trial: bool = False


class Breaker:
    """One for each channel, or one that channels share: any thread may use it at any time."""

    def __init__(self, failures: int = FAILURES, cool_down_s: float = COOL_DOWN_S) -> None:
        """Open after so many failures in a row, for so long; it is closed at first."""
        if failures < 1 or cool_down_s < 0:
            raise SidecamlError(
                ErrorCode.INVALID,
                f"a breaker: expected at least 1 failure and no negative cool-down, got {failures} and "
                f"{cool_down_s}",
            )
        self._most, self._cool_down_s = failures, cool_down_s
        self._lock = threading.Lock()
        self._failures = 0
        self._opened: _Opened | None = None

    def state(self, now: float) -> str:
        """Tell "closed", "open" or "half-open": the cool-down is over, and one call goes through, or may."""
        opened = self._opened
        if not opened:
            return "closed"
        return "open" if now < opened.until and not opened.on_trial else "half-open"

    def admit(self, now: float) -> None:
        """Ask before a call: raises `CircuitOpen`, or one of the three below is to be told."""
        with self._lock:
            opened = self._opened
            if opened and now < opened.until:
                raise CircuitOpen(opened.since, opened.until, self._failures, opened.last)
            if opened:
                self._opened = replace(opened, until=now + self._cool_down_s, on_trial=True)

    def succeeded(self) -> None:
        """Close it, whenever that call began."""
        with self._lock:
            self._failures = 0
            self._opened = None

    def failed(self, now: float, error: SidecamlError) -> None:
        """Count a failure; one that comes when it is open already changes nothing."""
        with self._lock:
            opened = self._opened
            if opened and not opened.on_trial:
                return
            self._failures += 1
            if opened or self._failures >= self._most:
                since = opened.since if opened else now
                self._opened = _Opened(since, now + self._cool_down_s, error)

    def withdrawn(self, now: float) -> None:
        """Say that the call says nothing about the other side: the next one is tried in its place."""
        with self._lock:
            if self._opened and self._opened.on_trial:
                self._opened = replace(self._opened, until=now, on_trial=False)

"""Ends a worker that is of no use any more: one that runs a request for too long, is stopped, or is silent.

What hangs is not asked: its status page says since when a request runs, and how many were answered; the
kernel says whether it is stopped. A worker that shows neither is asked for a sign of life.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ipc_server.pages import Page
from ipc_server.worker_process import WorkerProcess

# Looks within the time that is watched: it is ended at most a quarter late, and an idle daemon hardly wakes.
LOOKS = 4
RAREST_LOOK_S = 1.0
# Nor does it do little else, however short the times.
SOONEST_LOOK_S = 0.005
# A look that comes so much too late says nothing of the worker: we were stopped, or had no processor.
_LATE_S = 1.0


@dataclass(frozen=True)
class Patience:
    """How long what may last."""

    longest_run_s: float
    silence_s: float

    @property
    def look_s(self) -> float:
        """How long to wait between two looks."""
        shortest = min(self.longest_run_s, self.silence_s)
        return min(max(shortest / LOOKS, SOONEST_LOOK_S), RAREST_LOOK_S)


async def watch(
    worker: WorkerProcess, patience: Callable[[], Patience], page: Callable[[], Page | None]
) -> None:
    """Kill the worker when it is of no use; to be cancelled when it is gone.

    `patience` says how long what may last at the time. `page` gives the status page that the worker writes,
    None while it writes none: one that waits for its turn, or is still loading.
    """
    looks = Looks(worker, patience())
    while not (why := looks.look(page())):
        await asyncio.sleep(looks.patience.look_s)
        looks.patience = patience()
    worker.kill(why)


class Looks:
    """What was seen of a worker, look by look."""

    def __init__(self, worker: WorkerProcess, patience: Patience) -> None:
        """Nothing was seen yet."""
        self.patience = patience
        self._worker = worker
        now = time.monotonic()
        self._looked_at = now
        self._stopped_since: float | None = None
        self._alive_at = now
        self._asked_at: float | None = None
        self._answered = 0

    def look(self, page: Page | None) -> str:
        """Look once; why it must end, empty while it need not."""
        now = time.monotonic()
        if now - self._looked_at > self.patience.look_s + _LATE_S:
            self._begin_anew(now)
        self._looked_at = now
        since_ns = page.running_since_ns() if page else 0
        return (
            self._ran_too_long(since_ns)
            or self._was_stopped(now)
            or self._was_silent(now, page, bool(since_ns))
        )

    def _begin_anew(self, now: float) -> None:
        self._alive_at = now
        self._asked_at = self._stopped_since = None

    def _ran_too_long(self, since_ns: int) -> str:
        longest_s = self.patience.longest_run_s
        if not since_ns or time.monotonic_ns() - since_ns <= longest_s * 1e9:
            return ""
        return (
            f"was killed, because one request ran for longer than longest_run_s = {longest_s:g}: raise "
            "it if the model needs that long"
        )

    def _was_stopped(self, now: float) -> str:
        if not is_stopped(self._worker.pid):
            self._stopped_since = None
            return ""
        since = self._stopped_since = self._stopped_since or now
        if now - since < self.patience.silence_s:
            return ""
        return f"was killed, because it was stopped for worker_timeout_s = {self.patience.silence_s:g}"

    def _was_silent(self, now: float, page: Page | None, running: bool) -> str:
        if not self._worker.loaded:
            # It is given load_timeout_s by whoever has it load.
            return ""
        self._notice_life(now, page, running)
        if self._asked_at is None:
            if now - self._alive_at >= self.patience.silence_s / 2:
                self._ask(now)
            return ""
        if now - self._asked_at < self.patience.silence_s:
            return ""
        return (
            "was killed, because it neither ran a request nor answered for worker_timeout_s = "
            f"{self.patience.silence_s:g}"
        )

    def _notice_life(self, now: float, page: Page | None, running: bool) -> None:
        answered = page.answers() if page else 0
        asked_at = self._asked_at or self._alive_at
        if running or answered != self._answered or self._worker.heard_at > asked_at:
            self._alive_at, self._asked_at = now, None
        self._answered = answered

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._worker.tell("ping")


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or by a debugger."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[0] in "Tt"
    return False

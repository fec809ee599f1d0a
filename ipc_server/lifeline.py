"""Tells that a worker is over as soon as none of its threads runs any more.

Its pidfd and its socket tell later: when the kernel has taken its memory apart. By then a standby could
long have answered. So the worker's main thread holds a page that the kernel gives back at that thread's end
(c_shim's lifeline.c), and then its threads are looked at: one that is marked as exiting executes nothing any
more. What lies in the page is the worker's to write, and believed in nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ipc_server import _core, segment
from ipc_server.abi import PAGE_BYTES
from ipc_server.errors import SidecamlError

# Of the flags in /proc/PID/stat.
_PF_EXITING = 0x4
# What stands where in it, from the state on.
_FLAGS = 6
_THREAD_COUNT = 17
# A wait that nothing ends is looked after now and then.
_WAIT_NS = 5_000_000_000
# When its main thread is over the others are about to be: after so many looks it is left to the pidfd.
_LOOKS = 100
_LOOK_S = 0.0005


class Lifeline:
    """The page of one worker."""

    def __init__(self) -> None:
        """Make the page; OSError or NO_SPACE when there is no room for it."""
        self.fd = segment.create_segment(PAGE_BYTES, sealed=True)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, pid: int, on_over: Callable[[], None]) -> None:
        """Call `on_over` on the loop when the worker, whose process is not reaped yet, runs no more."""
        loop = asyncio.get_running_loop()

        def told() -> None:
            # The loop may be closed: nobody wants to know any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._look, pid, on_over, _LOOKS)

        thread = threading.Thread(target=self._wait, args=(told,), name=f"worker {pid}", daemon=True)
        # Where no thread can be had, the pidfd tells, a little later.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits for the worker's end."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Close the page, as soon as nobody waits for it."""
        self._over.set()
        if not self._thread:
            os.close(self.fd)

    def _wait(self, told: Callable[[], None]) -> None:
        try:
            while not self._over.is_set():
                if _core.wait_lifeline(self.fd, _WAIT_NS):
                    told()
                    break
        except SidecamlError:
            # Nobody holds it: the pidfd will tell.
            pass
        self._over.wait()
        os.close(self.fd)

    def _look(self, pid: int, on_over: Callable[[], None], looks: int) -> None:
        if self._over.is_set():
            return
        if runs_no_more(pid):
            on_over()
        elif looks:
            asyncio.get_running_loop().call_later(_LOOK_S, self._look, pid, on_over, looks - 1)


def runs_no_more(pid: int) -> bool:
    """Whether no thread of a process that is not reaped yet will execute anything any more."""
    seen: set[str] = set()
    while True:
        count = _thread_count(pid)
        listed = _threads(pid)
        # The kernel leaves threads out of the list when others end while it is read.
        if len(listed) < count:
            return False
        # A thread that was not exiting when it was listed may have started another since.
        if not all(_is_exiting(pid, thread) for thread in listed - seen):
            return False
        if listed <= seen:
            return True
        seen |= listed


def _thread_count(pid: int) -> int:
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return int(fields[_THREAD_COUNT]) if fields else 0


def _threads(pid: int) -> set[str]:
    try:
        return {entry.name for entry in Path(f"/proc/{pid}/task").iterdir()}
    except FileNotFoundError:
        return set()


def _is_exiting(pid: int, thread: str) -> bool:
    fields = _stat(Path(f"/proc/{pid}/task/{thread}/stat"))
    return not fields or bool(int(fields[_FLAGS]) & _PF_EXITING)


def _stat(path: Path) -> list[str]:
    """Give the fields of a stat file from the state on; none when what it tells of is gone."""
    try:
        stat = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()

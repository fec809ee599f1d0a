"""Signals held back while something is made whose undoing is not yet known of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Those whose handlers raise, where `sidecaml export` runs.
_RAISING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_signals() -> Iterator[None]:
    """Have what these signals raise come at the end of the block, and not in the middle of it.

    A handler that raises between the making of a folder, or the start of a process, and the note that it is
    to be removed would leave it for ever. Handlers are set aside and not signals blocked: a process that is
    started in the block would inherit that. Only the main thread is ever interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    with _blocked():
        before = {number: signal.getsignal(number) for number in _RAISING}
        ours = {number: handler for number, handler in before.items() if callable(handler)}
        for number in ours:
            signal.signal(number, lambda sent, frame: came.append((sent, frame)))
    try:
        yield
    finally:
        with _blocked():
            for number, handler in ours.items():
                signal.signal(number, handler)
        for sent, frame in came:
            ours[signal.Signals(sent)](sent, frame)


@contextmanager
def _blocked() -> Iterator[None]:
    """Let no handler run in the block, lest it raises between two of them that are exchanged."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

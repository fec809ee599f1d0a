"""Time limits for others, in which a standstill of this process is not held against them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def time_limit(seconds: float | None) -> AsyncIterator[None]:
    """Raise TimeoutError as asyncio.timeout does; None is without limit.

    A process that was stopped finds its timers due before it has looked at what came meanwhile: when the time
    is over late, it goes on for as long again, once, but for no longer than the limit.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timeout:
        if seconds is None:
            yield
            return
        due = loop.time() + seconds

        def go_on() -> None:
            now = loop.time()
            timeout.reschedule(now + min(now - due, seconds))

        timer = loop.call_at(due, go_on)
        try:
            yield
        finally:
            timer.cancel()

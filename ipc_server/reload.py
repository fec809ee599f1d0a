"""Reads the configuration anew when told to, once at a time, and tells the service manager."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ipc_server.config import Config
from ipc_server.config_values import ConfigError
from ipc_server.systemd.manager import ServiceManager

log = logging.getLogger(__name__)


class Reload:
    """What a signal begins; one that comes meanwhile has it done once more afterwards."""

    def __init__(
        self,
        read: Callable[[], Config],
        change: Callable[[Config], Awaitable[None]],
        manager: ServiceManager,
    ) -> None:
        """Know how to read a configuration, and who serves it."""
        self._read = read
        self._change = change
        self._manager = manager
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def begin(self) -> None:
        """Read the configuration soon."""
        if self._task and not self._task.done():
            self._again = True
        else:
            self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        """Leave things as far as they are changed."""
        if self._task:
            self._task.cancel()

    async def _run(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            self._manager.reloading()
            await self._once()
            self._manager.ready()

    async def _once(self) -> None:
        try:
            await self._change(await asyncio.get_running_loop().run_in_executor(None, self._read))
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)
        except Exception:
            log.exception("the configuration is changed in part only")

"""The service manager as the supervisor sees it: what it is told, and the signs of life that it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping

from ipc_server.systemd.notify import Notifier, watchdog_interval_s
from ipc_server.systemd.store import Store

# How often the status is told, where no watchdog wants more.
STATUS_S = 5.0
# While models load, the service manager is asked for so much more time, again and again.
_MORE_TIME_US = 60_000_000
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """The one whose environment this is; without one, nothing is said and nothing kept."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take what is ours out of the environment: children are neither watched nor heard."""
        self._notifier = Notifier.of(environment)
        self._interval_s = min(watchdog_interval_s(environment) or STATUS_S, STATUS_S)
        for name in _OURS:
            environment.pop(name, None)
        self.store = Store.of(environment, self._notifier)
        self._status: Callable[[], str] = str
        self._told = ""
        self._is_ready = False
        self._beating: asyncio.TimerHandle | None = None

    def attend(self, status: Callable[[], str]) -> None:
        """Show signs of life from the running event loop, and what `status` says at the time."""
        self._status = status
        if self._notifier.is_heard:
            self._beat()

    def ready(self) -> None:
        """Say that clients are served, for the first time or again."""
        self._is_ready = True
        self._notifier.say("READY=1", *self._news())

    def reloading(self) -> None:
        """Say that the configuration is being read again: until `ready`."""
        self._notifier.reloading()

    def stopping(self) -> None:
        """Say that the daemon ends."""
        self._notifier.say("STOPPING=1", "STATUS=ending")

    def close(self) -> None:
        """Say nothing more; what is kept stays kept."""
        if self._beating:
            self._beating.cancel()
        self.store.close()
        self._notifier.close()

    def _beat(self) -> None:
        self._beating = asyncio.get_running_loop().call_later(self._interval_s, self._beat)
        more_time = [] if self._is_ready else [f"EXTEND_TIMEOUT_USEC={_MORE_TIME_US}"]
        self._notifier.say("WATCHDOG=1", *more_time, *self._news())

    def _news(self) -> list[str]:
        status = self._status()
        if status == self._told:
            return []
        self._told = status
        return [f"STATUS={status}"]

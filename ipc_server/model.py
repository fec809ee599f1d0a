"""A model by its name: the edition that serves it, and earlier ones that only finish what they have."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ipc_server.channel import Channels
from ipc_server.config import Config
from ipc_server.config_models import ModelConfig
from ipc_server.edition import Edition

log = logging.getLogger(__name__)


class Model:
    """A name, the edition that opens go to, and retiring ones of earlier configurations."""

    def __init__(
        self, config: ModelConfig, daemon: Config, channels: Channels, current: Edition | None = None
    ) -> None:
        """Know the model; `run` serves it, by an edition that there is already, or a new one."""
        self.current = current or Edition(config, daemon, channels)
        self.retiring: set[Edition] = set()
        self._channels = channels
        self._lives: dict[Edition, asyncio.Task[None]] = {}
        self._replacing = asyncio.Lock()
        self._stopping = asyncio.Event()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.current.name

    @property
    def config(self) -> ModelConfig:
        """What opens get."""
        return self.current.config

    @property
    def state(self) -> str:
        """`loading`, `ready` or `failed`."""
        return self.current.state

    @property
    def settled(self) -> asyncio.Event:
        """Set while the model is not loading."""
        return self.current.settled

    @property
    def editions(self) -> list[Edition]:
        """All of them, the current one first."""
        return [self.current, *self.retiring]

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form."""
        return self.current.describe()

    async def run(self) -> None:
        """Keep every edition served until the model is stopped."""
        for edition in self.editions:
            self._begin(edition)
        await self._stopping.wait()
        await asyncio.gather(*self._lives.values())

    async def usable_edition(self) -> Edition:
        """Wait while it loads; give the edition that serves it. Raises MODEL_FAILED or SHUTTING_DOWN."""
        while True:
            edition = self.current
            await edition.usable()
            if edition is self.current:
                return edition

    async def replace(self, config: ModelConfig, daemon: Config) -> bool:
        """Load the model at another configuration, and have opens go there once it is ready; whether it is.

        The channels that there are stay where they are. What cannot be loaded leaves all as it was.
        """
        async with self._replacing:
            new = Edition(config, daemon, self._channels)
            self._begin(new)
            await new.settled.wait()
            if self._stopping.is_set() or new.state != "ready":
                log.error("model %s: the new configuration is not used: %s", self.name, new.problem)
                new.kill()
                return False
            old, self.current = self.current, new
            self.retire(old)
            return True

    def retire(self, edition: Edition) -> None:
        """Have an edition finish what it has."""
        log.info("model %s: %d channels stay with the earlier one", self.name, edition.channel_count)
        self.retiring.add(edition)
        self._begin(edition)
        edition.retire()
        if self._lives[edition].done():
            # It had been given up while it was the current one.
            self._ended(edition)

    async def fade(self) -> None:
        """Finish what there is; ends when that is done."""
        self.retire(self.current)
        await asyncio.gather(*self._lives.values(), return_exceptions=True)
        self._stopping.set()

    async def stop(self, timeout_s: float) -> None:
        """Let the workers finish what was asked of them, within the time, and end them."""
        self._stopping.set()
        await asyncio.gather(*(edition.stop(timeout_s) for edition in list(self._lives)))

    def kill(self) -> None:
        """End every worker at once."""
        self._stopping.set()
        for edition in list(self._lives):
            edition.kill()

    def _begin(self, edition: Edition) -> None:
        if edition in self._lives:
            return
        task = asyncio.create_task(edition.run())
        self._lives[edition] = task
        task.add_done_callback(lambda task: self._over(edition, task))

    def _over(self, edition: Edition, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            log.error("model %s: it is served no more", self.name, exc_info=task.exception())
        self._ended(edition)

    def _ended(self, edition: Edition) -> None:
        # The current one stays known, whatever became of it; so does one that ends with the daemon.
        if edition is not self.current and not self._stopping.is_set():
            self._lives.pop(edition, None)
        self.retiring.discard(edition)

"""Every model of the daemon: those of the configuration, and those that only finish what they have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from ipc_server.channel import Channels
from ipc_server.config import Config
from ipc_server.edition import Edition
from ipc_server.keeper import is_current, made_of
from ipc_server.model import Model

log = logging.getLogger(__name__)


class Fleet:
    """Models by their names, each living in a task of its own."""

    def __init__(self, config: Config, channels: Channels) -> None:
        """Know the configuration; `launch` serves it."""
        self.models: dict[str, Model] = {}
        self._former: set[Model] = set()
        self._config = config
        self._channels = channels
        self._lives: dict[Model, asyncio.Task[None]] = {}
        self._fading: set[asyncio.Task[None]] = set()

    @property
    def all(self) -> list[Model]:
        """Every model that has anything to finish."""
        return [*self.models.values(), *self._former]

    def launch(self, inherited: Iterable[Edition] = ()) -> None:
        """Begin to serve; editions of a predecessor go on, as the current ones where they are up to date."""
        by_name: dict[str, list[Edition]] = {}
        for edition in inherited:
            by_name.setdefault(edition.name, []).append(edition)
        for name, config in self._config.models.items():
            earlier, made = by_name.pop(name, []), made_of(config)
            current = next((one for one in earlier if is_current(one, made)), None)
            self._add(Model(config, self._config, self._channels, current), earlier)
        for earlier in by_name.values():
            model = Model(earlier[0].config, self._config, self._channels, earlier[0])
            self._former.add(model)
            self._begin(model, earlier)
            self._fade(model)
        for edition in inherited:
            edition.resume()

    async def change(self, config: Config) -> None:
        """Serve another configuration, as far as it can be served; each model that cannot stays as it was."""
        before, self._config = self._config, config
        for model in self.all:
            for edition in model.editions:
                edition.heed(config)
        for name in before.models:
            if name not in config.models:
                self._remove(name)
        await asyncio.gather(*(self._change(name) for name in config.models))

    async def settled(self) -> None:
        """Wait until every model is loaded or has failed."""
        for model in list(self.models.values()):
            await model.settled.wait()

    async def stop(self, timeout_s: float) -> None:
        """Let the workers finish what was asked of them, within the time, and end them."""
        await asyncio.gather(*(model.stop(timeout_s) for model in self.all))
        await asyncio.gather(*self._lives.values(), return_exceptions=True)

    def wake(self) -> None:
        """Have workers that are stopped go on."""
        for model in self.all:
            for edition in model.editions:
                edition.wake()

    def kill(self) -> None:
        """End every worker at once."""
        for model in self.all:
            model.kill()

    def _add(self, model: Model, earlier: Iterable[Edition] = ()) -> None:
        self.models[model.name] = model
        self._begin(model, earlier)

    def _begin(self, model: Model, earlier: Iterable[Edition] = ()) -> None:
        task = asyncio.create_task(model.run())
        self._lives[model] = task
        task.add_done_callback(lambda _: self._ended(model))
        for edition in earlier:
            if edition is not model.current:
                model.retire(edition)

    def _ended(self, model: Model) -> None:
        if model in self._former:
            self._former.discard(model)
            del self._lives[model]

    async def _change(self, name: str) -> None:
        config, model = self._config.models[name], self.models.get(name)
        if model is None:
            self._add(model := Model(config, self._config, self._channels))
            await model.settled.wait()
            log.info("model %s: added: %s", name, model.state)
        elif not is_current(model.current, made_of(config)) or model.state == "failed":
            log.info("model %s: changed", name)
            await model.replace(config, self._config)

    def _remove(self, name: str) -> None:
        log.info("model %s: removed", name)
        model = self.models.pop(name)
        self._former.add(model)
        self._fade(model)

    def _fade(self, model: Model) -> None:
        fading = asyncio.create_task(model.fade())
        self._fading.add(fading)
        fading.add_done_callback(self._fading.discard)

"""All paths of one model at once, every one frozen but the one that is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.cores import Cores
from bench.daemon import Daemon
from bench.driver import Driver, Samples
from bench.freezing import freeze, swap, thaw
from bench.paths import PATHS


class Cast:
    """The drivers of a model's paths, and the processes that each needs awake."""

    def __init__(self, drivers: dict[str, Driver], helpers: dict[str, tuple[int, ...]], cores: Cores) -> None:
        """Take over running drivers whose helpers are frozen."""
        self._drivers = drivers
        self._helpers = helpers
        self._cores = cores

    def call(self, path: str, touch: int, count: int, budget_ns: int) -> Samples:
        """Measure calls on one path."""
        with self._awake(path):
            return self._drivers[path].call(touch, count, budget_ns)

    def outputs(self, path: str, seeds: int) -> bytes:
        """Give one path's outputs."""
        with self._awake(path):
            return self._drivers[path].outputs(seeds)

    def change_sides(self) -> None:
        """Have client and server change cores."""
        drivers = {driver.pid for driver in self._drivers.values()}
        swap(drivers.union(*self._helpers.values()), self._cores.client, self._cores.server)

    @contextlib.contextmanager
    def _awake(self, path: str) -> Iterator[None]:
        thaw(self._helpers[path])
        yield
        freeze(self._helpers[path])


@contextlib.contextmanager
def cast(model: str, file: Path, paths: Sequence[str], cores: Cores, folder: Path) -> Iterator[Cast]:
    """Start fresh processes for the paths of a model; they end with the context."""
    specs = [PATHS[name] for name in paths]
    variants = sorted({spec.served for spec in specs if spec.served})
    drivers: dict[str, Driver] = {}
    helpers: dict[str, tuple[int, ...]] = {}
    with contextlib.ExitStack() as cleanup:
        daemon = Daemon(model, file, variants, folder, cores.server) if variants else None
        if daemon:
            cleanup.callback(daemon.kill)
            freeze(daemon.workers.values())
        for spec in specs:
            name = spec.served_name(model)
            workers = (daemon.workers[name],) if daemon and name else ()
            thaw(workers)
            driver = Driver(spec, file, cores, folder, daemon.served(name) if daemon and name else None)
            cleanup.callback(driver.kill)
            drivers[spec.name] = driver
            helpers[spec.name] = (*workers, *driver.others)
            freeze(helpers[spec.name])
        yield Cast(drivers, helpers, cores)
        for path, driver in drivers.items():
            thaw(helpers[path])
            driver.end()
        if daemon:
            daemon.stop()

"""All paths of one model at once, every one frozen but the one that is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.cores import Cores
from bench.daemon import Daemon
from bench.driver import Driver, Samples
from bench.freezing import freeze, swap, thaw
from bench.paths import PATHS, PathSpec


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
    drivers: dict[str, Driver] = {}
    helpers: dict[str, tuple[int, ...]] = {}
    with contextlib.ExitStack() as cleanup:
        daemons: dict[str, Daemon] = {}
        for policy, variants in _by_policy(specs).items():
            daemons[policy] = daemon = Daemon(model, file, variants, folder, cores.server, name=policy)
            cleanup.callback(daemon.kill)
            freeze(daemon.workers.values())
        for spec in specs:
            name = spec.served_name(model)
            daemon_of = daemons[spec.policy] if name else None
            workers = (daemon_of.workers[name],) if daemon_of and name else ()
            thaw(workers)
            driver = Driver(spec, file, cores, folder, daemon_of.served(name) if daemon_of and name else None)
            cleanup.callback(driver.kill)
            drivers[spec.name] = driver
            helpers[spec.name] = (*workers, *driver.others)
            freeze(helpers[spec.name])
        yield Cast(drivers, helpers, cores)
        for path, driver in drivers.items():
            thaw(helpers[path])
            driver.end()
        for daemon in daemons.values():
            daemon.stop()


def _by_policy(specs: Sequence[PathSpec]) -> dict[str, list[str]]:
    """Give each policy's variants.

    Each has a daemon of its own: the worker of one that spins is stopped in the middle of it, and workers of
    the same daemon would take it for one that keeps a core.
    """
    found: dict[str, list[str]] = {}
    for spec in specs:
        if spec.served and spec.served not in found.setdefault(spec.policy, []):
            found[spec.policy].append(spec.served)
    return {policy: sorted(variants) for policy, variants in found.items()}

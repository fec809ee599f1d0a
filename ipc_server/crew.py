"""The workers of one edition: started one after the other, watched, and replaced when they are gone."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Collection
from typing import Protocol

from ipc_server import orders, settings
from ipc_server.abi import ErrorCode
from ipc_server.batching import Batching, batching_of
from ipc_server.config import Config
from ipc_server.config_models import ModelConfig
from ipc_server.errors import SidecamlError, shortage_of
from ipc_server.pages import Page
from ipc_server.signature import signature_of
from ipc_server.watch import Patience, watch
from ipc_server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# A model at which so many workers in a row died by themselves, as they loaded it, is given up.
LOAD_ATTEMPTS = 3
FIRST_PAUSE_S = 0.1
# There may be room again at any time, and asking costs nothing.
LONGEST_SHORTAGE_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# A worker that lived this long, or answered a request, was well: the next one starts without a longer pause.
STEADY_S = 60.0
_MOST_DOUBLINGS = 16


class Cause(enum.Enum):
    """Why a worker could not load its model."""

    # The model is at fault, as far as one can tell: it would be refused again.
    REFUSED = enum.auto()
    DIED = enum.auto()
    # By SIGKILL, which is what comes when memory runs out.
    KILLED = enum.auto()
    # It had no memory, descriptors, processes or disk.
    SHORT = enum.auto()


class Employer(Protocol):
    """What a crew works for: a model at one configuration."""

    @property
    def batching(self) -> Batching:
        """What is known already of how its requests are run together."""

    @property
    def is_served(self) -> bool:
        """Whether workers serve all of it now."""

    def prepare(self) -> None:
        """See to what every worker needs; OSError or SidecamlError when the system has no room."""

    def loading(self) -> None:
        """Hear that a worker is about to load."""

    def loaded(self, worker: WorkerProcess, seconds: float) -> None:
        """Take a worker that is ready."""

    def load_failed(self, problem: str, *, for_good: bool) -> bool:
        """Hear that a worker could not be had; whether to give up."""

    def short(self, problem: str) -> None:
        """Hear that the system has no room for a worker: it may have some later."""

    def lost(self, worker: WorkerProcess) -> bool:
        """Hear that a worker that was ready is over; whether it had been of use."""

    def page_of(self, worker: WorkerProcess) -> Page | None:
        """Give the status page that a worker writes; None when it writes none."""


class Crew:
    """As many workers as there are instances, and standbys beside."""

    def __init__(self, config: ModelConfig, daemon: Config, employer: Employer) -> None:
        """Know what to load; `run` does it."""
        self._config = config
        self._employer = employer
        self.heed(daemon)
        self._wanted = config.instances + config.standbys
        self._workers: set[WorkerProcess] = set()
        self._tending: set[asyncio.Task[None]] = set()
        # In a row each: workers that had loaded and died young; loads that failed for whatever reason, and
        # those of them that the worker did not survive; workers that could not even be started.
        self._deaths = 0
        self._failed_loads = 0
        self._loading_deaths = 0
        self._shortages = 0
        self._rest_first = False
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Keep the workers loaded until it is stopped or gives up; ends when all of them are over."""
        try:
            while await self._one_is_wanted():
                if not await self._load_one():
                    break
        except BaseException:
            self.stop()
            raise
        finally:
            await asyncio.gather(*self._tending, return_exceptions=True)

    def heed(self, daemon: Config) -> None:
        """Go by the daemon's settings, as they are from now on."""
        self._log_level = daemon.log_level
        self._load_timeout_s = daemon.limits.load_timeout_s
        self._patience = Patience(self._config.longest_run_s, daemon.limits.worker_timeout_s)

    def adopt(self, worker: WorkerProcess) -> None:
        """Take a worker that has loaded the model already."""
        self._workers.add(worker)
        self._tend(worker)

    def want(self, count: int) -> None:
        """Have another number of workers from now on: more are started, none is ended."""
        self._wanted = count
        self._changed.set()

    def stop(self, *, but: Collection[WorkerProcess] = ()) -> None:
        """Start no more, and end every worker except some."""
        self._stopping.set()
        self._changed.set()
        for worker in self._workers:
            if worker not in but:
                worker.kill()

    async def _one_is_wanted(self) -> bool:
        """Wait for that, and for as long as is due after a death; False at the end."""
        while len(self._workers) >= self._wanted and not self._stopping.is_set():
            self._changed.clear()
            await self._changed.wait()
        # After one that was well nobody waits longer than for the next to load.
        in_trouble = self._deaths or self._failed_loads or self._shortages
        if self._rest_first and (in_trouble or self._employer.is_served) and not self._stopping.is_set():
            await self._rest(self._pause())
        self._rest_first = False
        return not self._stopping.is_set()

    def _pause(self) -> float:
        if self._shortages:
            return min(pause_after(self._shortages), LONGEST_SHORTAGE_PAUSE_S)
        return pause_after(max(self._deaths, self._failed_loads))

    async def _rest(self, seconds: float) -> None:
        log.info("model %s: next worker in %.1f s", self._config.name, seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _load_one(self) -> bool:
        """Start a worker and load the model; False when that is hopeless."""
        self._employer.loading()
        try:
            self._employer.prepare()
            worker = WorkerProcess.spawn(self._config.name, self._log_level)
        except (OSError, SidecamlError) as error:
            self._shortages += 1
            self._rest_first = True
            why = error.strerror if isinstance(error, OSError) else error
            self._employer.short(f"no worker could be started: {why}")
            return True
        self._shortages = 0
        self._workers.add(worker)
        watching = asyncio.create_task(self._watch(worker))
        try:
            failure = await self._load(worker)
        finally:
            watching.cancel()
        if not failure:
            self._failed_loads = self._loading_deaths = 0
            self._tend(worker)
            return True
        self._workers.discard(worker)
        await worker.close()
        return self._could_not(*failure)

    async def _load(self, worker: WorkerProcess) -> tuple[str, Cause] | None:
        """Have it load; why that failed, None when it did not."""
        began = time.monotonic()
        try:
            fields = settings.encode(self._config) | {
                "placement": self._config.placement.describe(),
                "certificate": self._employer.batching.record(),
            }
            body = await worker.request("load", timeout_s=self._load_timeout_s, **fields)
            worker.signature = signature_of(body)
            worker.batching = batching_of(orders.field(body, "batching", dict))
        except TimeoutError:
            waited = f"did not load within {self._load_timeout_s:g} s: raise load_timeout_s"
            return f"{self._config.origin} {waited}", Cause.REFUSED
        except SidecamlError as error:
            if error.code is ErrorCode.WORKER_CRASHED:
                cause = Cause.KILLED if worker.was_killed_from_outside else Cause.DIED
                return f"the worker {worker.ending} while it loaded", cause
            return str(error), Cause.SHORT if shortage_of(error) else Cause.REFUSED
        except Exception:
            # Unseen, it would end the task that starts the next worker, and with it the model.
            log.exception("model %s: worker %d is given up", self._config.name, worker.pid)
            return "it could not be loaded for a reason inside the daemon: its log says more", Cause.REFUSED
        worker.loaded = True
        self._employer.loaded(worker, time.monotonic() - began)
        return None

    def _could_not(self, problem: str, cause: Cause) -> bool:
        """Whether to try another one."""
        self._failed_loads += 1
        self._loading_deaths += cause is Cause.DIED
        self._rest_first = True
        # One that was killed may be an accident, for which no open has to fail.
        if cause is Cause.SHORT or (cause is Cause.KILLED and self._failed_loads >= LOAD_ATTEMPTS):
            self._employer.short(problem)
            return True
        hopeless = cause is Cause.REFUSED or self._loading_deaths >= LOAD_ATTEMPTS
        return not self._employer.load_failed(problem, for_good=hopeless)

    def _tend(self, worker: WorkerProcess) -> None:
        worker.on_exit = lambda: self._lost(worker)
        worker.watch_closely()
        task = asyncio.create_task(self._attend(worker))
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)
        if worker.is_over:
            self._lost(worker)

    async def _attend(self, worker: WorkerProcess) -> None:
        watching = asyncio.create_task(self._watch(worker))
        try:
            await worker.wait_exited()
        finally:
            watching.cancel()
            await worker.close()

    async def _watch(self, worker: WorkerProcess) -> None:
        await watch(worker, lambda: self._patience, lambda: self._employer.page_of(worker))

    def _lost(self, worker: WorkerProcess) -> None:
        if worker not in self._workers:
            return
        self._workers.discard(worker)
        well = self._employer.lost(worker) or time.monotonic() - worker.started_at > STEADY_S
        self._deaths = 0 if well else self._deaths + 1
        self._rest_first = True
        self._changed.set()


def pause_after(deaths: int) -> float:
    """Give the seconds to wait before the next worker, after that many that died young in a row."""
    doublings = min(max(deaths - 1, 0), _MOST_DOUBLINGS)
    return min(FIRST_PAUSE_S * 2.0**doublings, LONGEST_PAUSE_S)

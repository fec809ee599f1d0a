"""A model at one configuration: its instances, and the workers that have loaded it and stand by for any."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

from ipc_server import segment, watch
from ipc_server.abi import ABI_VERSION, ErrorCode
from ipc_server.balancer import Balancer
from ipc_server.batching import Batching
from ipc_server.channel import Channel, Channels
from ipc_server.config import Config
from ipc_server.config_models import ModelConfig
from ipc_server.crew import Crew
from ipc_server.errors import SidecamlError
from ipc_server.housing import Housing
from ipc_server.instance import Instance
from ipc_server.keeper import made_of
from ipc_server.moving import Mover
from ipc_server.pages import Page, StatusFile
from ipc_server.quotas import deaths_allowed
from ipc_server.signature import Signature, text_of
from ipc_server.time_limit import time_limit
from ipc_server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# How long a client waits for its inputs to be kept, and others of the model with it.
MOST_QUARANTINE_WAIT_S = 5.0


class Edition:
    """The instances that serve it in parallel, their status file, and the standbys."""

    def __init__(self, config: ModelConfig, daemon: Config, channels: Channels) -> None:
        """Know the model; `run` serves it."""
        self.config = config
        self.name = config.name
        # What it was made of, for whoever asks whether it is still up to date.
        self.made = made_of(config)
        self.state = "loading"
        self.problem = ""
        self.signature = Signature((), ())
        self.batching = Batching()
        self.status = StatusFile(config.instances)
        self.instances = [Instance(self, index, channels) for index in range(config.instances)]
        self.standbys: deque[WorkerProcess] = deque()
        # Whether it only serves the channels that it has.
        self.retiring = False
        # Set while the model is not loading.
        self.settled = asyncio.Event()
        self._keeper = channels.keeper
        self._crew = Crew(config, daemon, self)
        self.housing = Housing(self.instances, self._keeper)
        self._balancer = Balancer(
            self, Mover(self._keeper, self.housing.house), daemon.limits.rebalance_after_s
        )
        self.heed(daemon)
        self._was_served = False
        self._stopping = False
        # Of another ABI version: no worker of ours can take over from its own.
        self._is_alien = False

    @property
    def served(self) -> list[Instance]:
        """The instances that have a worker now."""
        return [instance for instance in self.instances if instance.active]

    @property
    def is_served(self) -> bool:
        """Whether every instance has a worker now."""
        return len(self.served) == len(self.instances)

    @property
    def channel_count(self) -> int:
        """How many channels there are, those about to open included."""
        return sum(len(instance.channels) for instance in self.instances)

    def describe(self, signature: Signature | None = None) -> dict[str, Any]:
        """Give the protocol's form of the model, with the signature of one of its instances."""
        known = (signature or self.signature) if self.state == "ready" else None
        return {
            "name": self.name,
            "engine": self.config.engine,
            "state": self.state,
            "problem": self.problem,
            "fingerprint": known.fingerprint if known else 0,
            "max_slots": self.config.max_slots,
            "instances": len(self.instances),
            "served": len(self.served),
            "batching": (self.batching if known else Batching()).describe(),
            **(known or Signature((), ())).describe(),
        }

    def heed(self, daemon: Config) -> None:
        """Go by the daemon's settings from now on; a worker that serves keeps what it was told."""
        self.max_poisoned = daemon.limits.max_poisoned_per_channel
        self.max_deaths = deaths_allowed(daemon.limits)
        self.begin_fields = {
            "policy": self.config.policy,
            "max_attempts": daemon.limits.max_attempts,
            "quarantine": str(daemon.quarantine or ""),
            "quarantine_max_bytes": daemon.quarantine_max_bytes,
            # A worker that waits for the disk is in the middle of a request, and must not pass for hung.
            "quarantine_wait_s": min(MOST_QUARANTINE_WAIT_S, self.config.longest_run_s / 2),
        }
        self._balancer.after_s = daemon.limits.rebalance_after_s
        self._crew.heed(daemon)

    async def run(self) -> None:
        """Keep it served until it is stopped or cannot be loaded."""
        try:
            await self._crew.run()
        finally:
            self._balancer.stop()
            self._send_channels_away()
            self._keeper.over(self)
            self.status.close()

    async def stop(self, timeout_s: float) -> None:
        """Let the workers finish what was asked of them, within the time, and end them."""
        self._stop(but={instance.active for instance in self.instances if instance.active})
        with contextlib.suppress(TimeoutError):
            async with time_limit(timeout_s):
                await self._balancer.rest()
        await asyncio.gather(*(instance.finish(timeout_s) for instance in self.instances))
        self._crew.stop()

    def wake(self) -> None:
        """Have workers that are stopped go on."""
        for worker in (*(instance.active for instance in self.instances), *self.standbys):
            if worker:
                worker.wake()

    def kill(self) -> None:
        """End every worker at once."""
        self._stop(but=set())

    def retire(self) -> None:
        """Serve the channels that there are, and end when the last of them has ended."""
        self.retiring = True
        self._keeper.edition_changed(self)
        self.left()

    # --- What an earlier daemon left ------------------------------------------------------------------------

    def revive(
        self,
        status_fd: int,
        made: dict[str, Any],
        signature: Signature,
        batching: Batching,
        *,
        retiring: bool,
    ) -> None:
        """Be what an edition of an earlier daemon was: its status file, and what it was made of."""
        self.status.adopt(status_fd)
        self.made, self.signature, self.batching, self.retiring = made, signature, batching, retiring
        self._was_served = True
        for instance in self.instances:
            instance.revive(signature)
        if made["abi"] != ABI_VERSION:
            self._is_alien = True
            self._crew.want(0)

    def adopt(
        self, worker: WorkerProcess, signature: Signature, batching: Batching, index: int | None
    ) -> None:
        """Take a worker that an earlier daemon started: of an instance, which it serves, or a standby."""
        worker.signature, worker.batching, worker.loaded = signature, batching, True
        if index is None:
            self.standbys.append(worker)
        else:
            self.instances[index].adopt(worker)
        self._crew.adopt(worker)

    def resume(self) -> None:
        """Go on where an earlier daemon was, with the workers and channels that came from it."""
        if self._stopping:
            return
        for instance in self.served:
            instance.keep()
        for instance in self.instances:
            if not instance.active:
                self._replace(instance, None)
        if not self._is_alien:
            self._balancer.attend()

    # --- Channels -------------------------------------------------------------------------------------------

    async def usable(self) -> None:
        """Wait until it is served. Raises MODEL_FAILED or SHUTTING_DOWN."""
        while not self.served or self._stopping:
            await self.settled.wait()
            if self._stopping:
                raise SidecamlError(
                    ErrorCode.SHUTTING_DOWN, "the daemon is shutting down: it opens no more channels"
                )
            if self.state == "failed":
                raise SidecamlError(
                    ErrorCode.MODEL_FAILED, f"model {self.name!r} could not be loaded: {self.problem}"
                )

    def join(self, channel: Channel) -> Instance:
        """Find the instance for a channel that is about to open; only while it is served."""
        chosen = self._balancer.least_loaded(self.served)
        chosen.join(channel)
        self._balancer.attend()
        return chosen

    async def attach(self, channel: Channel) -> None:
        """Have a channel served for the first time, by the next worker where one dies meanwhile.

        NO_SPACE when there is no memory for what the worker takes for it.
        """
        instance = channel.instance
        assert isinstance(instance, Instance)
        # The worker takes it as it attaches; the next one's is free again once the former is gone.
        with segment.room_for_copy(channel.staged_bytes):
            while True:
                await self.usable()
                if not instance.active:
                    instance.part(channel)
                    instance = self.join(channel)
                if await instance.attach(channel):
                    return

    def left(self) -> None:
        """Hear that a channel has ended."""
        if self.retiring and not self.channel_count:
            self.kill()

    def _send_channels_away(self) -> None:
        error = self._reason_to_end()
        for instance in self.instances:
            instance.send_channels_away(error)

    # --- What instances tell --------------------------------------------------------------------------------

    def serves(self, instance: Instance, worker: WorkerProcess) -> None:
        """Hear that a worker is the one that serves, before it is told."""
        self.signature, self.batching = worker.signature, worker.batching
        self._was_served = True
        # A daemon that finds it so asks how far it came.
        self._keeper.worker_begins(worker, instance.index)
        self._keeper.edition_changed(self)
        self._enter("ready")

    def begun(self, _instance: Instance) -> None:
        """Hear that an instance takes channels."""
        self.housing.house()

    # --- What the crew tells --------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the status file, once."""
        self.status.prepare()

    def loading(self) -> None:
        """Hear that a worker is about to load."""
        if not self.served:
            self._enter("loading", settled=False)

    def loaded(self, worker: WorkerProcess, seconds: float) -> None:
        """Have a worker serve, or wait for its turn."""
        self._keeper.edition_made(self)
        self._keeper.worker_loaded(worker, self)
        vacant = [instance for instance in self.instances if not instance.active]
        if not vacant:
            log.info("model %s: standby %d is warm after %.2f s", self.name, worker.pid, seconds)
            self.standbys.append(worker)
            return
        instance = max(vacant, key=lambda instance: len(instance.channels))
        log.info(
            "model %s: %s in %.2f s, worker %d, %s, in: %s, out: %s",
            self.name,
            "ready"
            if not self.served
            else f"instance {instance.index + 1} of {len(self.instances)} is there",
            seconds,
            worker.pid,
            self.config.origin,
            text_of(worker.signature.inputs),
            text_of(worker.signature.outputs),
        )
        instance.promote(worker)

    def load_failed(self, problem: str, *, for_good: bool) -> bool:
        """Note why there is no worker; whether there never will be one."""
        if self._stopping:
            return True
        if self.served:
            self._tell_lack(problem)
            return False
        # Opens wait for a model that may yet come back.
        self._enter("failed", problem, settled=for_good)
        if not for_good:
            return False
        self._send_channels_away()
        return not self._was_served

    def short(self, problem: str) -> None:
        """Tell opens why there is no worker; channels wait, for all that they need is there."""
        if self._stopping:
            return
        if self.served:
            self._tell_lack(problem)
        else:
            self._enter("failed", problem)

    def lost(self, worker: WorkerProcess) -> bool:
        """Go on with a standby when a worker that serves is over; whether it had answered anything."""
        self._keeper.over(worker)
        instance = next((one for one in self.instances if one.active is worker), None)
        if not instance:
            self._forget_standby(worker)
            return False
        was_of_use = instance.lost(worker, for_good=self._stopping)
        if not self._stopping:
            self._replace(instance, worker)
        return was_of_use

    def page_of(self, worker: WorkerProcess) -> Page | None:
        """Give the status page that a worker writes; None when it writes none."""
        pages = (instance.page_of(worker) for instance in self.instances)
        return next((page for page in pages if page), None)

    # --- Taking over ----------------------------------------------------------------------------------------

    def _replace(self, instance: Instance, worker: WorkerProcess | None) -> None:
        """Have a standby take over from a worker that is over, or from one of which nothing is known."""
        successor = None if self._is_alien else self._next_standby()
        then = f"standby {successor.pid} takes over" if successor else "starting another"
        if self._is_alien:
            then = "none of this version can take over"
        if worker:
            worker.when_known(lambda: self._tell_end(f"worker {worker.pid} {worker.ending}", then))
        elif instance.channels:
            self._tell_end("its worker ended with the last daemon", then)
        if self._is_alien:
            self.problem = "it was of another ABI version"
            instance.send_channels_away(self._reason_to_end())
            if not self.served:
                self.kill()
        elif successor:
            instance.promote(successor)
        elif self.served:
            self.housing.house()
        else:
            self._enter("loading", settled=False)

    def _tell_end(self, who: str, then: str) -> None:
        log.error("model %s: %s: %s", self.name, who, then)

    def _tell_lack(self, problem: str) -> None:
        log.error("model %s: no %s: %s", self.name, "standby" if self.is_served else "other worker", problem)

    def _next_standby(self) -> WorkerProcess | None:
        """Take a standby, one that is not stopped where there is a choice."""
        able = [standby for standby in self.standbys if not standby.gone.is_set()]
        chosen = min(able, key=lambda standby: watch.is_stopped(standby.pid), default=None)
        if chosen:
            self.standbys.remove(chosen)
        return chosen

    def _forget_standby(self, worker: WorkerProcess) -> None:
        if worker in self.standbys:
            self.standbys.remove(worker)
        if self._stopping:
            return
        who = f"standby {worker.pid}"
        worker.when_known(lambda: self._tell_end(f"{who} {worker.ending}", "starting another"))

    # --- Ends -----------------------------------------------------------------------------------------------

    def _stop(self, but: set[WorkerProcess]) -> None:
        self._stopping = True
        self.settled.set()
        self._crew.stop(but=but)

    def _reason_to_end(self) -> SidecamlError:
        if self._stopping:
            return SidecamlError(
                ErrorCode.SHUTTING_DOWN, "the daemon is shutting down: connect again when it is back"
            )
        return SidecamlError(
            ErrorCode.SERVER_GONE,
            f"the worker of model {self.name!r} is gone and no other can be had: {self.problem}: open the "
            "model again",
        )

    def _enter(self, state: str, problem: str = "", *, settled: bool = True) -> None:
        self.state, self.problem = state, problem
        if self._stopping:
            return
        if state == "failed":
            log.error("model %s: %s", self.name, problem)
        if settled:
            self.settled.set()
        else:
            self.settled.clear()

"""One instance of a model: the worker that serves at the time, one status page, and the channels.

Once the worker is known to be over another one, which has loaded the model, gets the page and the channels,
and goes on where it stopped; which one is for the edition to say (`edition.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ipc_server import messages
from ipc_server.abi import ErrorCode
from ipc_server.blame import Blame
from ipc_server.channel import Channel, Channels
from ipc_server.crash_points import point
from ipc_server.errors import SidecamlError
from ipc_server.handover import MOST_SUSPICIONS, Handover, Reply
from ipc_server.pages import Page, StatusFile
from ipc_server.signature import Signature
from ipc_server.time_limit import time_limit
from ipc_server.worker_process import Event, WorkerProcess

log = logging.getLogger(__name__)

# Of messages for a worker that is in the middle of a request. One that lets too many lie is ended, and who
# opens and leaves in a loop is not to bring that about.
MOST_BACKLOG = 256


class Home(Protocol):
    """What an instance belongs to: the edition of a model."""

    name: str
    status: StatusFile
    # Fields of the message `begin` that are the same for every instance.
    begin_fields: dict[str, Any]
    # So many requests that ended workers, and the channel is ended.
    max_poisoned: int
    # More workers that died of requests of one user who is not trusted, and the user's channels are.
    max_deaths: int

    def describe(self, signature: Signature) -> dict[str, Any]:
        """Give the protocol's form of the model, with the signature that an instance serves."""

    def serves(self, instance: Instance, worker: WorkerProcess) -> None:
        """Hear that a worker is the one that serves, before it is told."""

    def begun(self, instance: Instance) -> None:
        """Hear that an instance takes channels."""

    def left(self) -> None:
        """Hear that a channel has ended."""


class Instance:
    """The worker that serves, the status page that it writes, and the channels."""

    def __init__(self, home: Home, index: int, channels: Channels) -> None:
        """Know which of its edition's instances it is; `promote` has it served."""
        self.home = home
        self.index = index
        self.signature = Signature((), ())
        self.active: WorkerProcess | None = None
        # Whether the active worker has begun, and takes what comes from another instance.
        self.has_begun = False
        # Those about to open included, by number.
        self.channels: dict[int, Channel] = {}
        self._all_channels = channels
        self._keeper = channels.keeper
        self._crowd = channels.crowd
        self._was_served = False
        self._handover = Handover(home.name, self.channels, channels)
        self._blame = Blame(home.name, self.channels, channels)
        self._giving: set[asyncio.Task[None]] = set()
        # What the instance had answered when its active worker began.
        self._answers_before = 0
        self._events: dict[str, Callable[[Channel, Event], None]] = {
            "poisoned": self._poisoned,
            "broken": self._broken,
        }

    @property
    def name(self) -> str:
        """The model's name."""
        return self.home.name

    @property
    def status_read_fd(self) -> int:
        """What clients may read of the status pages."""
        return self.home.status.read_fd

    @property
    def page(self) -> Page:
        """Its own status page."""
        return self.home.status.page(self.index)

    @property
    def worker_pid(self) -> int:
        """The process that serves it now; 0 while none does."""
        return self.active.pid if self.active else 0

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form of the model."""
        return self.home.describe(self.signature)

    def page_of(self, worker: WorkerProcess) -> Page | None:
        """Give the status page to whom writes it: what a predecessor left there is not a successor's."""
        return self.page if worker is self.active and worker.serves else None

    # --- Workers --------------------------------------------------------------------------------------------

    def promote(self, worker: WorkerProcess) -> None:
        """Give a loaded worker the status page and every channel."""
        began = time.monotonic()
        self._refuse_changed(worker)
        self._activate(worker)
        try:
            fds, place = self._crowd.enter(worker)
            fields = {"page": self.index, **self.home.begin_fields, **place}
            begun = worker.ask("begin", [self.home.status.fd, *fds], **fields)
        except (SidecamlError, OSError) as error:
            worker.kill(f"was killed, because it could not be given its status page: {error}")
            return
        point("supervisor.successor-begins")
        begun.add_done_callback(lambda reply: self._begun(worker, reply))
        self._give(worker, [channel for channel in self.channels.values() if channel.attached], began)

    def adopt(self, worker: WorkerProcess) -> None:
        """Take the worker that serves from an earlier daemon; `keep` asks it how far it came."""
        worker.serves = True
        self._activate(worker)

    def revive(self, signature: Signature) -> None:
        """Be an instance of an earlier daemon, which served this."""
        self.signature, self._was_served = signature, True

    def keep(self) -> None:
        """Have the worker that serves go on with the channels that are known of, and no more."""
        if self.active:
            self._start(self._keep(self.active))

    async def _keep(self, worker: WorkerProcess) -> None:
        began = time.monotonic()
        known = list(self.channels)
        try:
            fds, place = self._crowd.enter(worker)
            reply = await worker.request("keep", fds, timeout_s=None, channels=known, **place)
        except SidecamlError as error:
            log.warning("model %s: worker %d goes on by itself: %s", self.name, worker.pid, error)
            return
        if self.active is not worker:
            return
        # The earlier daemon may have died in the middle of a take-over.
        if not reply["begun"]:
            self._crowd.leave(worker)
            self.promote(worker)
            return
        # What came since is given by whoever brought it.
        lacking = [self.channels[number] for number in known if number in self.channels]
        lacking = [channel for channel in lacking if channel.number not in reply["channels"]]
        self._takes_channels()
        await self._handover.give(worker, [channel for channel in lacking if channel.attached], began)

    def lost(self, worker: WorkerProcess, *, for_good: bool) -> bool:
        """Be without the worker, which is over; whether it was well: it answered, or died of a user's.

        Nothing is held against a channel when all is over anyway.
        """
        was_well = self.page.answers() != self._answers_before
        point("supervisor.death-known")
        self._crowd.leave(worker)
        self.active = None
        self.has_begun = False
        if not for_good:
            # A worker attaches between two requests, and its page is without one then.
            self._handover.lost(worker, running=self.page.running_since_ns() != 0)
            # Others are not to wait the longer for the next worker.
            was_well |= self._is_of_a_user()
        return was_well

    async def finish(self, timeout_s: float) -> None:
        """Have the worker run what was submitted, and end; a warning when it cannot within the time."""
        worker = self.active
        # Nobody waits for what a worker without a channel may still run.
        if not worker or not self.channels:
            return
        try:
            async with time_limit(timeout_s):
                if self._giving:
                    await asyncio.wait(self._giving)
                await worker.request("drain", timeout_s=None)
                await worker.wait_exited()
        except TimeoutError:
            log.warning(
                "model %s: worker %d still runs after %g s: it is killed", self.name, worker.pid, timeout_s
            )
        except SidecamlError as error:
            log.warning("model %s: worker %d cannot finish its requests: %s", self.name, worker.pid, error)

    def _activate(self, worker: WorkerProcess) -> None:
        worker.on_event = self._heard
        self.active = worker
        self.has_begun = False
        self.signature = worker.signature
        self._was_served = True
        self._handover.begin(worker)
        self._answers_before = self.page.answers()
        self.home.serves(self, worker)

    def _begun(self, worker: WorkerProcess, reply: Reply) -> None:
        if reply.cancelled():
            return
        error = reply.exception()
        if error is not None:
            worker.kill(f"was killed, because it could not begin: {error}")
            return
        worker.serves = True
        if worker is self.active:
            self._takes_channels()

    def _takes_channels(self) -> None:
        self.has_begun = True
        self.home.begun(self)

    def _refuse_changed(self, worker: WorkerProcess) -> None:
        """Send the channels away that a worker cannot take over, because its model is another by now."""
        if self._was_served and worker.signature != self.signature:
            why = f"the worker of model {self.name!r} is gone and the model has changed since: open it again"
            self.send_channels_away(SidecamlError(ErrorCode.SERVER_GONE, why))

    def _give(self, worker: WorkerProcess, channels: Sequence[Channel], began: float) -> None:
        self._start(self._handover.give(worker, channels, began))

    def _start(self, giving: Any) -> None:
        task = asyncio.create_task(giving)
        self._giving.add(task)
        task.add_done_callback(self._giving.discard)

    # --- Channels -------------------------------------------------------------------------------------------

    def join(self, channel: Channel) -> None:
        """Have a channel among ours, which is about to open, was open under an earlier daemon, or moves."""
        channel.instance = self
        self.channels[channel.number] = channel

    def part(self, channel: Channel) -> None:
        """Have a channel that moves among ours no more; the worker, if any, has detached it."""
        self.channels.pop(channel.number, None)
        self._handover.forget(channel)

    def leave(self, channel: Channel, then: Callable[[], None]) -> None:
        """Forget a channel that ends; `then` is called when no worker uses its memory any more."""
        self.part(channel)
        if self.active and channel.offered:
            self.active.tell("detach", self._blame.leaves(channel, then), channel=channel.number)
        else:
            then()
        self.home.left()

    async def attach(self, channel: Channel) -> bool:
        """Have a channel served for the first time; False when the worker died meanwhile."""
        worker = self.active
        if worker is None:
            return False
        if self.signature.fingerprint != channel.fingerprint:
            raise SidecamlError(
                ErrorCode.MODEL_FAILED, f"model {self.name!r} has changed meanwhile: open it again"
            )
        if worker.backlog >= MOST_BACKLOG:
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"the worker of model {self.name!r} is in the middle of a request, and {worker.backlog} "
                "opens and ends of channels wait for it already: try again later",
            )
        try:
            await self._handover.offer(channel, worker)
            self._handover.answered(channel)
        except SidecamlError as error:
            if error.code is not ErrorCode.WORKER_CRASHED or channel.suspected >= MOST_SUSPICIONS:
                raise
            await worker.wait_exited()
            return False
        # Of one that died right after, the next knows nothing yet.
        channel.attached = self.active is worker
        return channel.attached

    async def release(self, channel: Channel) -> bool:
        """Have the worker let go of an open channel, between two requests; whether it did, and it is open."""
        worker = self.active
        if worker is None:
            return False
        self._handover.let_go(channel)
        try:
            await worker.ask("detach", channel=channel.number)
        except SidecamlError as error:
            if error.code is not ErrorCode.WORKER_CRASHED:
                worker.kill(f"was killed, because it could not let go of a channel: {error}")
            return False
        # Of one that died right after, the next has got the channel already.
        return self.active is worker and channel.instance is self

    async def receive(self, channel: Channel) -> SidecamlError | OSError | None:
        """Have the worker go on with a channel that joined and that another let go of; its refusal."""
        worker = self.active
        if worker is None:
            return None
        try:
            await self._handover.offer(channel, worker)
        except (SidecamlError, OSError) as error:
            # Whoever comes after a worker that died gets what joined.
            excused = worker.gone.is_set() or channel.instance is not self
            return None if excused else error
        if self.active is worker:
            self._handover.answered(channel)
        return None

    def take(self, channels: Sequence[Channel], began: float) -> None:
        """Go on with open channels of an instance that nobody serves any more."""
        assert self.active
        for channel in channels:
            self.join(channel)
        self._give(self.active, channels, began)

    def send_channels_away(self, error: SidecamlError) -> None:
        """End every channel, and tell the clients why."""
        for channel in list(self.channels.values()):
            if channel.attached:
                self._all_channels.send_away(channel, error)

    # --- What the worker tells ------------------------------------------------------------------------------

    def _heard(self, body: Event) -> None:
        handle = self._events.get(str(body.get("event")))
        number = body.get("channel")
        channel = self.channels.get(number) if isinstance(number, int) else None
        if handle and channel and channel.attached:
            handle(channel, body)

    def _poisoned(self, channel: Channel, _body: Event) -> None:
        channel.poisoned += 1
        self._keeper.channel_changed(channel, poisoned=channel.poisoned)
        if channel.poisoned >= self.home.max_poisoned:
            self._evict(channel)
        if channel.owner.trusted:
            return
        # Or it would go on over the next channel.
        if self._all_channels.poisoned.note(channel.uid, channel.model, self.home.max_poisoned):
            why = f"too many requests of the user with uid {channel.uid} killed every worker"
            self._evict_user(channel.uid, f"{why} of model {self.name!r} that ran them")

    def _is_of_a_user(self) -> bool:
        """Whether the worker died of requests of one user who is not trusted, who may lose its channels."""
        uid = self._blame.lost()
        if uid is None:
            return False
        if self._all_channels.deaths.are_too_many(uid, self.name, self.home.max_deaths):
            why = f"too many workers of model {self.name!r} died while they ran requests of"
            self._evict_user(uid, f"{why} the user with uid {uid}")
        return True

    def _evict_user(self, uid: int, what: str) -> None:
        log.error("model %s: the channels of uid %d are ended: %s", self.name, uid, what)
        why = f"the channel was ended, because {what}: the daemon's log says how"
        for channel in self._all_channels:
            if (channel.uid, channel.model, channel.owner.trusted) == (uid, self.name, False):
                self._all_channels.send_away(channel, SidecamlError(ErrorCode.WORKER_CRASHED, why))

    def _evict(self, channel: Channel) -> None:
        log.error("channel %d: evicted: %d of its requests ended workers", channel.number, channel.poisoned)
        why = (
            f"the channel was ended, because {channel.poisoned} of its requests killed every worker that ran "
            "them: the daemon's log says how"
        )
        self._all_channels.send_away(channel, SidecamlError(ErrorCode.WORKER_CRASHED, why))

    def _broken(self, channel: Channel, body: Event) -> None:
        why = messages.shown(body.get("why"), 400)
        log.error("channel %d: ended: %s", channel.number, why)
        self._all_channels.send_away(channel, SidecamlError(ErrorCode.CORRUPT, why))

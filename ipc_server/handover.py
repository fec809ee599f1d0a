"""Gives channels to the worker that serves them, and knows which of them it has not answered for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ipc_server.abi import ErrorCode
from ipc_server.channel import Channel, Channels
from ipc_server.crash_points import point
from ipc_server.errors import SidecamlError, shortage_of
from ipc_server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# How many channels a successor is given at a time: each has four descriptors under way.
ATTACHES_AT_ONCE = 32
# A channel whose attaching ended so many workers in a row is not given to another.
MOST_SUSPICIONS = 3
# There may be room again at any time. A worker that lacked it is asked after this pause, and after twice the
# last one where there is none yet: to look for room takes time from its requests.
RETRY_S = 0.5
LONGEST_RETRY_S = 4.0

Reply = asyncio.Future[dict[str, Any]]


class Handover:
    """The channels of one instance on their way to its active worker."""

    def __init__(self, model: str, own: Mapping[int, Channel], channels: Channels) -> None:
        """Know the instance's own channels, by number, and whom to tell of those that cannot be served."""
        self._model = model
        self._own = own
        self._channels = channels
        # Own ones that the worker was told to let go of: given to it once more, two would serve them.
        self._leaving: set[int] = set()
        self._worker: WorkerProcess | None = None
        # Given to the worker and not answered yet, oldest first.
        self._unanswered: dict[int, Channel] = {}
        # Those that the worker had no room for, and who asks it again.
        self._unhoused: dict[int, Channel] = {}
        self._asking: asyncio.Task[None] | None = None

    def begin(self, worker: WorkerProcess) -> None:
        """Give channels to this worker from now on."""
        self.stop()
        self._worker = worker
        self._unanswered = {}
        self._leaving.clear()

    def stop(self) -> None:
        """Ask no more for room for channels that the worker had none for."""
        self._unhoused = {}
        if self._asking:
            self._asking.cancel()
            self._asking = None

    def offer(self, channel: Channel, worker: WorkerProcess) -> Reply:
        """Have a worker attach a channel; whoever waits for the reply calls `answered` after it."""
        fds, fields = channel.attachment()
        reply = worker.ask("attach", fds, **fields, alone=self._is_kept_apart(channel))
        channel.offered = True
        self._unanswered[channel.number] = channel
        return reply

    def answered(self, channel: Channel) -> None:
        """Note that a worker survived its attaching."""
        self.forget(channel)
        channel.suspected = 0

    def forget(self, channel: Channel) -> None:
        """Wait for nothing about a channel any more."""
        self._unanswered.pop(channel.number, None)
        self._unhoused.pop(channel.number, None)
        self._leaving.discard(channel.number)

    def let_go(self, channel: Channel) -> None:
        """Give a channel that is to move to this worker no more, whether or not it has it yet."""
        self.forget(channel)
        self._leaving.add(channel.number)

    def lost(self, worker: WorkerProcess, *, running: bool) -> None:
        """Send the channel away whose attaching ends one worker after the other.

        Of one that died in the middle of a request, which its journal remembers, no attaching was the cause.
        """
        self.stop()
        self._worker = None
        channel = next(iter(self._unanswered.values()), None)
        if channel is None or not worker.serves or running:
            return
        channel.suspected += 1
        if channel.attached and channel.suspected >= MOST_SUSPICIONS:
            why = f"{channel.suspected} workers died as they took the channel over; the last {worker.ending}"
            self._channels.send_away(channel, SidecamlError(ErrorCode.WORKER_CRASHED, why))

    async def give(self, worker: WorkerProcess, channels: Sequence[Channel], began: float) -> None:
        """Have a successor go on with open channels; `began` is when its take-over did."""
        under_way: deque[tuple[Channel, Reply]] = deque()
        taken = 0
        for channel in channels:
            if len(under_way) >= ATTACHES_AT_ONCE:
                taken += await self._taken(worker, *under_way.popleft())
            if not self._is_to_be_given(channel):
                continue
            if reply := self._offered(worker, channel):
                under_way.append((channel, reply))
        for channel, reply in under_way:
            taken += await self._taken(worker, channel, reply)
        point("supervisor.taken-over")
        if self._worker is worker and channels:
            took_ms = (time.monotonic() - began) * 1000
            told = "model %s: worker %d took over %d of %d channels in %.1f ms"
            log.info(told, self._model, worker.pid, taken, len(channels), took_ms)

    def _is_kept_apart(self, channel: Channel) -> bool:
        return not channel.owner.trusted and self._channels.deaths.keeps_apart(channel.uid, self._model)

    def _is_to_be_given(self, channel: Channel) -> bool:
        is_own = self._own.get(channel.number) is channel and channel.number not in self._leaving
        return channel.is_open and is_own

    def _offered(self, worker: WorkerProcess, channel: Channel) -> Reply | None:
        try:
            reply = self.offer(channel, worker)
        except (SidecamlError, OSError) as error:
            self._cannot_take(worker, channel, error)
            return None
        point("supervisor.offered")
        return reply

    async def _taken(self, worker: WorkerProcess, channel: Channel, reply: Reply) -> bool:
        try:
            await reply
        except SidecamlError as error:
            # One that has moved on meanwhile is another's.
            if channel.number in self._unanswered:
                self._cannot_take(worker, channel, error)
            return False
        if self._worker is worker:
            self.answered(channel)
        return True

    def _cannot_take(self, worker: WorkerProcess, channel: Channel, error: SidecamlError | OSError) -> None:
        if worker.gone.is_set() or not channel.is_open:
            # The next worker takes it over, or nobody has to.
            return
        if shortage_of(error):
            self._wait_for_room(worker, channel, error)
            return
        log.error("model %s: channel %d cannot be served any more: %s", self._model, channel.number, error)
        code = error.code if isinstance(error, SidecamlError) else ErrorCode.SYSTEM
        why = f"its worker died, and the next one cannot serve the channel: {error}"
        self._channels.send_away(channel, SidecamlError(code, why))

    def _wait_for_room(self, worker: WorkerProcess, channel: Channel, error: Exception) -> None:
        """Have the worker asked again: its predecessor had room, so there will be some."""
        if channel.number not in self._unhoused:
            log.warning("model %s: channel %d waits for room: %s", self._model, channel.number, error)
        self.answered(channel)
        self._unhoused[channel.number] = channel
        if not self._asking:
            self._asking = asyncio.create_task(self._ask_again(worker))

    async def _ask_again(self, worker: WorkerProcess) -> None:
        pause_s = RETRY_S
        while self._unhoused and not worker.gone.is_set():
            await asyncio.sleep(pause_s)
            found_room = await self._ask_in_turn(worker)
            pause_s = RETRY_S if found_room else min(2 * pause_s, LONGEST_RETRY_S)
        self._asking = None

    async def _ask_in_turn(self, worker: WorkerProcess) -> bool:
        """Ask for one channel after the other, up to the first that still lacks room; whether any has it.

        That one is the last to be asked for again, so that a small channel gets by a large one.
        """
        found_room = False
        while channel := next(iter(self._unhoused.values()), None):
            reply = self._offered(worker, channel)
            if reply and await self._taken(worker, channel, reply):
                log.info("model %s: channel %d has room again", self._model, channel.number)
                found_room = True
            elif channel.number in self._unhoused:
                break
        return found_room

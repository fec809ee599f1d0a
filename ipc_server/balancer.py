"""Looks at an edition's instances now and then, says where opens should go, and moves channels.

All is read by `pread`: status pages, and channels' journals only when the pages show that loads differ. While
nothing is open nobody looks; while nothing runs, rarely.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from ipc_server.balance import DRIFT, LOOKS, Load, Move, Persistence, drifted, plan
from ipc_server.channel import Channel
from ipc_server.instance import Instance
from ipc_server.moving import Mover

log = logging.getLogger(__name__)

RAREST_LOOK_S = 8.0
# A channel that was moved stays for so many times as long as loads must stay apart.
STAY = 6
# Of an instance's time: less is taken for idle.
_IDLE = 0.02


class Field(Protocol):
    """What is balanced: the edition of a model."""

    name: str
    instances: list[Instance]

    @property
    def channel_count(self) -> int:
        """How many channels there are."""


class Looks:
    """What was seen of instances and channels at the last look."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        # By instance: when, and for how long it had been busy by then.
        self._seen: dict[int, tuple[int, int]] = {}
        # By instance: its share in the time between the last two looks.
        self.busy: dict[int, float] = {}
        # By channel, while loads differ: how many requests had been started.
        self._started: dict[int, int] = {}

    def look(self, instances: Sequence[Instance], now_ns: int) -> list[Load] | None:
        """Look once; what they did since the last look, None while that cannot be told or does not matter."""
        self.busy = self._shares(instances, now_ns)
        if len(self.busy) < len(instances) or not drifted(list(self.busy.values())):
            self._started = {}
            return None
        before = self._started
        channels = itertools.chain.from_iterable(one.channels.values() for one in instances)
        self._started = {channel.number: channel.requests_started() for channel in channels}
        if not before:
            return None
        return [Load(self.busy[one.index], self._since(before, one)) for one in instances]

    def _shares(self, instances: Sequence[Instance], now_ns: int) -> dict[int, float]:
        before = self._seen
        self._seen = {one.index: (now_ns, one.page.busy_ns(now_ns)) for one in instances}
        shares = {}
        for index, (now, busy_ns) in self._seen.items():
            then, busy_then = before.get(index, (now, 0))
            if now > then:
                shares[index] = min(max((busy_ns - busy_then) / (now - then), 0.0), 1.0)
        return shares

    def _since(self, before: dict[int, int], instance: Instance) -> dict[int, int]:
        started = ((number, self._started[number]) for number in instance.channels)
        return {number: count - before.get(number, count) for number, count in started}


class Balancer:
    """Keeps the loads of one edition's instances even."""

    def __init__(self, field: Field, mover: Mover, after_s: float) -> None:
        """Know what to balance; `attend` begins. Channels move when loads were apart for `after_s`."""
        self.after_s = after_s
        self._field = field
        self._mover = mover
        self._looks = Looks()
        self._lasting = Persistence()
        # By instance: channels that were opened since the last look.
        self._fresh: dict[int, int] = {}
        # By channel: when it was moved.
        self._moved: dict[int, float] = {}
        self._watching: asyncio.Task[None] | None = None
        self._moving: asyncio.Task[None] | None = None

    def least_loaded(self, among: Sequence[Instance]) -> Instance:
        """Choose for a channel that opens: by what instances have to do, then by their channels."""
        chosen = min(among, key=lambda one: (self._steps(one), len(one.channels)))
        self._fresh[chosen.index] = self._fresh.get(chosen.index, 0) + 1
        return chosen

    def attend(self) -> None:
        """Look from now on, until there are no channels any more."""
        watching = self._watching and not self._watching.done()
        if len(self._field.instances) > 1 and not watching:
            self._watching = asyncio.create_task(self._watch())

    async def rest(self) -> None:
        """Begin no more moves, and wait for the one that is under way."""
        self.stop()
        if self._moving:
            await asyncio.wait([self._moving])

    def stop(self) -> None:
        """Look no more."""
        if self._watching:
            self._watching.cancel()

    def _steps(self, instance: Instance) -> int:
        # A channel of which nothing is known yet counts as a small load: opens come in crowds.
        expected = self._looks.busy.get(instance.index, 0.0) + DRIFT * self._fresh.get(instance.index, 0)
        return int(expected / DRIFT)

    async def _watch(self) -> None:
        pause = self.after_s / LOOKS
        while self._field.channel_count:
            await asyncio.sleep(pause)
            try:
                await self._round()
            except Exception:
                # Channels are served where they are.
                log.exception("model %s: its instances could not be balanced", self._field.name)
            idle = max(self._looks.busy.values(), default=1.0) < _IDLE
            rarest = max(RAREST_LOOK_S, self.after_s / LOOKS)
            pause = min(2 * pause, rarest) if idle else self.after_s / LOOKS
        self._looks = Looks()

    async def _round(self) -> None:
        moves = self._look()
        if moves:
            self._moving = asyncio.create_task(self._carry_out(moves))
            await asyncio.shield(self._moving)

    def _look(self) -> list[tuple[Channel, Instance, Instance]]:
        instances = [one for one in self._field.instances if one.has_begun]
        loads = self._looks.look(instances, time.monotonic_ns()) if len(instances) > 1 else None
        self._fresh = {}
        moves = plan(loads, self._may_move) if loads else []
        if not self._lasting.let(bool(moves)):
            return []
        self._tell(moves, instances)
        return [
            (instances[move.source].channels[move.channel], instances[move.source], instances[move.target])
            for move in moves
        ]

    def _may_move(self, number: int) -> bool:
        moved_at = self._moved.get(number)
        return moved_at is None or time.monotonic() - moved_at >= STAY * self.after_s

    def _tell(self, moves: Sequence[Move], instances: Sequence[Instance]) -> None:
        for source, target in sorted({(move.source, move.target) for move in moves}):
            count = sum((move.source, move.target) == (source, target) for move in moves)
            old, new = instances[source].index, instances[target].index
            log.info(
                "model %s: %d channels move from instance %d, busy for %.0f %% of the time, to instance %d, "
                "%.0f %%",
                self._field.name,
                count,
                old + 1,
                100 * self._looks.busy[old],
                new + 1,
                100 * self._looks.busy[new],
            )

    async def _carry_out(self, moves: Sequence[tuple[Channel, Instance, Instance]]) -> None:
        self._moved = {number: at for number, at in self._moved.items() if not self._may_move(number)}
        for channel, source, target in moves:
            # Any of them may have ended, or gone elsewhere with a worker that died.
            if channel.instance is source and channel.attached:
                self._moved[channel.number] = time.monotonic()
                await self._mover.move(channel, source, target)
        # What lies before the moves says nothing of what comes after.
        self._looks = Looks()

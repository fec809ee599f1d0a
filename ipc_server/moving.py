"""Moves a channel from one instance to another: the old worker detaches it, then the new one goes on with it.

A worker detaches between two requests, so none of the channel runs from its reply on; what was submitted
waits in the segment. At any time the channel belongs to one instance, whose next worker gets it should the
present one die. The keeper is told in between: a daemon that takes over gives the channel to the new
instance only when the old one has let go of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ipc_server.channel import Channel
from ipc_server.crash_points import point
from ipc_server.instance import Instance
from ipc_server.keeper import Keeper

log = logging.getLogger(__name__)


class Mover:
    """Moves channels among the instances of one edition."""

    def __init__(self, keeper: Keeper, house: Callable[[], None]) -> None:
        """Know who keeps channels, and who finds instances for those whose own has no worker."""
        self._keeper = keeper
        self._house = house

    async def move(self, channel: Channel, source: Instance, target: Instance) -> bool:
        """Have another instance serve a channel; whether it does. Whatever happens, somebody does."""
        if not _fits(target, source) or not await source.release(channel):
            return False
        point("supervisor.move.detached")
        source.part(channel)
        target.join(channel)
        try:
            self._keeper.channel_moves(channel, target.index)
        except OSError as error:
            self._bring_back(channel, source, target, f"it cannot be kept: {error.strerror}")
            return False
        point("supervisor.move.noted")
        refusal = await target.receive(channel)
        if refusal:
            self._bring_back(channel, source, target, str(refusal))
            return False
        # Nobody may have been there to receive it.
        self._house()
        point("supervisor.move.ended")
        return channel.instance is target

    def _bring_back(self, channel: Channel, source: Instance, target: Instance, why: str) -> None:
        log.error("channel %d: stays where it was: %s", channel.number, why)
        target.part(channel)
        source.join(channel)
        try:
            self._keeper.channel_moves(channel, source.index)
        except OSError as error:
            log.error("channel %d: its place cannot be kept: %s", channel.number, error.strerror)
        if source.active:
            source.take([channel], time.monotonic())
        else:
            self._house()


def _fits(target: Instance, source: Instance) -> bool:
    return target.has_begun and target.signature == source.signature

"""Finds another instance for channels whose own has no worker, and no standby to be its next one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ipc_server.channel import Channel
from ipc_server.instance import Instance
from ipc_server.keeper import Keeper


class Housing:
    """The instances of one edition, which stand in for each other."""

    def __init__(self, instances: Sequence[Instance], keeper: Keeper) -> None:
        """Know them, and who is to know where channels go."""
        self._instances = instances
        self._keeper = keeper

    def house(self) -> None:
        """Have the open channels served whose instance is not, as far as others of the same signature can."""
        for instance in self._instances:
            able = [one for one in self._instances if one.has_begun and one.signature == instance.signature]
            if instance.channels and not instance.active and able:
                self._spread(instance, able)

    def _spread(self, instance: Instance, able: Sequence[Instance]) -> None:
        """Give each channel of an instance to the one that has fewest by then."""
        began = time.monotonic()
        share: dict[Instance, list[Channel]] = {one: [] for one in able}
        for channel in [channel for channel in instance.channels.values() if channel.attached]:
            instance.part(channel)
            host = min(able, key=lambda one: len(one.channels) + len(share[one]))
            share[host].append(channel)
            self._keeper.channel_changed(channel, index=host.index)
        # Before anybody is told: a daemon that finds it so gives them to the same.
        self._keeper.store.save_or_log()
        for host, channels in share.items():
            if channels:
                host.take(channels, began)

"""Whose requests a worker ran when it died.

The journals say so, which only workers write: who gives a request up, lets its deadline pass, changes its
inputs or closes its channel undoes nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ipc_server.channel import Channel, Channels
from ipc_server.journal import unfinished_run


@dataclass
class _Left:
    """A channel that has ended, of which a worker may still run a request."""

    uid: int
    trusted: bool
    journal_fd: int
    blamed_run: int


class Blame:
    """The channels of one instance, those included that its worker has not let go of yet."""

    def __init__(self, model: str, own: Mapping[int, Channel], channels: Channels) -> None:
        """Know the instance's own channels, by number, and where deaths are counted."""
        self._model = model
        self._own = own
        self._deaths = channels.deaths
        self._left: dict[int, _Left] = {}

    def leaves(self, channel: Channel, then: Callable[[], None]) -> Callable[[], None]:
        """Remember a channel that ends until its worker has let go of it: then what comes back is called."""
        # Without a descriptor to spare it gets away with what it runs now.
        with contextlib.suppress(OSError):
            self._left[channel.number] = _left(channel)

        def let_go() -> None:
            left = self._left.pop(channel.number, None)
            if left:
                os.close(left.journal_fd)
            then()

        return let_go

    def lost(self) -> int | None:
        """Count the death of the worker; the one user who is not trusted and whose requests alone it ran."""
        return self._deaths.note(self._users(), self._model)

    def _users(self) -> set[int | None]:
        """Give those whose requests were running; None for all who are trusted."""
        users: set[int | None] = set()
        for channel in self._own.values():
            run = channel.unfinished_run()
            if run not in (0, channel.blamed_run):
                channel.blamed_run = run
                users.add(None if channel.owner.trusted else channel.uid)
        for left in self._left.values():
            if unfinished_run(left.journal_fd) not in (0, left.blamed_run):
                users.add(None if left.trusted else left.uid)
        return users


def _left(channel: Channel) -> _Left:
    assert channel.journal_fd is not None, "a worker has it"
    trusted, journal_fd = channel.owner.trusted, os.dup(channel.journal_fd)
    return _Left(channel.uid, trusted, journal_fd, channel.blamed_run)

"""What one user may take of the daemon: one that takes all it can get leaves the others their part."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from ipc_server.abi import ALONE_NS, ErrorCode
from ipc_server.errors import SidecamlError

# How many seconds' worth of opens may come at once.
BURST_S = 2.0
# So many channels' worth of requests that ended workers may a user who is not trusted have run of one model
# within this time, which is also how long requests run alone that are to be told apart.
POISONED_CHANNELS = 3
POISON_TIME_S = ALONE_NS / 1e9
# After so many workers within this time that died while they ran requests of several users together, each
# request of these users runs by itself: the next worker that dies shows whose fault it is.
SHARED_DEATHS = 3


class Held(Protocol):
    """A channel, as far as it counts."""

    @property
    def held_bytes(self) -> int:
        """Of memory, the worker's for it included."""

    @property
    def uid(self) -> int:
        """Whose it is."""


class Allowed(Protocol):
    """The limits, as the configuration has them now."""

    @property
    def max_channels_per_user(self) -> int:
        """Open at a time."""

    @property
    def max_bytes_per_user(self) -> int:
        """Of memory."""

    @property
    def max_opens_per_second(self) -> int:
        """In the long run."""


class Poisonous(Protocol):
    """The limits on requests that end workers, as the configuration has them now."""

    @property
    def max_attempts(self) -> int:
        """Of workers, for one request."""

    @property
    def max_poisoned_per_channel(self) -> int:
        """Of requests that are given up."""


class _Recent:
    """When something happened of late: of each user and model."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing has."""
        self._clock = clock
        self._times: dict[tuple[int, str], deque[float]] = {}

    def note(self, uid: int, model: str) -> int:
        """Note one more; how many there are."""
        self._times.setdefault((uid, model), deque()).append(self._clock())
        return self.count(uid, model)

    def count(self, uid: int, model: str) -> int:
        """Count those that are not long past, and forget the others."""
        times = self._times.get((uid, model), deque())
        while times and self._clock() - times[0] >= POISON_TIME_S:
            times.popleft()
        if not times:
            self._times.pop((uid, model), None)
        return len(times)


class Poisoned:
    """Requests that ended every worker that ran them: of each user and model."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """None has."""
        self._recent = _Recent(clock)

    def note(self, uid: int, model: str, most_per_channel: int) -> bool:
        """Note one more; whether it is as many as the user may have."""
        return self._recent.note(uid, model) >= POISONED_CHANNELS * most_per_channel

    def check_open(self, uid: int, model: str, most_per_channel: int) -> None:
        """Raise LIMIT where a user has had as many as it may."""
        count, most = self._recent.count(uid, model), POISONED_CHANNELS * most_per_channel
        if count >= most:
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"{count} requests of the user with uid {uid} ended every worker of model {model!r} that ran "
                f"them, and {POISONED_CHANNELS} times max_poisoned_per_channel, which is {most_per_channel}, "
                f"may do so within {POISON_TIME_S:g} s: find out which do, and try again later",
            )


class Deaths:
    """Workers that died while they ran requests of users who are not trusted, whatever became of these."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """None has."""
        self._of_one = _Recent(clock)
        self._shared = _Recent(clock)

    def note(self, users: Collection[int | None], model: str) -> int | None:
        """Note one that ran requests of these, None for any who are trusted; whose fault alone it was."""
        untrusted = [uid for uid in users if uid is not None]
        of_one = len(users) == 1
        for uid in untrusted:
            (self._of_one if of_one else self._shared).note(uid, model)
        return untrusted[0] if untrusted and of_one else None

    def are_too_many(self, uid: int, model: str, most: int) -> bool:
        """Whether a user has had more than that many die."""
        return self._of_one.count(uid, model) > most

    def keeps_apart(self, uid: int, model: str) -> bool:
        """Whether each request of a user is to run by itself."""
        return self._shared.count(uid, model) >= SHARED_DEATHS

    def check_open(self, uid: int, model: str, most: int) -> None:
        """Raise LIMIT where a user has had more than that many die."""
        if self.are_too_many(uid, model, most):
            count = self._of_one.count(uid, model)
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"{count} workers of model {model!r} died while they ran requests of the user with uid {uid} "
                f"and {POISONED_CHANNELS} times max_poisoned_per_channel times max_attempts is {most}, for "
                f"{POISON_TIME_S:g} s: find out which requests end them, and try again later",
            )


def deaths_allowed(limits: Poisonous) -> int:
    """Give how many workers may die of one user's requests: as many as die of those that are given up."""
    return POISONED_CHANNELS * limits.max_poisoned_per_channel * limits.max_attempts


class Quotas:
    """Counts what is there whenever it is asked, so nothing that ended is ever counted on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody has opened anything yet."""
        self._clock = clock
        # Of each user: how many opens it has left, and as of when.
        self._opens: dict[int, tuple[float, float]] = {}

    def check_open(self, uid: int, held: Iterable[Held], limits: Allowed) -> None:
        """Count one more open of a user; LIMIT when it has too many channels, or opens them too fast."""
        channels = sum(channel.uid == uid for channel in held)
        most = limits.max_channels_per_user
        if channels >= most:
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"the user with uid {uid} has {channels} channels open and max_channels_per_user is {most}: "
                "close one, or raise it",
            )
        if not self._take_open(uid, limits.max_opens_per_second):
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"the user with uid {uid} opens channels faster than max_opens_per_second, which is "
                f"{limits.max_opens_per_second}: keep channels open, try again in a second, or raise it",
            )

    def check_bytes(self, uid: int, held: Iterable[Held], limits: Allowed) -> None:
        """Raise LIMIT when a user's channels, those about to open among them, take too much memory."""
        total = sum(channel.held_bytes for channel in held if channel.uid == uid)
        most = limits.max_bytes_per_user
        if total > most:
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"with this one the channels of the user with uid {uid} would take {total} bytes and "
                f"max_bytes_per_user is {most}: ask for fewer slots or smaller dims, close other channels, "
                "or raise it",
            )

    def _take_open(self, uid: int, per_second: int) -> bool:
        now, most = self._clock(), per_second * BURST_S
        left, since = self._opens.get(uid, (most, now))
        left = min(most, left + (now - since) * per_second)
        granted = left >= 1
        self._opens[uid] = (left - 1 if granted else left, now)
        self._forget(now)
        return granted

    def _forget(self, now: float) -> None:
        """Drop who has its whole burst again: the same as who never came."""
        for uid in [uid for uid, (_, since) in self._opens.items() if now - since > BURST_S]:
            del self._opens[uid]

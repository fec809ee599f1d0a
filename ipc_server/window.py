"""The items of a sequence as requests, many at once: what `Channel.map` of the client is made of."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from ipc_server.errors import SidecamlError

if TYPE_CHECKING:
    from ipc_server.client import Channel

Item = TypeVar("Item")
Result = TypeVar("Result")

_NOTHING = object()


class Window(Generic[Item]):
    """The requests under way for the items of a sequence, the oldest first."""

    def __init__(
        self,
        channel: Channel,
        fill: Callable[[int, Item], object],
        items: Iterable[Item],
        window: int,
        timeout: float | None,
    ) -> None:
        """Begin with none."""
        self.channel = channel
        self.under_way: deque[tuple[int, Item]] = deque()
        self._fill, self._items, self._timeout = fill, iter(items), timeout
        self._window, self._burst = window, max(1, window // 2)

    def refill(self) -> None:
        """Submit what there is room for, when that is worth it; what keeps it from that is raised."""
        while self._window - len(self.under_way) >= self._burst:
            # What is under way may be what holds the slot, and comes first.
            try:
                slot = self.channel.claim() if self.under_way else self.channel.claim_wait()
            except SidecamlError:
                if self.under_way or next(self._items, _NOTHING) is _NOTHING:
                    return
                raise
            filled = self._filled(slot, self.channel.claim_run(self._burst))
            if not filled:
                return
            self.channel.submit_run(len(filled), self._timeout)
            self.under_way.extend(filled)

    def give_up(self) -> None:
        """Give up what is under way."""
        for slot, _ in self.under_way:
            # The channel may be closed by now.
            with contextlib.suppress(SidecamlError):
                self.channel.abandon(slot)

    def _filled(self, slot: int, most: int) -> list[tuple[int, Item]]:
        filled = []
        for item in itertools.islice(self._items, most):
            self._fill(slot, item)
            filled.append((slot, item))
            slot = (slot + 1) % self.channel.slots
        return filled


def results(
    requests: Window[Item], read: Callable[[int, Item], Result], return_exceptions: bool
) -> Iterator[Result | SidecamlError]:
    """Give what `read` makes of each answer, or the error in its place; or raise that."""
    channel = requests.channel
    try:
        while True:
            requests.refill()
            if not requests.under_way:
                return
            slot, item = requests.under_way[0]
            try:
                channel.await_(slot)
            except SidecamlError as error:
                requests.under_way.popleft()
                if not return_exceptions:
                    raise
                yield error
                continue
            result = read(slot, item)
            requests.under_way.popleft()
            channel.release(slot)
            yield result
    finally:
        requests.give_up()

"""How the daemon's workers know of each other: a page on which each says that it is awake.

So nobody spins who would keep another from its core. The workers write it (c_shim's crowd.h); here it is
made, its entries are given out, and those of the dead are zeroed. No client ever gets it: what it must know
stands on its worker's status page.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ipc_server import _core, segment
from ipc_server.abi import (
    CROWD_BYTES,
    CROWD_ENTRIES,
    CROWD_ENTRIES_OFFSET,
    CROWD_ENTRY_BYTES,
    CROWD_USED_OFFSET,
)
from ipc_server.errors import SidecamlError

if TYPE_CHECKING:
    from ipc_server.worker_process import WorkerProcess

log = logging.getLogger(__name__)


class Crowd:
    """The page, and which worker has which entry of it."""

    def __init__(self) -> None:
        """Know of no worker; there is a page while there are any."""
        self._fd = -1
        self._entries: dict[WorkerProcess, int] = {}
        self._used = 0

    def enter(self, worker: WorkerProcess) -> tuple[list[int], dict[str, int]]:
        """Give a worker an entry: the descriptors and the fields of an order that tells it so.

        None of either where there is no room: such a worker knows of its own clients only.
        """
        free = min(set(range(CROWD_ENTRIES)) - set(self._entries.values()), default=None)
        if free is None or not self._is_there():
            return [], {}
        self._entries[worker] = free
        self._used = max(self._used, free + 1)
        self._write(CROWD_USED_OFFSET, self._used.to_bytes(4, "little"))
        return [self._fd], {"entry": free, "cores": _core.usable_cores()}

    def leave(self, worker: WorkerProcess) -> None:
        """Count a worker no longer that is over; nothing happens for one without an entry."""
        entry = self._entries.pop(worker, None)
        if entry is None:
            return
        self._write(CROWD_ENTRIES_OFFSET + entry * CROWD_ENTRY_BYTES, bytes(CROWD_ENTRY_BYTES))
        if not self._entries:
            self.close()

    def close(self) -> None:
        """Forget every worker, and the page."""
        self._entries.clear()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._used = -1, 0

    def _is_there(self) -> bool:
        if self._fd >= 0:
            return True
        try:
            self._fd = segment.create_segment(CROWD_BYTES, sealed=True)
        except (OSError, SidecamlError) as error:
            log.warning("workers cannot know of each other, and may spin where cores are short: %s", error)
            return False
        return True

    def _write(self, offset: int, data: bytes) -> None:
        os.pwrite(self._fd, data, offset)

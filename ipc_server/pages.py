"""The status pages of a model's instances: one file of theirs, which the supervisor reads by `pread` only."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ipc_server import messages, segment
from ipc_server.abi import (
    PAGE_BYTES,
    STATUS_BUSY_NS_OFFSET,
    STATUS_FAILED_OFFSET,
    STATUS_RUNNING_NS_OFFSET,
    STATUS_SERVED_OFFSET,
)


@dataclass(frozen=True)
class Page:
    """One instance's page, in the file of all."""

    fd: int
    index: int

    def running_since_ns(self) -> int:
        """Read when the request that runs was started, of CLOCK_MONOTONIC to its tick; 0 when none runs."""
        return self._word(STATUS_RUNNING_NS_OFFSET)

    def busy_ns(self, now_ns: int) -> int:
        """Read how long requests ran, of whichever worker; with the one that runs now, at that time.

        It may be a little less than a moment before, because short runs are counted by samples.
        """
        since_ns = self.running_since_ns()
        return self._word(STATUS_BUSY_NS_OFFSET) + (max(now_ns - since_ns, 0) if since_ns else 0)

    def answers(self) -> int:
        """Count the requests that were answered, by whichever worker of the instance."""
        return self._word(STATUS_SERVED_OFFSET) + self._word(STATUS_FAILED_OFFSET)

    def _word(self, offset: int) -> int:
        return int.from_bytes(os.pread(self.fd, 8, self.index * PAGE_BYTES + offset), "little")


class StatusFile:
    """The file: what workers write, and clients may only read; both descriptors are -1 until it is there."""

    def __init__(self, pages: int) -> None:
        """Know how many pages it has."""
        self.fd = self.read_fd = -1
        self._pages = pages

    def prepare(self) -> None:
        """Make it, once; NO_SPACE or OSError when there is no room."""
        if self.fd < 0:
            self.fd = segment.create_segment(self._pages * PAGE_BYTES)
        if self.read_fd < 0:
            self.read_fd = segment.read_only(self.fd)

    def adopt(self, fd: int) -> None:
        """Take the file of an earlier daemon; the descriptor becomes ours."""
        self.fd = fd
        self.prepare()

    def page(self, index: int) -> Page:
        """Give one page; only while the file is there."""
        return Page(self.fd, index)

    def close(self) -> None:
        """Forget the file."""
        messages.close_all([fd for fd in (self.fd, self.read_fd) if fd >= 0])
        self.fd = self.read_fd = -1

"""What a load costs the daemon: processor time of its processes, and what its workers count."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipc_server import decode
from ipc_server.abi import PAGE_BYTES, ErrorCode
from ipc_server.ask import Conversation
from ipc_server.errors import SidecamlError

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Look:
    """At one moment."""

    # Nanoseconds of processor time by process: the clients' workers, and the daemon's own.
    cpu_ns: dict[int, int]
    # Counters of the model's workers, all together.
    served: int
    batches: int
    batched: int
    refused: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Between two moments; None where it is not known."""

    workers_cpu_ns: int | None
    daemon_cpu_ns: int | None
    # Requests that the model's workers answered, of other clients, too; runs of several; requests in those.
    served: int
    batches: int
    batched: int
    refused: int


class Server:
    """The daemon's processes that serve some clients."""

    def __init__(self, socket: Path, clients: Collection[int]) -> None:
        """Ask which workers serve them. SERVER_GONE and so on when the daemon does not answer."""
        with Conversation(socket) as conversation:
            rows = conversation.pages("channels", "channels", "channel")
            ours = [row for row in rows if row["client_pid"] in clients]
            if not ours:
                raise SidecamlError(
                    ErrorCode.SERVER_GONE, "the daemon knows no channel of the benchmark's clients any more"
                )
            self._workers = {row["worker_pid"] for row in ours if row["worker_pid"]}
            self._status_fd = _status_of(conversation, ours[0]["channel"])
        # Nobody's where a supervisor died and systemd has its workers now.
        self._daemon = {parent for worker in self._workers if (parent := _parent(worker)) > 1}

    def close(self) -> None:
        """Let go of the status pages."""
        os.close(self._status_fd)

    def look(self) -> Look:
        """Read what they used and counted so far."""
        pages = _pages(self._status_fd)
        used = {pid: spent for pid in (*self._workers, *self._daemon) if (spent := cpu_ns(pid)) is not None}
        return Look(
            used,
            sum(page.served for page in pages),
            sum(page.batches for page in pages),
            sum(page.batched for page in pages),
            sum(page.refused for page in pages),
        )

    def between(self, before: Look, after: Look) -> Cost:
        """Tell what was used in between."""
        return Cost(
            _used(self._workers, before, after),
            _used(self._daemon, before, after),
            after.served - before.served,
            after.batches - before.batches,
            after.batched - before.batched,
            after.refused - before.refused,
        )


def _status_of(conversation: Conversation, channel: int) -> int:
    reply = conversation.ask_for_fds("inspect", channel=channel)
    segment_fd, status_fd = reply.fds
    reply.fds.clear()
    os.close(segment_fd)
    return status_fd


def _pages(status_fd: int) -> list[decode.Status]:
    """Decode the pages of the workers there are; one that never had a worker is all zeros."""
    size = os.fstat(status_fd).st_size
    pages = [os.pread(status_fd, PAGE_BYTES, offset) for offset in range(0, size, PAGE_BYTES)]
    return [decode.decode_status(page) for page in pages if any(page[:8])]


def _used(pids: Collection[int], before: Look, after: Look) -> int | None:
    """Add up over processes that were there both times; None when one was not."""
    if not pids or not all(pid in before.cpu_ns and pid in after.cpu_ns for pid in pids):
        return None
    return sum(after.cpu_ns[pid] - before.cpu_ns[pid] for pid in pids)


def cpu_ns(pid: int) -> int | None:
    """Read the processor time of a process and of its threads that ended; None when it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK_NS if fields else None


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _stat(pid: int) -> list[Any]:
    """Read the fields of /proc/PID/stat that come after the name, which may hold anything; none if gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()

"""Takes up what a predecessor left in systemd's store: editions of models, workers, connections, channels.

What is not whole is not taken: a worker without its socket is ended, a channel without its segment is over,
and its client is told. What the configuration no longer says, or another version of sidecaml left, is served
to its end: `fleet.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ipc_server import keeper as keeping
from ipc_server.abi import ErrorCode
from ipc_server.batching import Batching, batching_of
from ipc_server.channel import Channel, Channels
from ipc_server.config import Config
from ipc_server.control import Connection, Service
from ipc_server.crash_points import point
from ipc_server.edition import Edition
from ipc_server.errors import SidecamlError
from ipc_server.messages import close_all
from ipc_server.signature import signature_of
from ipc_server.systemd.store import Inherited
from ipc_server.time_limit import time_limit
from ipc_server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# A worker that was sent SIGKILL is over after this, or hangs in the kernel.
_DEATH_TIMEOUT_S = 10.0


class _NotTaken(Exception):
    """Says why an entry is not taken."""


class Restoration:
    """One start of the daemon: from the entries of the store to what they stand for."""

    def __init__(self, config: Config, channels: Channels) -> None:
        """Know where to look and what to make of it."""
        # By key.
        self.editions: dict[str, Edition] = {}
        self.connections: dict[str, Connection] = {}
        self.workers = self.channels = 0
        self._config = config
        self._channels = channels
        self._keeper = channels.keeper
        self._store = channels.keeper.store

    async def end_the_lost(self) -> None:
        """End workers that cannot be spoken to: only when they are over may others take their places."""
        for key, kept in list(self._store.inherited.items()):
            if key.startswith("w") and kept.missing:
                log.error(
                    "worker %s of the last daemon is ended: not all of it was kept", kept.record.get("pid")
                )
                await _end(kept)
                self._store.take(key)
                self._store.forget(key)

    def take(self, service: Service) -> None:
        """Take everything else, in one go: nothing may happen to a worker before its channels are there."""
        self._each("i", self._edition)
        self._each("w", self._worker)
        self._each("k", partial(self._connection, service))
        self._each("c", self._channel)
        self._each("", _refuse_unknown)
        point("supervisor.store.taken-up")
        if self.editions:
            log.info(
                "taken up: %d models, %d workers, %d channels of %d clients",
                len(self.editions),
                self.workers,
                self.channels,
                len(self.connections),
            )

    def _each(self, kind: str, take: Callable[[str, Inherited], None]) -> None:
        """Take entries one by one; what cannot be taken is forgotten, and its descriptors are closed."""
        for key in [key for key in self._store.inherited if key.startswith(kind)]:
            kept = self._store.take(key)
            assert kept
            try:
                take(key, kept)
                point("supervisor.store.taking-up")
            except (_NotTaken, KeyError, TypeError, ValueError, OSError, SidecamlError) as error:
                log.error("%s of the last daemon is not taken up: %s", key, error)
                self._store.forget(key)
            finally:
                close_all(kept.fds.values())

    def _edition(self, key: str, kept: Inherited) -> None:
        _check_whole(kept)
        record = kept.record
        edition = Edition(keeping.decode(record["made"]["config"]), self._config, self._channels)
        self._keeper.known(edition, key)
        signature = signature_of(record["signature"])
        batching = _batching(record)
        edition.revive(kept.fds.pop("s"), record["made"], signature, batching, retiring=record["retiring"])
        self.editions[key] = edition

    def _worker(self, key: str, kept: Inherited) -> None:
        _check_whole(kept)
        record = kept.record
        edition = self._edition_of(record)
        if edition is None:
            # It ends when its socket is closed.
            raise _NotTaken("its model was not kept")
        index = _index(record, edition) if record["active"] else None
        signature = signature_of(record["signature"])
        sock = socket.socket(fileno=kept.fds.pop("c"))
        worker = WorkerProcess(edition.name, sock, kept.fds.pop("p"), int(record["pid"]))
        self._keeper.known(worker, key)
        edition.adopt(worker, signature, _batching(record), index)
        self.workers += 1

    def _connection(self, service: Service, key: str, kept: Inherited) -> None:
        if "s" not in kept.fds:
            raise _NotTaken("its socket was not kept")
        sock = socket.socket(fileno=kept.fds.pop("s"))
        connection = Connection.resumed(sock, service, kept.fds.pop("p", None))
        self._keeper.known(connection, key)
        self.connections[key] = connection

    def _channel(self, key: str, kept: Inherited) -> None:
        record = kept.record
        connection = self.connections.get(record["connection"])
        edition = self._edition_of(record)
        if connection is None:
            raise _NotTaken("its client was not kept")
        if kept.missing or edition is None:
            self._refuse(record, connection)
            raise _NotTaken("not all of it was kept")
        channel = Channel.resumed(record, kept.fds, connection)
        kept.fds.clear()
        self._channels.enter(channel)
        connection.channels[channel.number] = channel
        edition.instances[_index(record, edition)].join(channel)
        self._keeper.known(channel, key)
        self._keeper.owned(channel, connection)
        self.channels += 1
        if record["request"] is not None:
            connection.hand_out(channel, record["request"])

    def _edition_of(self, record: Mapping[str, Any]) -> Edition | None:
        # Before there were several instances, an entry was named after the one.
        return self.editions.get(record.get("edition") or record.get("instance", ""))

    def _refuse(self, record: Mapping[str, Any], connection: Connection) -> None:
        if record["request"] is None:
            connection.tell_gone(int(record["number"]), _lost(record))
            return
        # It was never told of the channel: it connects and asks again.
        del self.connections[record["connection"]]
        connection.drop()


def _batching(record: Mapping[str, Any]) -> Batching:
    # A daemon of an earlier version, whose workers retire, knew of none.
    return batching_of(record["batching"]) if "batching" in record else Batching()


def _refuse_unknown(_key: str, _kept: Inherited) -> None:
    raise _NotTaken("nothing is known of its kind")


def _index(record: Mapping[str, Any], edition: Edition) -> int:
    index = int(record.get("index", 0))
    if not 0 <= index < len(edition.instances):
        raise _NotTaken(f"its model has no instance {index}")
    return index


def _check_whole(kept: Inherited) -> None:
    if kept.missing:
        raise _NotTaken("not all of it was kept")


def _lost(record: Mapping[str, Any]) -> SidecamlError:
    return SidecamlError(
        ErrorCode.SERVER_GONE,
        f"the daemon was started anew and the channel on model {record['model']!r} could not be kept: "
        "open it again",
    )


async def _end(kept: Inherited) -> None:
    """End a worker by what is left of it, and wait until it is over."""
    pid = int(kept.record["pid"])
    pidfd = kept.fds.pop("p", None)
    close_all(kept.fds.values())
    kept.fds.clear()
    if pidfd is None:
        pidfd = _pidfd_of(pid)
    if pidfd is None:
        return
    try:
        async with time_limit(_DEATH_TIMEOUT_S):
            await _killed(pidfd)
    except TimeoutError:
        log.error("worker %d is not over %g s after SIGKILL", pid, _DEATH_TIMEOUT_S)
    finally:
        os.close(pidfd)


def _pidfd_of(pid: int) -> int | None:
    """Open a worker by its number, which may be another process's by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    with contextlib.suppress(OSError):
        if b"ipc_server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pidfd
    os.close(pidfd)
    return None


async def _killed(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(pidfd)

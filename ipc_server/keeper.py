"""What of the daemon's outlives the supervisor: said to systemd's store as it comes, changes and goes.

    i..  a model at one configuration, an edition: the status file of its instances
    w..  a worker that has loaded it, and which instance it serves: control socket, pidfd
    k..  a connection with channels: socket, pidfd
    c..  a channel, and which instance serves it: segment, doorbells, journal

`restore.py` reads the same records. Where there is no store nothing is kept, and everything ends with the
supervisor.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgpack

from ipc_server import __version__, settings
from ipc_server.abi import ABI_VERSION
from ipc_server.config_models import ModelConfig
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings
from ipc_server.systemd.notify import Notifier
from ipc_server.systemd.store import Store, key_of

if TYPE_CHECKING:
    from ipc_server.channel import Channel
    from ipc_server.control import Connection
    from ipc_server.edition import Edition
    from ipc_server.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# Places that channels leave to workers: a worker that is not kept dies with the supervisor.
SPARE = 16
_NUMBERS = "d0"
_OWN_FIELDS = tuple(
    item.name
    for item in dataclasses.fields(ModelConfig)
    if item.name not in {known.name for known in dataclasses.fields(Settings)}
)


class Keeper:
    """Keeps editions, workers, connections and channels, each for as long as it lives."""

    def __init__(self, store: Store) -> None:
        """Know the store."""
        self.store = store
        self._keys: dict[object, str] = {}
        # The connection of each channel that is kept.
        self._owners: dict[object, object] = {}
        numbers = store.take(_NUMBERS)
        # The highest number that a channel ever had.
        self.last_channel = int(numbers.record["channel"]) if numbers else 0

    @classmethod
    def of_nothing(cls) -> Keeper:
        """Give one that keeps nothing."""
        return cls(Store(Notifier(""), 0, {}))

    @property
    def is_there(self) -> bool:
        """Whether anything is kept."""
        return self.store.is_there

    def known(self, thing: object, key: str) -> None:
        """Note that a thing is kept already, by a predecessor, under a key."""
        self._keys[thing] = key

    # --- Editions and workers -------------------------------------------------------------------------------

    def edition_made(self, edition: Edition) -> None:
        """Keep an edition that has a worker; nothing happens to one that is kept."""
        self._keep("i", edition, edition_record(edition), {"s": edition.status.fd})

    def edition_changed(self, edition: Edition) -> None:
        """Note what is known of it now."""
        if edition in self._keys:
            self.store.change(self._keys[edition], **edition_record(edition))

    def worker_loaded(self, worker: WorkerProcess, edition: Edition) -> None:
        """Keep a worker that stands by."""
        if edition not in self._keys:
            return
        record = {
            "edition": self._keys[edition],
            "pid": worker.pid,
            "signature": worker.signature.describe(),
            "batching": worker.batching.record(),
            "active": False,
        }
        self._keep("w", worker, record, {"c": worker.control_fd, "p": worker.pidfd})

    def worker_begins(self, worker: WorkerProcess, index: int) -> None:
        """Note, before it is told, that a worker is the one that serves an instance."""
        if worker in self._keys:
            self.store.change(self._keys[worker], active=True, index=index)
            # If that fails, the next daemon finds out that it has begun, and ends it.
            self.store.save_or_log()

    # --- Connections and channels ---------------------------------------------------------------------------

    async def channel_opens(self, channel: Channel, connection: Connection, request: int) -> None:
        """Keep a channel that is about to be handed out as the reply to a request.

        LIMIT when the store is full, TIMEOUT when systemd does not take it, OSError for no room.
        """
        if not self.is_there:
            return
        self.last_channel = max(self.last_channel, channel.number)
        self.store.keep(_NUMBERS, {"channel": self.last_channel}, {})
        try:
            if connection not in self._keys:
                self._put("k", connection, {"pid": connection.pid}, connection.descriptors(), SPARE)
            self.owned(channel, connection)
            record = {**channel.record(), "connection": self._keys[connection], "request": request}
            record |= self._place_of(channel)
            key = key_of("c", channel.number)
            self.store.keep(key, record, channel.descriptors(), spare=SPARE)
            self._keys[channel] = key
            await self.store.settle()
        except BaseException:
            self.over(channel)
            raise

    def channel_answered(self, channel: Channel) -> None:
        """Note that the client has been told of its channel."""
        if channel in self._keys:
            self.store.change(self._keys[channel], request=None)

    def channel_changed(self, channel: Channel, **fields: Any) -> None:
        """Note what a successor must know of a channel."""
        if channel in self._keys:
            self.store.change(self._keys[channel], **fields)

    def channel_moves(self, channel: Channel, index: int) -> None:
        """Note, before it is told, which instance serves a channel from now on; OSError when it cannot be."""
        if channel in self._keys:
            self.store.change(self._keys[channel], index=index)
            self.store.save()

    def _place_of(self, channel: Channel) -> dict[str, Any]:
        if not channel.instance:
            return {"edition": "", "index": 0}
        return {"edition": self._keys.get(channel.instance.home, ""), "index": channel.instance.index}

    # --- Ends -----------------------------------------------------------------------------------------------

    def over(self, thing: object) -> None:
        """Keep something no longer."""
        key = self._keys.pop(thing, None)
        if key:
            self.store.forget(key)
        owner = self._owners.pop(thing, None)
        if owner and owner not in self._owners.values():
            self.over(owner)

    def owned(self, channel: Channel, connection: Connection) -> None:
        """Note that a connection is kept for the sake of a channel."""
        self._owners[channel] = connection

    def _keep(self, kind: str, thing: object, record: dict[str, Any], fds: Mapping[str, int]) -> None:
        if not self.is_there or thing in self._keys:
            return
        try:
            self._put(kind, thing, record, fds)
        except (SidecamlError, OSError) as error:
            log.error("%s of the daemon ends with it: %s", "a worker" if kind == "w" else "a model", error)

    def _put(
        self, kind: str, thing: object, record: dict[str, Any], fds: Mapping[str, int], spare: int = 0
    ) -> None:
        key = key_of(kind, self.store.number())
        self.store.keep(key, record, fds, spare=spare)
        self._keys[thing] = key


def edition_record(edition: Edition) -> dict[str, Any]:
    """Give what a successor must know of an edition."""
    return {
        "model": edition.name,
        "made": edition.made,
        "retiring": edition.retiring,
        "signature": edition.signature.describe(),
        "batching": edition.batching.record(),
    }


def made_of(config: ModelConfig) -> dict[str, Any]:
    """Give all that makes an edition what it is: two of the same are interchangeable.

    Files count by their size and time of change: one that was replaced is another model.
    """
    return {
        "abi": ABI_VERSION,
        "version": __version__,
        "config": encode(config),
        "files": [_stamp(path) for path in _files(config)],
    }


def is_current(edition: Edition, made: Mapping[str, Any]) -> bool:
    """Whether an edition is what one that is made now would be."""
    return not edition.retiring and _plain(edition.made) == _plain(made)


def encode(config: ModelConfig) -> dict[str, Any]:
    """Give what `decode` reads."""
    return settings.encode(config) | {name: getattr(config, name) for name in _OWN_FIELDS}


def decode(body: Mapping[str, Any]) -> ModelConfig:
    """Read a model's configuration out of a record."""
    common = settings.decode(body)
    given = {item.name: getattr(common, item.name) for item in dataclasses.fields(Settings)}
    return ModelConfig(**given, **{name: body[name] for name in _OWN_FIELDS if name in body})


def _plain(made: Mapping[str, Any]) -> bytes:
    # As it comes back from the store, where tuples are lists.
    data: bytes = msgpack.packb(made, use_bin_type=True)
    return data


def _files(config: Settings) -> list[Any]:
    own = [path for path in (config.path, config.weights) if path]
    return own + [path for step in config.steps for path in _files(step)]


def _stamp(path: Any) -> list[Any]:
    try:
        status = path.stat()
    except OSError:
        return [str(path), 0, 0]
    return [str(path), status.st_mtime_ns, status.st_size]

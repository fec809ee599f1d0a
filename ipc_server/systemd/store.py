"""What outlives the supervisor: descriptors in systemd's store, and a file there that says what each is.

An entry is something that the supervisor holds (a channel, a worker): a record, and descriptors by letters.
What is in the file counts: a descriptor that no entry names is removed, and an entry tells which of its own
are missing. Order, for what is new: `keep`, `settle`, use; for what ends: use it no more, then `forget`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from ipc_server.abi import ErrorCode
from ipc_server.crash_points import point
from ipc_server.errors import SidecamlError
from ipc_server.messages import close_all
from ipc_server.systemd import listen
from ipc_server.systemd.notify import Notifier
from ipc_server.systemd.statefile import StateFile

log = logging.getLogger(__name__)

FORMAT = 1
STATE_NAME = "state"
BARRIER_TIMEOUT_S = 5.0
# Their names come in one variable of the environment, of at most 128 KiB: with more the daemon could not be
# started any more.
LARGEST_STORE = 8192
LONGEST_NAME = 14
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(slots=True)
class Entry:
    """What is kept under one key."""

    record: dict[str, Any]
    # Names in the store, by letters.
    names: dict[str, str]
    packed: bytes = b""


@dataclass(slots=True)
class Inherited:
    """What a predecessor kept; the descriptors are the taker's."""

    record: dict[str, Any]
    fds: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


class Store:
    """The store and its state file; where there is none, everything kept is forgotten."""

    def __init__(self, notifier: Notifier, most: int, handed: dict[str, int]) -> None:
        """Read what a predecessor left in `handed`, whose descriptors become ours."""
        self._notifier = notifier
        self._most = min(most, LARGEST_STORE) if notifier.is_heard else 0
        self._entries: dict[str, Entry] = {}
        # Names of descriptors that are to be removed as soon as the file does not name them any more.
        self._leaving: list[str] = []
        self._number = 0
        self._saving: asyncio.Handle | None = None
        # Of a predecessor, by key, until somebody takes them.
        self.inherited: dict[str, Inherited] = {}
        # Descriptors that no store ever kept: systemd's own sockets.
        self.strangers: dict[str, int] = {}
        self._file = self._open(handed)

    @classmethod
    def of(cls, environment: MutableMapping[str, str], notifier: Notifier) -> Store:
        """Take descriptors and the store's size from the environment, which children do not get to see."""
        handed = listen.take(environment)
        size = environment.pop("FDSTORE", "")
        return cls(notifier, int(size) if size.isdecimal() else 0, handed)

    @property
    def is_there(self) -> bool:
        """Whether anything outlives this process."""
        return self._most > 0

    def number(self) -> int:
        """Give a number that was never given before, by a predecessor neither."""
        self._number += 1
        return self._number

    def keep(self, key: str, record: dict[str, Any], fds: Mapping[str, int], *, spare: int = 0) -> None:
        """Keep something; LIMIT when less than `spare` places would be left, OSError from the system."""
        if not self.is_there:
            return
        self._check_room(len(fds) + spare)
        entry = Entry(record, {letter: f"{key}.{letter}" for letter in fds})
        if not set(self._leaving).isdisjoint(entry.names.values()):
            # A name that is used again: what had it before must be gone.
            self.save()
        self._entries[key] = entry
        try:
            for letter, fd in fds.items():
                self._put(entry.names[letter], fd)
        except BaseException:
            self.forget(key)
            raise
        point("supervisor.store.stored")
        self._pack(key, entry)

    def take(self, key: str) -> Inherited | None:
        """Take what a predecessor kept: it stays kept under its key until it is forgotten."""
        return self.inherited.pop(key, None)

    def change(self, key: str, **fields: Any) -> None:
        """Change fields of a record; nothing happens for what is not kept."""
        entry = self._entries.get(key)
        if entry:
            entry.record.update(fields)
            self._pack(key, entry)

    def forget(self, key: str) -> None:
        """Keep something no longer; nothing happens for what is not kept."""
        entry = self._entries.pop(key, None)
        if not entry:
            return
        self._leaving += entry.names.values()
        self._save_soon()

    async def settle(self) -> None:
        """Wait until everything kept is safe; TIMEOUT when systemd does not say so, OSError for no room."""
        if not self.is_there:
            return
        self.save()
        if not await self._notifier.barrier(BARRIER_TIMEOUT_S):
            raise SidecamlError(
                ErrorCode.TIMEOUT,
                f"systemd did not take descriptors within {BARRIER_TIMEOUT_S:g} s: try again",
            )
        point("supervisor.store.settled")

    def save(self) -> None:
        """Write the state file, if anything changed."""
        if self._saving:
            self._saving.cancel()
            self._saving = None
        if not self._file:
            return
        self._file.write(self._document())
        point("supervisor.store.saved")
        # Only now: the file must never name what is not there. What cannot be said stays for the next time.
        self._leaving = [name for name in self._leaving if not self._remove(name)]

    def close(self) -> None:
        """Save, and close what is ours alone; systemd keeps its copies."""
        if self._saving:
            self.save_or_log()
        for inherited in self.inherited.values():
            close_all(inherited.fds.values())
        close_all(self.strangers.values())
        if self._file:
            self._file.close()
            self._file = None

    def _open(self, handed: dict[str, int]) -> StateFile | None:
        state_fd = handed.pop(STATE_NAME, None)
        file = None if state_fd is None else StateFile(state_fd)
        if file:
            self._inherit(file.read(), handed)
        self._sort_out(handed)
        if not self.is_there:
            if file:
                file.close()
            return None
        if not file:
            file = StateFile.create()
            self._put(STATE_NAME, file.fd)
        return file

    def _inherit(self, data: bytes | None, handed: dict[str, int]) -> None:
        """Match what the state file names with what came."""
        try:
            unpacker = msgpack.Unpacker(raw=False)
            unpacker.feed(data or b"")
            head, *entries = unpacker
            if head["format"] != FORMAT:
                raise ValueError(f"its format is {head['format']!r} and {FORMAT} is known")
            self._number = int(head["number"])
            for key, record, names in entries:
                self._inherit_one(str(key), dict(record), dict(names), handed)
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            log.error(
                "what the daemon before this one left cannot be read (%s): its channels are over", error
            )

    def _inherit_one(
        self, key: str, record: dict[str, Any], names: dict[str, str], handed: dict[str, int]
    ) -> None:
        inherited = Inherited(record)
        for letter, name in names.items():
            if name in handed:
                inherited.fds[letter] = handed.pop(name)
            else:
                inherited.missing.append(letter)
        self.inherited[key] = inherited
        entry = Entry(record, names)
        self._entries[key] = entry
        self._pack(key, entry)

    def _sort_out(self, handed: dict[str, int]) -> None:
        """Remove what is in the store and in no entry."""
        for name, fd in handed.items():
            if _is_ours(name):
                self._remove(name)
                os.close(fd)
            else:
                self.strangers[name] = fd

    def _check_room(self, wanted: int) -> None:
        held = 1 + len(self._leaving) + sum(len(entry.names) for entry in self._entries.values())
        if held + wanted > self._most:
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"systemd keeps {held} descriptors for the daemon, {wanted} more are needed, and "
                f"FileDescriptorStoreMax is {self._most}: close channels, or raise it in the unit",
            )

    def _put(self, name: str, fd: int) -> None:
        # Without polling: only we know when something is over.
        self._notifier.say("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", fds=[fd])

    def _remove(self, name: str) -> bool:
        return self._notifier.say("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _pack(self, key: str, entry: Entry) -> None:
        entry.packed = msgpack.packb([key, entry.record, entry.names], use_bin_type=True)
        self._save_soon()

    def _save_soon(self) -> None:
        if self._saving or not self.is_there:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._saving = loop.call_soon(self.save_or_log)

    def save_or_log(self) -> None:
        """Do the same where nobody can do anything about a file that cannot be written."""
        try:
            self.save()
        except OSError as error:
            log.error("the state of the daemon cannot be kept for its successor: %s", error.strerror)

    def _document(self) -> bytes:
        head = msgpack.packb({"format": FORMAT, "number": self._number})
        return b"".join([head, *(entry.packed for entry in self._entries.values())])


def key_of(kind: str, number: int) -> str:
    """Give the key of the thing of that kind and number: short, as names of descriptors need it."""
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return kind + (digits or "0")


def _is_ours(name: str) -> bool:
    key, dot, letter = name.partition(".")
    return name == STATE_NAME or (
        bool(dot) and len(letter) == 1 and key[1:].isalnum() and len(name) <= LONGEST_NAME
    )

"""Who may connect, and whose tensors are used in place: by what the kernel says of a client, nothing else."""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ipc_server.abi import ErrorCode
from ipc_server.config_values import Gather, absent_or, file_mode, one_of, refuse_unknown
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown

SEGMENTS = ("posix", "sealed")
LARGEST_ID = 2**32 - 2

_ROOT = 0
_SO_PEERGROUPS = 59
_PEER = struct.Struct("iII")
_GROUP_BYTES = 4
# What Python's getsockopt can take, and what Linux can give (NGROUPS_MAX).
_PYTHON_MOST_BYTES = 1024
_MOST_GROUPS = 65536


@dataclass(frozen=True)
class Account:
    """A user or a group: what it was called in the configuration, and its number."""

    name: str
    number: int

    def __str__(self) -> str:
        """Give the name."""
        return self.name


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a socket, as of its connecting."""

    pid: int
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True)
class Access:
    """[access] of the configuration."""

    users: tuple[Account, ...] = ()
    groups: tuple[Account, ...] = ()
    trusted_users: tuple[Account, ...] = ()
    trusted_groups: tuple[Account, ...] = ()
    segments: str = "posix"
    socket_mode: str = "0600"
    socket_group: Account | None = None

    @property
    def mode(self) -> int:
        """The socket's mode as a number."""
        return int(self.socket_mode, 8)

    @property
    def group(self) -> int | None:
        """The socket's group; None: that of the daemon."""
        return self.socket_group.number if self.socket_group else None

    def check(self, peer: Peer) -> None:
        """Raise DENIED unless this client may connect."""
        if peer.uid == unknown_uid():
            raise SidecamlError(
                ErrorCode.DENIED,
                f"the client's user has no number in the daemon's user namespace: it shows as {peer.uid}, "
                "as every such user does, and is refused because nobody can tell them apart: run the daemon "
                "in the machine's own user namespace (under systemd: without PrivateUsers), or map the user "
                "into it",
            )
        if not (self.trusts(peer) or _is_among(peer, self.users, self.groups)):
            raise SidecamlError(
                ErrorCode.DENIED,
                # By its number: to look its name up may take as long as a server of names wants.
                f"the user with uid {peer.uid} may not use this daemon: add the user to `users`, or one of "
                "its groups to `groups`, in [access] of the daemon's configuration",
            )

    def trusts(self, peer: Peer) -> bool:
        """Whether the tensors of this client may be used where they lie, where it can change them."""
        return peer.uid in (_ROOT, os.geteuid()) or _is_among(peer, self.trusted_users, self.trusted_groups)

    def seals(self, peer_uid: int) -> bool:
        """Whether the size of this user's segments is sealed."""
        return self.segments == "sealed" or peer_uid != os.geteuid()


def peer_of(sock: socket.socket) -> Peer:
    """Ask the kernel who connected."""
    pid, uid, gid = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return Peer(pid, uid, frozenset((gid, *_peer_groups(sock))))


def unknown_uid(namespace: Path = Path("/proc/self/uid_map")) -> int | None:
    """Give the uid that stands for every user without one here; None where every user has one."""
    spans = [[int(number) for number in line.split()] for line in namespace.read_text("ascii").splitlines()]
    if sum(length for _, _, length in spans) > LARGEST_ID:
        return None
    return int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))


def read_access(gather: Gather, table: Mapping[str, Any]) -> Access:
    """Take [access]; ConfigError for users and groups that this machine does not know."""
    refuse_unknown(table, {item.name for item in fields(Access)}, f"{gather.file}: [access]")

    def value(name: str, check: Callable[[Any], Any], default: object = ()) -> Any:
        return gather.value(f"access.{name}", None, table, default, check)

    return Access(
        users=value("users", _accounts(_user)),
        groups=value("groups", _accounts(_group)),
        trusted_users=value("trusted_users", _accounts(_user)),
        trusted_groups=value("trusted_groups", _accounts(_group)),
        segments=value("segments", one_of(SEGMENTS), Access.segments),
        socket_mode=value("socket_mode", file_mode, Access.socket_mode),
        socket_group=value("socket_group", absent_or(_group), None),
    )


def _is_among(peer: Peer, users: tuple[Account, ...], groups: tuple[Account, ...]) -> bool:
    return any(user.number == peer.uid for user in users) or any(
        group.number in peer.groups for group in groups
    )


def _accounts(find: Callable[[object], Account]) -> Callable[[object], tuple[Account, ...]]:
    def check(value: object) -> tuple[Account, ...]:
        # A variable of the environment is one text.
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError("a list of names or numbers")
        return tuple(find(item.strip() if isinstance(item, str) else item) for item in items)

    return check


def _user(value: object) -> Account:
    return _account(value, "user", lambda name: pwd.getpwnam(name).pw_uid)


def _group(value: object) -> Account:
    return _account(value, "group", lambda name: grp.getgrnam(name).gr_gid)


def _account(value: object, kind: str, number_of: Callable[[str], int]) -> Account:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_ID:
        return Account(str(value), value)
    if not isinstance(value, str):
        raise ValueError(f"the name or number of a {kind}, not {shown(value)}")
    if value.isascii() and value.isdigit() and int(value) <= LARGEST_ID:
        return Account(value, int(value))
    try:
        return Account(value, number_of(value))
    except (KeyError, ValueError):
        raise ValueError(f"a {kind} that this machine knows: there is no {kind} {shown(value)}") from None


def _peer_groups(sock: socket.socket) -> tuple[int, ...]:
    """Give the supplementary groups of the client; none from a kernel before Linux 4.13."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PYTHON_MOST_BYTES)
    except OSError as error:
        if error.errno == errno.ERANGE:
            return _many_groups(sock)
        if error.errno in (errno.ENOPROTOOPT, errno.ENODATA):
            return ()
        raise
    return struct.unpack(f"{len(data) // _GROUP_BYTES}I", data)


def _many_groups(sock: socket.socket) -> tuple[int, ...]:
    """Do the same where Python has no room for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    groups = (ctypes.c_uint32 * _MOST_GROUPS)()
    size = ctypes.c_uint32(ctypes.sizeof(groups))
    if libc.getsockopt(
        sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, ctypes.byref(groups), ctypes.byref(size)
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return tuple(groups[: size.value // _GROUP_BYTES])

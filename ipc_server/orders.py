"""The fields of what the supervisor asks of a worker, each checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ipc_server import messages
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

T = TypeVar("T")


def field(body: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Take a field of a request, or of a map in one; PROTOCOL when it is missing or something else."""
    # Of what came in a list nobody has looked at the type.
    if not isinstance(body, Mapping):
        raise bad(f"a map with {name!r} must be there, got {messages.shown(body)}")
    value = body.get(name)
    if not isinstance(value, kind):
        raise bad(f"{name!r} must be {kind.__name__}, got {messages.shown(value)}")
    return value


def optional(body: Mapping[str, Any], name: str, default: T) -> T:
    """Take a field that may be missing, of the type that its default has."""
    return field(body, name, type(default)) if name in body else default


def texts(values: list[Any], name: str) -> tuple[str, ...]:
    """Take a list of strings."""
    if not all(isinstance(value, str) for value in values):
        raise bad(f"{name!r} must hold strings, got {messages.shown(values)}")
    return tuple(values)


def names(table: Mapping[str, Any], name: str) -> dict[str, str]:
    """Take a map from names to names."""
    if not all(isinstance(value, str) for value in table.values()):
        raise bad(f"{name!r} must map names to names, got {messages.shown(table)}")
    return dict(table)


def count(body: Mapping[str, Any], name: str, most: int = 2**64 - 1) -> int:
    """Take a field that counts something; PROTOCOL when it does not, or exceeds `most`."""
    value = field(body, name, int)
    if not messages.is_count(value) or value > most:
        raise bad(f"{name!r} must be 0 to {most}, got {messages.shown(value)}")
    return value


def numbers(body: Mapping[str, Any], name: str, *, least: int = 0) -> tuple[int, ...]:
    """Take a list of whole numbers that may be missing, none less than `least`."""
    found: list[Any] = optional(body, name, [])
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= least for value in found):
        raise bad(f"{name!r} must hold whole numbers from {least} on, got {messages.shown(found)}")
    return tuple(found)


def sizes(body: Mapping[str, Any], name: str) -> dict[str, tuple[int, ...]]:
    """Take a map from names to lists of sizes; it may be missing."""
    found: dict[Any, Any] = optional(body, name, {})
    return {str(key): numbers(found, key) for key in found}


def descriptors(message: messages.Message, wanted: int) -> list[int]:
    """Take the descriptors of a request; PROTOCOL when there are more or fewer, LIMIT when some were lost."""
    if message.incomplete:
        raise SidecamlError(
            ErrorCode.LIMIT,
            f"the worker can hold no more descriptors, of which a channel takes {wanted}: close channels, or "
            "raise the daemon's limit (LimitNOFILE=, ulimit -n)",
        )
    if len(message.fds) != wanted:
        raise bad(f"{wanted} descriptors must come with it, {len(message.fds)} did")
    return message.fds


def bad(what: str) -> SidecamlError:
    """Say what is wrong with a request."""
    return SidecamlError(ErrorCode.PROTOCOL, f"a request of the supervisor: {what}")

"""The daemon's settings: flag before environment before file before default, each value with its source."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipc_server.abi import MAX_SLOTS, MOST_ATTEMPTS
from ipc_server.access import Access, read_access
from ipc_server.config_models import MOST_STANDBYS, Defaults, ModelConfig, read_models, text_of_value
from ipc_server.config_values import (
    ConfigError,
    Gather,
    one_of,
    path_text,
    refuse_unknown,
    seconds,
    table_of,
    whole,
)

_KNOWN = {"socket", "log_level", "quarantine", "quarantine_max_bytes", "limits", "access", "models"}

LOG_LEVELS = ("debug", "info", "warning", "error")
# What sockaddr_un holds, less the NUL at its end.
LONGEST_SOCKET_PATH = 107

_SMALLEST_LIMIT = {"standbys": 0}
_LARGEST_LIMIT = {"max_slots": MAX_SLOTS, "standbys": MOST_STANDBYS, "max_attempts": MOST_ATTEMPTS}

QUARANTINE_MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Limits:
    """What one client, or all of them, may take."""

    max_connections: int = 256
    max_connections_per_user: int = 192
    max_channels: int = 1024
    max_channels_per_connection: int = 64
    max_channels_per_user: int = 768
    max_bytes_per_user: int = 16 * 2**30
    max_opens_per_second: int = 200
    max_slots: int = 64
    # Workers of each model that have loaded it and wait for the one that serves to die.
    standbys: int = 1
    max_segment_bytes: int = 4 * 2**30
    hello_timeout_s: float = 10.0
    open_timeout_s: float = 30.0
    send_timeout_s: float = 10.0
    load_timeout_s: float = 600.0
    shutdown_timeout_s: float = 10.0
    # A worker that neither runs a request nor answers for so long, or is stopped, is ended.
    worker_timeout_s: float = 10.0
    # How long the loads of a model's instances must stay apart until channels are moved.
    rebalance_after_s: float = 1.5
    # How many workers a request may end before it is given up, and how many such requests a channel may have.
    max_attempts: int = 2
    max_poisoned_per_channel: int = 3


@dataclass(frozen=True)
class Config:
    """Everything `sidecaml serve` needs to know."""

    socket: Path
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    # Where the inputs of requests are kept that ended their workers; None where they are not.
    quarantine: Path | None = None
    quarantine_max_bytes: int = QUARANTINE_MAX_BYTES
    sources: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Show every setting as `key = value`, with its source."""
        general = ("socket", "log_level", "quarantine", "quarantine_max_bytes")
        settings: dict[str, Any] = {name: getattr(self, name) for name in general}
        settings |= {f"limits.{name}": value for name, value in dataclasses.asdict(self.limits).items()}
        settings |= {
            f"access.{item.name}": getattr(self.access, item.name) for item in dataclasses.fields(Access)
        }
        for model in self.models.values():
            settings |= {f"models.{model.name}.{name}": value for name, value in model.settings().items()}
        texts = {name: f"{name} = {text_of_value(value)}" for name, value in settings.items()}
        width = max(map(len, texts.values()))
        return [f"{text:{width}}  # {self.sources[name]}" for name, text in texts.items()]


def load(
    file: Path | None = None,
    *,
    socket: str | None = None,
    log_level: str | None = None,
    models: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """Gather the settings from the arguments of the command line, the environment and the file.

    Raises ConfigError when one of them cannot be used.
    """
    document = _read(file) if file else {}
    gather = Gather(environment, file)
    refuse_unknown(document, _KNOWN, gather.file)
    chosen_socket = gather.value("socket", socket, document, default_socket(environment), _socket_path)
    chosen_level = gather.value("log_level", log_level, document, "info", one_of(LOG_LEVELS))
    quarantine = _quarantine(gather, document, environment)
    most_kept = gather.value("quarantine_max_bytes", None, document, QUARANTINE_MAX_BYTES, whole(0, 2**48))
    limits = _limits(gather, table_of(document, "limits", gather.file))
    access = read_access(gather, table_of(document, "access", gather.file))
    tables = table_of(document, "models", gather.file)
    chosen_models = read_models(gather, tables, models, Defaults(limits.max_slots, limits.standbys))
    return Config(
        chosen_socket,
        chosen_level,
        limits,
        access,
        chosen_models,
        quarantine,
        most_kept,
        gather.sources,
    )


def default_socket(environment: Mapping[str, str] = os.environ) -> str:
    """Give the socket's path when nobody says one: the user's runtime folder, else the system's."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    return f"{runtime}/sidecaml.sock" if runtime else "/run/sidecaml/sidecaml.sock"


def default_quarantine(environment: Mapping[str, str] = os.environ) -> str:
    """Give the folder when nobody says one: where the service manager or the user keeps such things."""
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return f"{given}/quarantine"
    home = environment.get("HOME")
    state = environment.get("XDG_STATE_HOME") or (f"{home}/.local/state" if home else "")
    return f"{state}/sidecaml/quarantine" if state else ""


def client_socket(flag: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Give the socket that a command talks to."""
    path: Path = Gather(environment).value("socket", flag, {}, default_socket(environment), _socket_path)
    return path


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except OSError as error:
        raise ConfigError(f"file {file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"file {file}: not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"file {file}: not TOML: it is nested too deeply") from error


def _quarantine(gather: Gather, document: Mapping[str, Any], environment: Mapping[str, str]) -> Path | None:
    def folder(value: object) -> Path | None:
        return None if value == "" else gather.base / path_text(value)

    chosen: Path | None = gather.value("quarantine", None, document, default_quarantine(environment), folder)
    return chosen


def _limits(gather: Gather, table: Mapping[str, Any]) -> Limits:
    fields = dataclasses.fields(Limits)
    refuse_unknown(table, {item.name for item in fields}, f"{gather.file}: [limits]")
    chosen = {}
    for item in fields:
        least, most = _SMALLEST_LIMIT.get(item.name, 1), _LARGEST_LIMIT.get(item.name, 2**48)
        check = seconds if item.name.endswith("_s") else whole(least, most)
        chosen[item.name] = gather.value(f"limits.{item.name}", None, table, item.default, check)
    return Limits(**chosen)


def _socket_path(value: object) -> Path:
    path = path_text(value)
    size = len(os.fsencode(path))
    if size > LONGEST_SOCKET_PATH:
        raise ValueError(
            f"a path of at most {LONGEST_SOCKET_PATH} bytes, as Unix sockets have it, not {size}"
        )
    return path

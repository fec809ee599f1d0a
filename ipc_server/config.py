"""The daemon's settings: flag before environment before file before default, each value with its source."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipc_server.abi import MAX_SLOTS
from ipc_server.config_models import ModelConfig, read_models, text_of_value
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

LOG_LEVELS = ("debug", "info", "warning", "error")
# What sockaddr_un holds, less the NUL at its end.
LONGEST_SOCKET_PATH = 107

_LARGEST_LIMIT = {"max_slots": MAX_SLOTS}


@dataclass(frozen=True)
class Limits:
    """What one client, or all of them, may take."""

    max_connections: int = 256
    max_channels: int = 1024
    max_channels_per_connection: int = 64
    max_slots: int = 64
    max_segment_bytes: int = 4 * 2**30
    hello_timeout_s: float = 10.0
    open_timeout_s: float = 30.0
    send_timeout_s: float = 10.0
    load_timeout_s: float = 600.0
    shutdown_timeout_s: float = 10.0


@dataclass(frozen=True)
class Config:
    """Everything `sidecaml serve` needs to know."""

    socket: Path
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)
    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Show every setting as `key = value`, with its source."""
        settings: dict[str, Any] = {"socket": self.socket, "log_level": self.log_level}
        settings |= {f"limits.{name}": value for name, value in dataclasses.asdict(self.limits).items()}
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
    refuse_unknown(document, {"socket", "log_level", "limits", "models"}, gather.file)
    chosen_socket = gather.value("socket", socket, document, default_socket(environment), _socket_path)
    chosen_level = gather.value("log_level", log_level, document, "info", one_of(LOG_LEVELS))
    limits = _limits(gather, table_of(document, "limits", gather.file))
    chosen_models = read_models(gather, table_of(document, "models", gather.file), models, limits.max_slots)
    return Config(chosen_socket, chosen_level, limits, chosen_models, gather.sources)


def default_socket(environment: Mapping[str, str] = os.environ) -> str:
    """Give the socket's path when nobody says one: the user's runtime folder, else the system's."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    return f"{runtime}/sidecaml.sock" if runtime else "/run/sidecaml/sidecaml.sock"


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


def _limits(gather: Gather, table: Mapping[str, Any]) -> Limits:
    fields = dataclasses.fields(Limits)
    refuse_unknown(table, {item.name for item in fields}, f"{gather.file}: [limits]")
    chosen = {}
    for item in fields:
        check = seconds if item.name.endswith("_s") else whole(1, _LARGEST_LIMIT.get(item.name, 2**48))
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

"""The daemon's settings: flag before environment before file before default, each value with its source."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipc_server.abi import MAX_SLOTS
from ipc_server.messages import shown
from ipc_server.suggest import hint

POLICIES = ("spin", "adaptive", "block")
ENGINES = ("onnx",)
LANES = ("auto", "native", "python")
LOG_LEVELS = ("debug", "info", "warning", "error")
# What sockaddr_un holds, less the NUL at its end.
LONGEST_SOCKET_PATH = 107
LARGEST_THREADS = 1024
LONGEST_WAIT_S = 86400.0

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LARGEST_LIMIT = {"max_slots": MAX_SLOTS}
_FLAG = "command line"
_DEFAULT = "default"


class ConfigError(Exception):
    """A setting that cannot be used: says which, where it came from, what was expected and what came."""


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
class ModelConfig:
    """One model to serve."""

    name: str
    path: Path
    engine: str = "onnx"
    threads: int = 1
    policy: str = "adaptive"
    lane: str = "auto"
    max_slots: int = Limits.max_slots


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
            items = dataclasses.asdict(model)
            del items["name"]
            settings |= {f"models.{model.name}.{name}": value for name, value in items.items()}
        width = max(len(f"{name} = {value}") for name, value in settings.items())
        return [f"{f'{name} = {value}':{width}}  # {self.sources[name]}" for name, value in settings.items()]


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
    gather = _Gather(environment, file)
    _refuse_unknown(document, {"socket", "log_level", "limits", "models"}, gather.file)
    chosen_socket = gather.value("socket", socket, document, default_socket(environment), _socket_path)
    chosen_level = gather.value("log_level", log_level, document, "info", _one_of(LOG_LEVELS))
    limits = _limits(gather, _table(document, "limits", gather.file))
    chosen_models = _models(gather, _table(document, "models", gather.file), models, limits)
    return Config(chosen_socket, chosen_level, limits, chosen_models, gather.sources)


def default_socket(environment: Mapping[str, str] = os.environ) -> str:
    """Give the socket's path when nobody says one: the user's runtime folder, else the system's."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    return f"{runtime}/sidecaml.sock" if runtime else "/run/sidecaml/sidecaml.sock"


def client_socket(flag: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Give the socket that a command talks to."""
    path: Path = _Gather(environment).value("socket", flag, {}, default_socket(environment), _socket_path)
    return path


class _Gather:
    """Takes each value from the first of its sources that has it, checks it, and remembers the source."""

    def __init__(self, environment: Mapping[str, str], file: Path | None = None) -> None:
        self.sources: dict[str, str] = {}
        self.file = f"file {file}"
        # Paths in a file are relative to the file.
        self.base = file.resolve().parent if file else Path.cwd()
        self._environment = environment

    def value(
        self, key: str, flag: object, table: Mapping[str, Any], default: object, check: Callable[[Any], Any]
    ) -> Any:
        name = key.rpartition(".")[2]
        variable = f"SIDECAML_{name.upper()}"
        if flag is not None:
            return self.take(key, flag, _FLAG, check)
        # A model's own settings have no variable: it would be the same one for every model.
        text = None if key.startswith("models.") else self._environment.get(variable)
        if text:
            found = _number(text) if isinstance(default, int | float) else text
            return self.take(key, found, f"environment {variable}", check)
        if name in table:
            return self.take(key, table[name], self.file, check)
        return self.take(key, default, _DEFAULT, check)

    def take(self, key: str, value: object, source: str, check: Callable[[Any], Any]) -> Any:
        try:
            checked = check(value)
        except ValueError as error:
            raise ConfigError(f"{source}: {key}: expected {error}, got {shown(value, 160)}") from None
        self.sources[key] = source
        return checked

    def inherit(self, key: str, general: str) -> None:
        """Name the general setting as the source of a value that nobody gave for this one."""
        if self.sources[key] == _DEFAULT:
            self.sources[key] = general


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


def _table(document: Mapping[str, Any], key: str, source: str, parent: str = "") -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{source}: {parent}{key}: expected a table, [{parent}{key}], got {shown(table)}")
    return table


def _refuse_unknown(table: Mapping[str, Any], known: set[str], source: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{source}: unknown key {shown(key)}: {hint(key, known)}")


def _limits(gather: _Gather, table: Mapping[str, Any]) -> Limits:
    fields = dataclasses.fields(Limits)
    _refuse_unknown(table, {item.name for item in fields}, f"{gather.file}: [limits]")
    chosen = {}
    for item in fields:
        check = _seconds if item.name.endswith("_s") else _whole(1, _LARGEST_LIMIT.get(item.name, 2**48))
        chosen[item.name] = gather.value(f"limits.{item.name}", None, table, item.default, check)
    return Limits(**chosen)


def _models(
    gather: _Gather, tables: Mapping[str, Any], flags: Sequence[str], limits: Limits
) -> dict[str, ModelConfig]:
    named = _named_paths(flags)
    for name in tables:
        _check_model_name(name, gather.file)
    chosen = {
        name: _model(gather, name, _table(tables, name, gather.file, "models."), limits, named.get(name))
        for name in sorted({*tables, *named})
    }
    if not chosen:
        raise ConfigError(
            "no model to serve: give --model NAME=PATH, or a file with [models.NAME] and its path"
        )
    return chosen


def _named_paths(flags: Sequence[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for flag in flags:
        name, separator, path = flag.partition("=")
        if not separator or not path:
            raise ConfigError(f"{_FLAG}: --model: expected NAME=PATH, got {shown(flag)}")
        _check_model_name(name, f"{_FLAG}: --model")
        if name in named:
            raise ConfigError(f"{_FLAG}: --model: {shown(name)} is given twice")
        named[name] = Path.cwd() / path
    return named


def _model(
    gather: _Gather, name: str, table: Mapping[str, Any], limits: Limits, named: Path | None
) -> ModelConfig:
    key = f"models.{name}"
    known = {item.name for item in dataclasses.fields(ModelConfig)} - {"name"}
    _refuse_unknown(table, known, f"{gather.file}: [{key}]")
    if named is None and "path" not in table:
        raise ConfigError(f"{gather.file}: [{key}]: the model's file is missing: add path = '...'")
    model = ModelConfig(
        name=name,
        path=gather.base / gather.value(f"{key}.path", named and str(named), table, "", _path),
        engine=gather.value(f"{key}.engine", None, table, ModelConfig.engine, _one_of(ENGINES)),
        threads=gather.value(f"{key}.threads", None, table, ModelConfig.threads, _whole(1, LARGEST_THREADS)),
        policy=gather.value(f"{key}.policy", None, table, ModelConfig.policy, _one_of(POLICIES)),
        lane=gather.value(f"{key}.lane", None, table, ModelConfig.lane, _one_of(LANES)),
        max_slots=gather.value(f"{key}.max_slots", None, table, limits.max_slots, _whole(1, MAX_SLOTS)),
    )
    gather.inherit(f"{key}.max_slots", "limits.max_slots")
    return model


def _check_model_name(name: str, source: str) -> None:
    if not _MODEL_NAME.fullmatch(name):
        raise ConfigError(
            f"{source}: a model's name: expected 1 to 63 letters, digits, '.', '_' and '-', "
            f"beginning with a letter or digit, got {shown(name)}"
        )


def _socket_path(value: object) -> Path:
    path = _path(value)
    size = len(os.fsencode(path))
    if size > LONGEST_SOCKET_PATH:
        raise ValueError(
            f"a path of at most {LONGEST_SOCKET_PATH} bytes, as Unix sockets have it, not {size}"
        )
    return path


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a path")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("a path in UTF-8, as control messages carry it") from None
    return Path(value)


def _one_of(choices: Sequence[str]) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return check


def _number(text: str) -> object:
    """Read a variable of the environment as TOML would read it; what is no number stays a text."""
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", text) else text


def _whole(least: int, most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LONGEST_WAIT_S:
        raise ValueError(f"seconds, more than 0 and at most {LONGEST_WAIT_S:g}")
    return float(value)

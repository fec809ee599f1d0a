"""How a setting is found and checked: the first of its sources that has it gives it, and is remembered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipc_server.messages import shown
from ipc_server.suggest import hint

FLAG = "command line"
DEFAULT = "default"
LONGEST_WAIT_S = 86400.0
_SIZES_EXAMPLE = "{ T = 512, rate = [8000, 16000] }"
_MOST_SIZES = 16
_LARGEST_SIZE = 2**31 - 1


class ConfigError(Exception):
    """A setting that cannot be used: says which, where it came from, what was expected and what came."""


class Gather:
    """Takes each value from the first of its sources that has it, checks it, and remembers the source."""

    def __init__(self, environment: Mapping[str, str], file: Path | None = None) -> None:
        """Look into these, besides the command line and the defaults."""
        self.sources: dict[str, str] = {}
        self.file = f"file {file}"
        # Paths in a file are relative to the file.
        self.base = file.resolve().parent if file else Path.cwd()
        self._environment = environment

    def value(
        self, key: str, flag: object, table: Mapping[str, Any], default: object, check: Callable[[Any], Any]
    ) -> Any:
        """Take the value of a key; ConfigError when it cannot be used."""
        name = key.rpartition(".")[2]
        variable = f"SIDECAML_{name.upper()}"
        if flag is not None:
            return self.take(key, flag, FLAG, check)
        # A model's own settings have no variable: it would be the same one for every model.
        text = None if key.startswith("models.") else self._environment.get(variable)
        if text:
            found = number_of(text) if isinstance(default, int | float) else text
            return self.take(key, found, f"environment {variable}", check)
        if name in table:
            return self.take(key, table[name], self.file, check)
        return self.take(key, default, DEFAULT, check)

    def take(self, key: str, value: object, source: str, check: Callable[[Any], Any]) -> Any:
        """Take the value that this source gives."""
        try:
            checked = check(value)
        except ValueError as error:
            raise ConfigError(f"{source}: {key}: expected {error}, got {shown(value, 160)}") from None
        self.sources[key] = source
        return checked

    def inherit(self, key: str, general: str) -> None:
        """Name the general setting as the source of a value that nobody gave for this one."""
        if self.sources[key] == DEFAULT:
            self.sources[key] = general


def table_of(document: Mapping[str, Any], key: str, source: str, parent: str = "") -> Mapping[str, Any]:
    """Take a table of the file; an empty one when there is none."""
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{source}: {parent}{key}: expected a table, [{parent}{key}], got {shown(table)}")
    return table


def refuse_unknown(table: Mapping[str, Any], known: set[str], source: str) -> None:
    """Refuse a key that nobody knows, with the nearest one that somebody does."""
    for key in table:
        if key not in known:
            raise ConfigError(f"{source}: unknown key {shown(key)}: {hint(key, known)}")


def path_text(value: object) -> Path:
    """Check a path."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a path")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("a path in UTF-8, as control messages carry it") from None
    return Path(value)


def one_of(choices: Sequence[str]) -> Callable[[object], str]:
    """Check that it is one of these."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return check


def number_of(text: str) -> object:
    """Read a variable of the environment as TOML would read it; what is no number stays a text."""
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", text) else text


def whole(least: int, most: int) -> Callable[[object], int]:
    """Check that it is a whole number within these."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def seconds(value: object) -> float:
    """Check a time in seconds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LONGEST_WAIT_S:
        raise ValueError(f"seconds, more than 0 and at most {LONGEST_WAIT_S:g}")
    return float(value)


def boolean(value: object) -> bool:
    """Check that it is true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def file_mode(value: object) -> str:
    """Check who may read and write a file; in the form of chmod."""
    # 0o660 in TOML.
    text = f"{value:04o}" if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError("a mode in octal digits such as '0660'")
    return text.zfill(4)


def absent_or(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Check what may be left out: None stays None."""
    return lambda value: None if value is None else check(value)


def text(value: object) -> str:
    """Check a text, which may be empty."""
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def sizes_by_name(value: object) -> dict[str, tuple[int, ...]]:
    """Check a table from names to a whole number or a list of them."""
    if not isinstance(value, dict):
        raise ValueError(f"a table, {_SIZES_EXAMPLE}")
    return {name: _sizes(sizes if isinstance(sizes, list) else [sizes]) for name, sizes in value.items()}


def _sizes(sizes: list[object]) -> tuple[int, ...]:
    check = whole(0, _LARGEST_SIZE)
    if not 0 < len(sizes) <= _MOST_SIZES:
        raise ValueError(f"1 to {_MOST_SIZES} sizes a name, {_SIZES_EXAMPLE}")
    return tuple(map(check, sizes))


def matching(pattern: re.Pattern[str], example: str) -> Callable[[object], str]:
    """Check a text's form."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(example)
        return value

    return check


def text_like(pattern: re.Pattern[str], example: str) -> Callable[[object], str]:
    """Check a text's form; empty means that it was left out."""

    def check(value: object) -> str:
        if value != "" and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise ValueError(example)
        return str(value)

    return check


def names_of(what: str) -> Callable[[object], dict[str, str]]:
    """Check a table from texts to texts."""

    def check(value: object) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(text, str) and text for text in value.values()):
            raise ValueError(f'a table of texts, {{ name = "..." }}: {what}')
        return value

    return check


def list_of(what: str) -> Callable[[object], list[str]]:
    """Check a list of texts."""

    def check(value: object) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
            raise ValueError(f"a list of {what}")
        return value

    return check

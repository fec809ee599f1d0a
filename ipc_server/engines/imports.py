"""What the configuration names `module:function`: imported, in the worker only."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.messages import shorten, shown
from ipc_server.suggest import hint

_LONGEST_TEXT = 600


def find(origin: str, python_path: Sequence[Path]) -> Any:
    """Import what `module:name` names; MODEL_FAILED says why that cannot be."""
    for folder in reversed(python_path):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    module_name, _, path = origin.partition(":")
    try:
        found = importlib.import_module(module_name)
    # Whatever a module does as it is imported, SystemExit included, is said and not done.
    except BaseException as error:
        raise _failed(
            f"module {module_name!r} could not be imported: {described(error)}{_where(error)} "
            f"(looked for in {', '.join(map(str, python_path)) or 'the Python environment'} first)"
        ) from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise _failed(f"{origin}: there is no {shown(name)}: {hint(name, _public(found))}") from None
    return found


def find_function(origin: str, python_path: Sequence[Path]) -> Callable[..., Any]:
    """Import what can be called; a class is instantiated once, without arguments, and its instance called."""
    found = find(origin, python_path)
    if inspect.isclass(found):
        found = _made(origin, found)
    if not callable(found):
        raise _failed(
            f"{origin} is a {type(found).__name__}: expected a function, or what can be called as one"
        )
    call = found if inspect.isroutine(found) else type(found).__call__
    if inspect.iscoroutinefunction(call) or inspect.isgeneratorfunction(call):
        raise _failed(f"{origin} is a coroutine or a generator: expected a function that returns arrays")
    result: Callable[..., Any] = found
    return result


def _made(origin: str, kind: type) -> Any:
    try:
        return kind()
    except BaseException as error:
        raise _failed(f"{origin}() failed: {described(error)}{_where(error)}") from error


def described(error: BaseException) -> str:
    """Say in one line what was raised."""
    # An exception of the user's can fail even in this, and leave by SystemExit.
    with contextlib.suppress(BaseException):
        text = " ".join(str(error).split())
        printable = "".join(letter if letter.isprintable() else "?" for letter in text)
        name = type(error).__name__
        return shorten(f"{name}: {printable}" if printable else name, _LONGEST_TEXT)
    return type(error).__name__


def where(error: BaseException, function: Callable[..., Any]) -> str:
    """Say where in the function's own file it was raised: `line 3 of hooks.py`; nothing when not there."""
    frames = traceback.extract_tb(error.__traceback__)
    called = inspect.unwrap(function)
    # What is written in C has no code of its own.
    own = getattr(called if inspect.isroutine(called) else type(called).__call__, "__code__", None)
    inside = [frame for frame in frames if own and frame.filename == own.co_filename]
    return f"line {inside[-1].lineno} of {Path(inside[-1].filename).name}" if inside else ""


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {error.filename}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f", line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""


def _is_users(filename: str) -> bool:
    return not filename.startswith("<") and filename not in (__file__, importlib.__file__)


def _public(found: Any) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]


def _failed(why: str) -> SidecamlError:
    return SidecamlError(ErrorCode.MODEL_FAILED, why)

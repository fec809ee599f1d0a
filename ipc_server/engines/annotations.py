"""A function's signature, read from its annotations: `ipc_server.typed` has what they are made of."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

from ipc_server.engines.calls import MismatchError
from ipc_server.messages import shorten
from ipc_server.signature import Signature, Tensor
from ipc_server.tensor_text import TensorTextError, parse_type
from ipc_server.typed import OUT, Element

# The name of what a function returns, when its annotation names nothing; with several, numbers follow it.
OUTPUT = "output"


def read(function: Callable[..., Any]) -> Signature:
    """Read the signature of a function; MismatchError says what its annotations lack."""
    target: Any = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except Exception as error:
        raise MismatchError(f"its annotations cannot be read: {type(error).__name__}: {error}") from error
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for parameter in parameters:
        if parameter.name not in hints and parameter.default is not inspect.Parameter.empty:
            continue
        tensor, out = _tensor(parameter.name, hints.get(parameter.name))
        (outputs if out else inputs).append(tensor)
    outputs += _returned(hints.get("return"))
    if not outputs:
        raise MismatchError(_lacking("what it returns"))
    return Signature(tuple(inputs), tuple(outputs))


def _returned(hint: Any) -> list[Tensor]:
    if hint is None or hint is type(None):
        return []
    if typing.get_origin(hint) is tuple:
        return [_tensor(f"{OUTPUT}{n}", item)[0] for n, item in enumerate(typing.get_args(hint))]
    if inspect.isclass(hint) and getattr(hint, "__annotations__", None):
        fields = typing.get_type_hints(hint, include_extras=True)
        return [_tensor(name, item)[0] for name, item in fields.items()]
    return [_tensor(OUTPUT, hint)[0]]


def _tensor(name: str, hint: Any) -> tuple[Tensor, bool]:
    """Read one annotation: the tensor, and whether it is an output that is a parameter."""
    if isinstance(hint, Element):
        raise MismatchError(
            f"the annotation of {name!r} has no dimensions: expected {hint.name}[...], or [()] for a scalar"
        )
    texts = [text for text in hint.__metadata__ if isinstance(text, str)] if _is_annotated(hint) else []
    types = [text for text in texts if text != OUT]
    if not types:
        found = f", got {shorten(repr(hint), 80)}" if hint is not None else ""
        raise MismatchError(_lacking(f"the parameter or output {name!r}") + found)
    try:
        return parse_type(name, types[0]), OUT in texts
    except TensorTextError as error:
        raise MismatchError(f"an annotation: {error}") from error


def _is_annotated(hint: Any) -> bool:
    return typing.get_origin(hint) is Annotated


def _lacking(what: str) -> str:
    return (
        f"its annotations do not say what tensor {what} is: annotate it, such as by Float32['N', 64] of "
        "ipc_server.typed, or give inputs and outputs in the configuration"
    )

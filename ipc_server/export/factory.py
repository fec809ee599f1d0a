"""A PyTorch module out of `module:factory`: imported, made, given its weights."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ipc_server.export import ExportError
from ipc_server.messages import shown
from ipc_server.suggest import hint


def make(spec: str, python_path: Sequence[Path], weights: Path | None) -> Any:
    """Give the module, in evaluation mode."""
    import torch  # noqa: PLC0415

    module = _called(spec, _found(spec, python_path))
    if not isinstance(module, torch.nn.Module):
        raise ExportError(
            f"{spec} returned {_kind(module)}: expected a torch.nn.Module; name a function without "
            "arguments that returns one, or a subclass whose constructor needs none"
        )
    if weights:
        _load_weights(spec, module, weights)
    return module.eval()


def _found(spec: str, python_path: Sequence[Path]) -> Callable[[], object]:
    name, separator, attribute = spec.partition(":")
    if not separator or not name or not attribute:
        raise ExportError(f"expected module:factory, such as network:build, got {shown(spec)}")
    sys.path[:0] = [str(folder) for folder in python_path]
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0] and error.name != name:
            raise ExportError(f"module {name} cannot be imported: it wants {error.name}: {error}") from error
        places = ", ".join(map(str, python_path))
        raise ExportError(
            f"there is no module {name}: looked in {places} and where Python looks; give its folder with "
            "--python-path"
        ) from error
    except Exception as error:
        raise ExportError(f"module {name} cannot be imported: {_words(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [other for other in vars(found) if not other.startswith("_")]
            raise ExportError(f"module {name} has no {part}: {hint(part, public)}")
        found = getattr(found, part)
    if not callable(found):
        raise ExportError(f"{spec} is {_kind(found)}: expected a function that returns a torch.nn.Module")
    return found  # type: ignore[no-any-return]


def _called(spec: str, factory: Callable[[], object]) -> object:
    try:
        return factory()
    except Exception as error:
        raise ExportError(f"{spec} raised {_words(error)}") from error


def _load_weights(spec: str, module: Any, weights: Path) -> None:
    import torch  # noqa: PLC0415

    try:
        # Only tensors and plain values: a file that would execute code is refused.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ExportError(f"the weights {weights} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise ExportError(
            f"the weights {weights} are no file of tensors alone, which torch.save(module.state_dict(), ...) "
            f"writes: {_words(error)}"
        ) from error
    if not isinstance(state, dict):
        raise ExportError(f"the weights {weights} hold {_kind(state)}: expected a state dict")
    try:
        module.load_state_dict(state)
    except Exception as error:
        raise ExportError(f"the weights {weights} do not fit what {spec} makes: {_words(error)}") from error


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"

"""A PyTorch module out of `module:factory`: imported, made, given its weights, as by the engine `torch`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ipc_server.engines.imports import described, find
from ipc_server.engines.torch_trust import UntrustedError, load_weights
from ipc_server.export import ExportError
from ipc_server.messages import shown


def make(spec: str, python_path: Sequence[Path], weights: Path | None) -> Any:
    """Give the module, in evaluation mode. Raises ExportError, or MODEL_FAILED when it cannot be imported."""
    name, _, attribute = spec.partition(":")
    if not name or not attribute:
        raise ExportError(f"expected module:factory, such as network:build, got {shown(spec)}")
    factory = find(spec, python_path)
    if not callable(factory):
        raise ExportError(f"{spec} is {_kind(factory)}: expected a function that returns a torch.nn.Module")
    module = factory if isinstance(factory, torch.nn.Module) else _called(spec, factory)
    if not isinstance(module, torch.nn.Module):
        raise ExportError(
            f"{spec} returned {_kind(module)}: expected a torch.nn.Module; name a function without "
            "arguments that returns one, or a subclass whose constructor needs none"
        )
    if weights:
        _load_weights(spec, module, weights)
    return module.eval()


def _called(spec: str, factory: Any) -> object:
    try:
        return factory()
    except Exception as error:
        raise ExportError(f"{spec} raised {described(error)}") from error


def _load_weights(spec: str, module: torch.nn.Module, weights: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = load_weights(weights, unsafe=False)
    except OSError as error:
        raise ExportError(f"the weights {weights} cannot be read: {error.strerror or error}") from error
    except UntrustedError as error:
        raise ExportError(f"the weights {weights} are refused: {error}") from error
    except Exception as error:
        raise ExportError(f"the weights {weights} cannot be read: {described(error)}") from error
    try:
        module.load_state_dict(state)
    except Exception as error:
        raise ExportError(
            f"the weights {weights} do not fit what {spec} makes: {described(error)}"
        ) from error


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__

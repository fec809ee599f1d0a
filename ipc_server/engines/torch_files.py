"""What the engine `torch` can load: TorchScript, exported programs, and modules that a function makes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ipc_server import _core
from ipc_server.engines.annotations import OUTPUT, read
from ipc_server.engines.calls import MismatchError, Plan, plan
from ipc_server.engines.imports import described, find_function
from ipc_server.engines.python import declared
from ipc_server.engines.torch_arrays import DTYPE_OF
from ipc_server.engines.torch_trust import (
    ALLOW,
    UntrustedError,
    check_exported,
    check_script,
    load_weights,
)
from ipc_server.messages import shown
from ipc_server.settings import Settings
from ipc_server.signature import Signature, Tensor

# Of exported programs of PyTorch 2.7 and before.
_OLD_RECORD = "serialized_exported_program.json"


@dataclass(frozen=True)
class Loaded:
    """A module, its signature, and how it is called."""

    function: Callable[..., Any]
    signature: Signature
    plan: Plan


def load(settings: Settings) -> Loaded:
    """Load what the settings name."""
    if settings.callable:
        return _made(settings)
    assert settings.path
    _core.check_model_file(settings.path)
    records = _records(settings.path) or set()
    if "constants.pkl" in records:
        data = _judged(settings, settings.path, check_script)
        return _scripted(settings, torch.jit.load(io.BytesIO(data), map_location="cpu"))
    if records & {"archive_format", _OLD_RECORD}:
        return _exported(settings, settings.path)
    return _pickled(settings, settings.path)


def _records(path: Path) -> set[str] | None:
    """List an archive's records, without the folder that all are in; None when it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.partition("/")[2] or name for name in archive.namelist()}
    except zipfile.BadZipFile:
        with path.open("rb") as opened:
            if opened.read(2) == b"PK":
                raise MismatchError("its archive is damaged, or its end is missing") from None
        return None


def _judged(settings: Settings, path: Path, check: Callable[[bytes], None]) -> bytes:
    """Read a file; what is loaded are the very bytes that were judged."""
    data = path.read_bytes()
    if not settings.unsafe_load:
        try:
            check(data)
        except UntrustedError as error:
            raise UntrustedError(f"{error}: {ALLOW}") from error
    return data


def _made(settings: Settings) -> Loaded:
    factory = find_function(settings.callable, settings.python_path)
    module = factory() if not isinstance(factory, torch.nn.Module) else factory
    if not isinstance(module, torch.nn.Module):
        raise MismatchError(f"it returned a {type(module).__name__}: expected a torch.nn.Module")
    if settings.weights:
        _fill(module, settings.weights, settings.unsafe_load)
    return _module(settings, module)


def _fill(module: torch.nn.Module, weights: Path, unsafe: bool) -> None:
    _core.check_model_file(weights)
    try:
        state = load_weights(weights, unsafe)
    except UntrustedError as error:
        raise UntrustedError(f"{weights}: {error}: {ALLOW}") from error
    except Exception as error:
        raise MismatchError(f"the weights {weights} cannot be read: {described(error)}") from error
    try:
        module.load_state_dict(state)
    except Exception as error:
        raise MismatchError(f"the weights {weights} do not fit: {described(error)}") from error


def _module(settings: Settings, module: torch.nn.Module) -> Loaded:
    module.eval()
    signature = declared(settings) or read(module.forward)
    return Loaded(module, signature, plan(module.forward, signature))


def _pickled(settings: Settings, path: Path) -> Loaded:
    """Refuse what torch.save wrote, or load it when that is allowed."""
    if settings.unsafe_load:
        module = torch.load(path, map_location="cpu", weights_only=False)
        if isinstance(module, torch.nn.Module):
            return _module(settings, module)
        raise MismatchError(f"it holds a {type(module).__name__}: expected a torch.nn.Module")
    try:
        found = load_weights(path, False)
    except UntrustedError as error:
        raise UntrustedError(
            f"{error}; a module is better saved by torch.export.save or torch.jit.save, or {ALLOW}"
        ) from error
    raise MismatchError(
        f"it holds weights alone (a {type(found).__name__}): give what makes the module, callable = "
        "'module:function', and this file as weights"
    )


def _scripted(settings: Settings, module: Any) -> Loaded:
    module.eval()
    signature = declared(settings)
    arguments = [argument.name for argument in module.forward.schema.arguments[1:]]
    if signature is None:
        raise MismatchError(
            f"TorchScript does not say shapes: give inputs ({', '.join(arguments)}) and outputs in the "
            "configuration"
        )
    numbers = {tensor.name: number for number, tensor in enumerate(signature.inputs)}
    required = [a.name for a in module.forward.schema.arguments[1:] if not a.has_default_value()]
    if set(required) <= numbers.keys() <= set(arguments):
        chosen = Plan(by_name=numbers)
    elif len(required) <= len(numbers) <= len(arguments):
        chosen = Plan(by_place=list(numbers.values()))
    else:
        raise MismatchError(
            f"its forward takes {', '.join(arguments) or 'nothing'}, and the configuration gives the inputs "
            f"{', '.join(numbers) or 'none'}"
        )
    chosen.returned = [len(numbers) + number for number in range(len(signature.outputs))]
    return Loaded(module, signature, chosen)


def _exported(settings: Settings, path: Path) -> Loaded:
    program = _program(_judged(settings, path, check_exported))
    own = _signature_of(program)
    signature = declared(settings) or own
    _check_same(signature, own)
    module = program.module()
    in_spec = program.call_spec.in_spec

    def run(*tensors: torch.Tensor) -> tuple[Any, ...]:
        arguments, named = pytree.tree_unflatten(list(tensors), in_spec)
        return tuple(pytree.tree_leaves(module(*arguments, **named)))

    inputs, outputs = len(signature.inputs), len(signature.outputs)
    chosen = Plan(by_place=list(range(inputs)), returned=list(range(inputs, inputs + outputs)))
    return Loaded(run, signature, chosen)


def _program(data: bytes) -> Any:
    if _OLD_RECORD in zipfile.ZipFile(io.BytesIO(data)).namelist():
        return torch.export.load(io.BytesIO(data))
    from torch.export.pt2_archive._package import load_pt2  # noqa: PLC0415 - as in torch_trust

    # Not by torch.export.load, which would say no more than to look for the cause in the log.
    (program,) = load_pt2(io.BytesIO(data)).exported_programs.values()
    return program


def _signature_of(program: Any) -> Signature:
    """Read an exported program's signature; a dimension that may differ has its symbol's name."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    outputs = list(program.graph_signature.user_outputs)
    return Signature(
        tuple(_tensor(str(name), values.get(str(name))) for name in program.graph_signature.user_inputs),
        tuple(
            _tensor(name, values.get(str(value)))
            for name, value in zip(_output_names(program, len(outputs)), outputs, strict=True)
        ),
    )


def _output_names(program: Any, count: int) -> Sequence[str]:
    spec = program.call_spec.out_spec
    if spec.type is dict and len(spec.context) == count:
        return [str(name) for name in spec.context]
    return [OUTPUT] if count == 1 else [f"{OUTPUT}{number}" for number in range(count)]


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, torch.Tensor):
        raise MismatchError(
            f"its input or output {shown(name)} is a {type(value).__name__}: expected a tensor"
        )
    if value.dtype not in DTYPE_OF:
        raise MismatchError(f"its tensor {shown(name)} is of {value.dtype}, which no channel carries")
    dims = tuple(dim if isinstance(dim, int) else str(dim).replace(" ", "") for dim in value.shape)
    return Tensor(name, DTYPE_OF[value.dtype], dims)


def _check_same(given: Signature, own: Signature) -> None:
    """Let the configuration rename tensors and dimensions, and no more."""
    for kind, theirs, ours in (("inputs", given.inputs, own.inputs), ("outputs", given.outputs, own.outputs)):
        if len(theirs) != len(ours):
            raise MismatchError(f"it has {len(ours)} {kind}, and the configuration gives {len(theirs)}")
        for tensor, real in zip(theirs, ours, strict=True):
            fixed = [dim if isinstance(dim, int) else None for dim in real.shape]
            wanted = [dim if isinstance(dim, int) else None for dim in tensor.shape]
            if tensor.dtype != real.dtype or wanted != fixed:
                raise MismatchError(
                    f"{shown(tensor.name)} is {real.type_text} in it, and {tensor.type_text} in the "
                    "configuration"
                )

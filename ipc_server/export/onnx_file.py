"""A PyTorch module written as an ONNX file, by PyTorch's own exporter."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ipc_server.abi import Dtype
from ipc_server.engines.imports import described
from ipc_server.export import ExportError
from ipc_server.export.cases import Arrays, dim_names
from ipc_server.export.distance import is_comparable
from ipc_server.messages import shown
from ipc_server.signature import Tensor
from ipc_server.suggest import hint

# What example inputs are made with: sizes that differ, so that the exporter confuses none of them, and not 0
# or 1, which it takes for constants.
_EXAMPLE_SIZES = (3, 5, 7, 11, 13, 17, 19, 23)


def example_sizes(inputs: Sequence[Tensor]) -> dict[str, int]:
    """Give each dynamic dimension a size for the export."""
    names = dim_names(inputs)
    fixed = {dim for tensor in inputs for dim in tensor.shape if isinstance(dim, int)}
    free = [size for size in (*_EXAMPLE_SIZES, *range(29, 500, 2)) if size not in fixed]
    return dict(zip(names, free, strict=False))


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported: a module, what a person calls it, and the inputs asked for."""

    spec: str
    module: Any
    inputs: Sequence[Tensor]


def check_inputs(subject: Subject) -> None:
    """Refuse inputs that the module's `forward` does not take, and forward's that are not given."""
    spec, inputs = subject.spec, subject.inputs
    parameters = inspect.signature(subject.module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]
    given = [tensor.name for tensor in inputs]
    for name in given:
        if name not in known:
            raise ExportError(
                f"--input: forward of what {spec} makes takes no {shown(name)}: {hint(name, known)}"
            )
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        if needed and parameter.name not in given:
            raise ExportError(
                f"forward of what {spec} makes needs {parameter.name}: add --input "
                f"'{parameter.name}=TYPE[DIMENSIONS]'"
            )


def to_torch(inputs: Sequence[Tensor], arrays: Arrays) -> dict[str, Any]:
    """Give the inputs as PyTorch's tensors, on copies: a module may write into them."""
    return {
        tensor.name: _bits(torch.from_numpy(arrays[tensor.name].copy()), tensor.dtype) for tensor in inputs
    }


def run(subject: Subject, arrays: Arrays) -> list[tuple[str | None, Any]]:
    """Run the module; its outputs, with their names where it gives a dictionary."""
    spec = subject.spec
    try:
        with torch.inference_mode():
            found = subject.module(**to_torch(subject.inputs, arrays))
    except Exception as error:
        raise ExportError(
            f"{spec}: forward raised {described(error)} for "
            + ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            + ": look at --input and, for whole numbers that must be less than 10, --range"
        ) from error
    named = _outputs(found)
    if named is None:
        raise ExportError(
            f"{spec}: forward returned {type(found).__name__}: expected a tensor, or a tuple, list or "
            "dictionary of tensors"
        )
    return [(name, _array(value)) for name, value in named]


def write(subject: Subject, outputs: Sequence[str], arrays: Arrays, opset: int | None, path: Path) -> None:
    """Write the file, and beside it weights of more than 2 GB."""
    inputs = subject.inputs
    shapes = {
        tensor.name: {axis: dim for axis, dim in enumerate(tensor.shape) if isinstance(dim, str)}
        for tensor in inputs
    }
    try:
        with _quiet():
            program = torch.onnx.export(
                subject.module,
                (),
                kwargs=to_torch(inputs, arrays),
                input_names=[tensor.name for tensor in inputs],
                output_names=list(outputs),
                dynamic_shapes=shapes,
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.save(path)
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"{subject.spec} cannot be exported: {_reason(error)}") from error


def to_numpy(spec: str, name: str | None, value: Any) -> Any:
    """Give an output as numpy carries it: bfloat16 as its bits."""
    word = str(value.dtype).removeprefix("torch.")
    if word == "bfloat16":
        return value.view(torch.int16).numpy().view(np.uint16)
    dtype = Dtype.__members__.get(word.upper())
    if dtype is None or not is_comparable(dtype):
        raise ExportError(
            f"{spec}: output {shown(name or 'output')} is {word}: expected numbers that can be compared, "
            "floating-point of 16 bits and more, whole, or bool"
        )
    return value.numpy()


def _bits(tensor: Any, dtype: Dtype) -> Any:
    return tensor.view(torch.bfloat16) if dtype is Dtype.BFLOAT16 else tensor


def _outputs(found: Any) -> list[tuple[str | None, Any]] | None:
    if isinstance(found, dict):
        named: list[tuple[str | None, Any]] = list(found.items())
    elif isinstance(found, tuple | list):
        named = [(None, value) for value in found]
    else:
        named = [(None, found)]
    return named if all(isinstance(value, torch.Tensor) for _, value in named) else None


def _array(tensor: Any) -> Any:
    return tensor.detach().contiguous()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes to whoever develops it away from whoever uses it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """Find what a person can act on in the exporter's chain of exceptions."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    whole = "\n".join(texts)
    if operator := re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", whole):
        return (
            f"the operator {operator[1]} has no form in ONNX: write that part of the model with other "
            'operators, or serve it with engine = "torch", which needs no export'
        )
    if fixed := re.search(r"static shape of (\d+) for dimension inputs\['([^']+)'\]\.shape\[(\d+)\]", whole):
        return (
            f"dimension {fixed[3]} of input {fixed[2]} cannot change: the model fixes it to {fixed[1]}; "
            "write that number in --input, or use sizes of the tensor in the model instead of constants"
        )
    if "data-dependent" in whole:
        place = re.search(r"The following call raised this error:\n\s*(.*)\n\s*(.*)", whole)
        where = f" ({place[1].strip()}: {place[2].strip()})" if place else ""
        return (
            f"what it does depends on the values in a tensor{where}: use torch.where or torch.cond instead "
            'of if, or serve it with engine = "torch", which needs no export'
        )
    return " ".join(texts[-1].split())[:600]

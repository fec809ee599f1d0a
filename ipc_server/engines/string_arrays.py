"""Strings in slots as numpy's arrays of `str`: read anew for each request, and written after it."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc_server import _core
from ipc_server.engines.calls import MismatchError, kind_of
from ipc_server.messages import shown
from ipc_server.signature import Tensor, TensorSpec
from ipc_server.strings import object_array
from ipc_server.tensor import OFFSET_BYTES

# Of objects, of fixed width, and numpy's own of any width.
STRING_KINDS = "OUT"


def read(address: int, spec: TensorSpec, dims: tuple[int, ...]) -> NDArray[Any]:
    """Copy a slot's strings, checked: BAD_STRINGS."""
    texts = _core.read_strings("input", spec.name, _place(address, spec), _most(spec), math.prod(dims))
    array = object_array(texts, dims)
    array.flags.writeable = False
    return array


def encoded(tensor: Tensor | TensorSpec, value: NDArray[Any]) -> list[bytes]:
    """Give each string that was returned as UTF-8; MismatchError for what is no text."""
    texts = []
    for index, item in enumerate(value.ravel()):
        if not isinstance(item, str):
            raise MismatchError(
                f"it returned {kind_of(item)} as string {index} of the output {shown(tensor.name)}: "
                "expected a str"
            )
        try:
            texts.append(item.encode())
        except UnicodeEncodeError:
            raise MismatchError(
                f"string {index} of the output {shown(tensor.name)} is no text that UTF-8 has: {shown(item)}"
            ) from None
    return texts


def dims_of(value: Any, tensor: Tensor) -> tuple[int, ...]:
    """Give the shape of an array of strings."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in STRING_KINDS:
        found = value.dtype if isinstance(value, np.ndarray) else kind_of(value)
        raise MismatchError(
            f"it returned {found} for the output {shown(tensor.name)}: expected a numpy array of str"
        )
    return tuple(value.shape)


def write(address: int, spec: TensorSpec, texts: list[bytes]) -> None:
    """Write strings that have room."""
    _core.write_strings(_place(address, spec), _most(spec), texts)


def _most(spec: TensorSpec) -> int:
    return math.prod(spec.max_dims)


def _place(address: int, spec: TensorSpec) -> Any:
    size = OFFSET_BYTES * (_most(spec) + 1) + spec.text_bytes
    return (ctypes.c_uint8 * size).from_address(address)

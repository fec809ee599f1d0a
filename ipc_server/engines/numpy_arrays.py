"""Slots seen as numpy's arrays."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc_server.engines.calls import MismatchError, kind_of
from ipc_server.messages import shown
from ipc_server.signature import Tensor
from ipc_server.tensor import NUMPY_DTYPE, size_of


def view(address: int, tensor: Tensor, dims: tuple[int, ...], writable: bool) -> NDArray[Any]:
    """See memory as an array; one that is not writable cannot be made so."""
    size = size_of(tensor.dtype, dims)
    if size == 0:
        return np.empty(dims, NUMPY_DTYPE[tensor.dtype])
    memory = memoryview((ctypes.c_uint8 * size).from_address(address))
    # Not np.ndarray(), whose base would be what lies behind the memoryview, which is writable.
    seen = np.frombuffer(memory if writable else memory.toreadonly(), NUMPY_DTYPE[tensor.dtype])
    return seen.reshape(dims)


class NumpyArrays:
    """What the engine `python` gives and takes."""

    def view(self, address: int, tensor: Tensor, dims: tuple[int, ...], writable: bool) -> NDArray[Any]:
        """See a slot's place as an array."""
        return view(address, tensor, dims, writable)

    def dims_of(self, value: Any, tensor: Tensor) -> tuple[int, ...]:
        """Give an array's shape; its type must be exact, because a silent cast would change numbers."""
        expected = NUMPY_DTYPE[tensor.dtype]
        if not isinstance(value, np.ndarray | np.generic):
            raise MismatchError(
                f"it returned {kind_of(value)} for the output {shown(tensor.name)}: expected a numpy array "
                f"of {expected}"
            )
        if value.dtype != expected:
            raise MismatchError(
                f"it returned {value.dtype} for the output {shown(tensor.name)}: expected {expected}, "
                f"as by .astype(np.{expected})"
            )
        return value.shape

    def copy(self, place: NDArray[Any], value: Any) -> None:
        """Copy an array."""
        np.copyto(place, value, casting="no")

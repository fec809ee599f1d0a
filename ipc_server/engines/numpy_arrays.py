"""Slots seen as numpy's arrays."""

from __future__ import annotations

import ctypes
import importlib.util
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ipc_server.abi import Dtype
from ipc_server.engines import string_arrays
from ipc_server.engines.calls import MismatchError, kind_of
from ipc_server.messages import shown
from ipc_server.signature import Tensor
from ipc_server.tensor import NUMPY_DTYPE, is_packed, size_of


def _elements() -> dict[Dtype, np.dtype[Any]]:
    """Give each type that numpy lacks ml_dtypes' own where that is installed, else its bits."""
    if not importlib.util.find_spec("ml_dtypes"):
        return NUMPY_DTYPE
    import ml_dtypes  # noqa: PLC0415 - it need not be there

    return NUMPY_DTYPE | {
        Dtype.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
        Dtype.FLOAT8E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
        Dtype.FLOAT8E4M3FNUZ: np.dtype(ml_dtypes.float8_e4m3fnuz),
        Dtype.FLOAT8E5M2: np.dtype(ml_dtypes.float8_e5m2),
        Dtype.FLOAT8E5M2FNUZ: np.dtype(ml_dtypes.float8_e5m2fnuz),
        Dtype.FLOAT8E8M0: np.dtype(ml_dtypes.float8_e8m0fnu),
    }


ELEMENTS: Final = _elements()


def bits(address: int, tensor: Tensor, dims: tuple[int, ...], writable: bool) -> NDArray[Any]:
    """See memory as an array that stock numpy has; one that is not writable cannot be made so.

    A packed type is its bytes, in one dimension.
    """
    size = size_of(tensor.dtype, dims)
    if is_packed(tensor.dtype):
        dims = (size,)
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
        return bits(address, tensor, dims, writable).view(ELEMENTS[tensor.dtype])

    def dims_of(self, value: Any, tensor: Tensor, known: tuple[int, ...] | None) -> tuple[int, ...]:
        """Give an array's shape; its type must be exact, because a silent cast would change numbers."""
        if tensor.dtype is Dtype.STRING:
            return string_arrays.dims_of(value, tensor)
        expected = ELEMENTS[tensor.dtype]
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
        return _packed_dims(value, tensor, known) if is_packed(tensor.dtype) else value.shape

    def copy(self, place: NDArray[Any], value: Any) -> None:
        """Copy an array."""
        np.copyto(place, value, casting="no")


def _packed_dims(value: Any, tensor: Tensor, known: tuple[int, ...] | None) -> tuple[int, ...]:
    if known is None:
        raise MismatchError(
            f"the output {shown(tensor.name)} {tensor.type_text} is packed, and its bytes do not tell "
            "its size: expected dimensions that an input has"
        )
    size = size_of(tensor.dtype, known)
    if value.shape != (size,):
        raise MismatchError(
            f"it returned {list(value.shape)} for the output {shown(tensor.name)} {tensor.type_text}: "
            f"expected its {size} packed bytes, in one dimension"
        )
    return known

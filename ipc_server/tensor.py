"""Element types as numpy and ONNX know them, and views of tensors in shared memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ipc_server._core import Memory
from ipc_server.abi import DTYPE_BITS, Dtype

# numpy has no bfloat16 and no float8: their bits are carried as unsigned integers. Packed types are bytes.
NUMPY_DTYPE: Final[dict[Dtype, np.dtype[Any]]] = {
    Dtype.FLOAT32: np.dtype(np.float32),
    Dtype.FLOAT64: np.dtype(np.float64),
    Dtype.FLOAT16: np.dtype(np.float16),
    Dtype.BFLOAT16: np.dtype(np.uint16),
    Dtype.INT8: np.dtype(np.int8),
    Dtype.INT16: np.dtype(np.int16),
    Dtype.INT32: np.dtype(np.int32),
    Dtype.INT64: np.dtype(np.int64),
    Dtype.UINT8: np.dtype(np.uint8),
    Dtype.UINT16: np.dtype(np.uint16),
    Dtype.UINT32: np.dtype(np.uint32),
    Dtype.UINT64: np.dtype(np.uint64),
    Dtype.BOOL: np.dtype(np.bool_),
    Dtype.COMPLEX64: np.dtype(np.complex64),
    Dtype.COMPLEX128: np.dtype(np.complex128),
    Dtype.FLOAT8E4M3FN: np.dtype(np.uint8),
    Dtype.FLOAT8E4M3FNUZ: np.dtype(np.uint8),
    Dtype.FLOAT8E5M2: np.dtype(np.uint8),
    Dtype.FLOAT8E5M2FNUZ: np.dtype(np.uint8),
    Dtype.FLOAT8E8M0: np.dtype(np.uint8),
    Dtype.INT4: np.dtype(np.uint8),
    Dtype.UINT4: np.dtype(np.uint8),
    Dtype.FLOAT4E2M1: np.dtype(np.uint8),
    Dtype.INT2: np.dtype(np.uint8),
    Dtype.UINT2: np.dtype(np.uint8),
}

BYTE_BITS: Final = 8
# A string tensor's table.
OFFSET_BYTES: Final = 8

# onnx.TensorProto.DataType, by which ONNX Runtime's Python package names element types.
ONNX_CODE: Final[dict[Dtype, int]] = {
    Dtype.FLOAT32: 1,
    Dtype.UINT8: 2,
    Dtype.INT8: 3,
    Dtype.UINT16: 4,
    Dtype.INT16: 5,
    Dtype.INT32: 6,
    Dtype.INT64: 7,
    Dtype.BOOL: 9,
    Dtype.FLOAT16: 10,
    Dtype.FLOAT64: 11,
    Dtype.UINT32: 12,
    Dtype.UINT64: 13,
    Dtype.STRING: 8,
    Dtype.COMPLEX64: 14,
    Dtype.COMPLEX128: 15,
    Dtype.BFLOAT16: 16,
    Dtype.FLOAT8E4M3FN: 17,
    Dtype.FLOAT8E4M3FNUZ: 18,
    Dtype.FLOAT8E5M2: 19,
    Dtype.FLOAT8E5M2FNUZ: 20,
    Dtype.UINT4: 21,
    Dtype.INT4: 22,
    Dtype.FLOAT4E2M1: 23,
    Dtype.FLOAT8E8M0: 24,
    Dtype.UINT2: 25,
    Dtype.INT2: 26,
}


def size_of(dtype: Dtype, dims: Sequence[int]) -> int:
    """Count the bytes of a tensor, for strings those of its table of offsets."""
    elements = math.prod(dims)
    if dtype is Dtype.STRING:
        return OFFSET_BYTES * (elements + 1)
    return -(-elements * DTYPE_BITS[dtype] // 8)


def is_packed(dtype: Dtype) -> bool:
    """Whether a byte holds several elements."""
    return 0 < DTYPE_BITS[dtype] < BYTE_BITS


def view(memory: Memory, dtype: Dtype, dims: Sequence[int]) -> NDArray[Any]:
    """See the start of a slot's place as a tensor, in place; a packed one as its bytes, in one dimension."""
    if is_packed(dtype):
        dims = [size_of(dtype, dims)]
    return np.ndarray(tuple(dims), NUMPY_DTYPE[dtype], memoryview(memory))

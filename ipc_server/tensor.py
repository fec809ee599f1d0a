"""Element types as numpy and ONNX know them, and views of tensors in shared memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ipc_server._core import Memory
from ipc_server.abi import DTYPE_BYTES, Dtype

# numpy has no bfloat16: its bits are carried as uint16.
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
}

# onnx.TensorProto.DataType.
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
    Dtype.BFLOAT16: 16,
}


def size_of(dtype: Dtype, dims: Sequence[int]) -> int:
    """Count the bytes of a tensor."""
    return math.prod(dims) * DTYPE_BYTES[dtype]


def view(memory: Memory, dtype: Dtype, dims: Sequence[int]) -> NDArray[Any]:
    """See the start of a slot's place as a tensor, in place."""
    return np.ndarray(tuple(dims), NUMPY_DTYPE[dtype], memoryview(memory))

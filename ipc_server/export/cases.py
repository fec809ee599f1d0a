"""What the proof runs: sizes for the dynamic dimensions, and random inputs of these sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ipc_server.abi import Dtype
from ipc_server.export import ExportError
from ipc_server.export.distance import is_float
from ipc_server.messages import shown
from ipc_server.signature import Tensor
from ipc_server.suggest import hint
from ipc_server.tensor import NUMPY_DTYPE

# Of every dynamic dimension, unless others are asked for: none at all cannot be exported by every model.
SIZES: Final = (1, 2, 7, 32)
# Whole numbers are drawn from 0 to 9, unless a range is asked for.
RANGE: Final = (0, 10)

Sizes = dict[str, int]
Arrays = dict[str, NDArray[Any]]


def sizes_of(inputs: Sequence[Tensor], chosen: Mapping[str, Sequence[int]]) -> list[Sizes]:
    """Choose the sizes of each run: all least, all largest, and each size of each with others in turn."""
    names = dim_names(inputs)
    for name in chosen:
        if name not in names:
            raise ExportError(
                f"--sizes: no dimension of the inputs is called {shown(name)}: {hint(name, names)}"
            )
    lists = [list(chosen.get(name, SIZES)) for name in names]
    if not lists:
        return [{}]
    turns = range(max(map(len, lists)))
    rows = [
        [min(sizes) for sizes in lists],
        *([sizes[(turn + shift) % len(sizes)] for shift, sizes in enumerate(lists)] for turn in turns),
        [max(sizes) for sizes in lists],
    ]
    return [dict(zip(names, row, strict=True)) for row in dict.fromkeys(map(tuple, rows))]


def dim_names(inputs: Sequence[Tensor]) -> list[str]:
    """Name the dynamic dimensions, each once."""
    return list(dict.fromkeys(dim for tensor in inputs for dim in tensor.shape if isinstance(dim, str)))


def shape_of(tensor: Tensor, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Give a tensor's shape at these sizes."""
    return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in tensor.shape)


def draw(
    inputs: Sequence[Tensor],
    sizes: Mapping[str, int],
    ranges: Mapping[str, tuple[float, float]],
    rng: np.random.Generator,
) -> Arrays:
    """Draw every input: standard normal, whole numbers from 0 to 9, or uniform in the range asked for."""
    return {
        tensor.name: _drawn(tensor.dtype, shape_of(tensor, sizes), ranges.get(tensor.name), rng)
        for tensor in inputs
    }


def _drawn(
    dtype: Dtype, shape: tuple[int, ...], limits: tuple[float, float] | None, rng: np.random.Generator
) -> NDArray[Any]:
    if is_float(dtype):
        found = np.asarray(rng.uniform(*limits, shape) if limits else rng.standard_normal(shape))
        if dtype is Dtype.BFLOAT16:
            # The upper half of a float32 is the bfloat16 below it.
            return (found.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return found.astype(NUMPY_DTYPE[dtype])
    if dtype is Dtype.BOOL:
        return np.asarray(rng.integers(0, 2, shape)).astype(np.bool_)
    low, high = limits or RANGE
    # Of the others, all fit in 64 bits with a sign.
    wide = np.uint64 if dtype is Dtype.UINT64 else np.int64
    return np.asarray(rng.integers(int(low), int(high), shape, wide)).astype(NUMPY_DTYPE[dtype])

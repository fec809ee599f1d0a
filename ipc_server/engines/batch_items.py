"""Random items for a batch, of every element type, and how far two answers are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc_server.abi import Dtype
from ipc_server.tensor import NUMPY_DTYPE

Array = NDArray[Any]

# Every other item of a pool is larger by so much: what leaks from it into its neighbours is not lost in
# rounding. The narrow types would only reach infinity.
SCALE = 1000.0
NARROW_SCALE = 8.0
_NARROW = {Dtype.FLOAT16}
_SIGNED = {2: np.int16, 4: np.int32, 8: np.int64, 1: np.int8}
# Rows of these lie between ordinary ones: 0 times a neighbour is not 0 then, and comparisons go another way.
# None is both large and finite: a model that counts up to it would never end.
_EXTREMES = (np.nan, np.inf, -np.inf, -0.0, 0.0)
EXTREME_ROWS = 2 * (len(_EXTREMES) + 1)
_WITH_EXTREMES = {Dtype.FLOAT16, Dtype.FLOAT32, Dtype.FLOAT64}
# Types that numpy has no float for: their bits, ordered like numbers but for the sign.
_BITS_OF_FLOATS = {
    Dtype.BFLOAT16,
    Dtype.FLOAT8E4M3FN,
    Dtype.FLOAT8E4M3FNUZ,
    Dtype.FLOAT8E5M2,
    Dtype.FLOAT8E5M2FNUZ,
}
# Small positive numbers in each of them, none of which is no number.
_MOST_FLOAT8 = 0x3F
_MOST_FLOAT8E8M0 = 0x7F


def random_items(
    random: np.random.Generator, dtype: Dtype, shape: tuple[int, ...], span: int, *, uneven: bool
) -> Array:
    """Draw items, which the first dimension counts; whole numbers are 0 to `span` - 1."""
    kind = NUMPY_DTYPE[dtype]
    if dtype is Dtype.BOOL:
        return random.integers(0, 2, shape).astype(kind)
    if dtype is Dtype.BFLOAT16:
        return (
            _reals(random, shape, SCALE if uneven else 1).astype(np.float32).view(np.uint32) >> 16
        ).astype(kind)
    if dtype in _BITS_OF_FLOATS:
        return random.integers(0, _MOST_FLOAT8 + 1, shape).astype(kind)
    if dtype is Dtype.FLOAT8E8M0:
        return random.integers(_MOST_FLOAT8E8M0 - 8, _MOST_FLOAT8E8M0 + 1, shape).astype(kind)
    if kind.kind in "iu":
        return random.integers(0, span, shape).astype(kind)
    scale = 1.0 if not uneven else NARROW_SCALE if dtype in _NARROW else SCALE
    reals = _reals(random, shape, scale)
    if kind.kind == "c":
        reals = reals + 1j * _reals(random, shape, scale)
    return reals.astype(kind)


def extreme_items(random: np.random.Generator, dtype: Dtype, shape: tuple[int, ...], span: int) -> Array:
    """Draw items of which every other one is no number, infinite, zero or denormal, if the type has such."""
    items = random_items(random, dtype, shape, span, uneven=False)
    if dtype in _WITH_EXTREMES:
        values = (*_EXTREMES, np.finfo(items.dtype).smallest_subnormal)
        for row in range(1, len(items), 2):
            items[row] = values[row // 2 % len(values)]
    return items


def _reals(random: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    reals: Array = random.standard_normal(shape, np.float32)
    reals[1::2] *= np.float32(scale)
    return reals


def same_bits(got: Array, expected: Array) -> bool:
    """Whether two arrays of one type and shape are the same, bit for bit."""
    return got.tobytes() == expected.tobytes()


def same_answers(got: Array, expected: Array) -> bool:
    """Whether they are the same, bit for bit, but that a NaN is as good as any other."""
    if got.dtype.kind == "f":
        # Every NaN becomes the one of numpy.
        got, expected = (
            np.where(np.isnan(array), array.dtype.type(np.nan), array) for array in (got, expected)
        )
    return same_bits(got, expected)


def ulps_apart(dtype: Dtype, got: Array, expected: Array) -> int:
    """Count the most units in the last place between them; types that are no floats are apart or not."""
    if NUMPY_DTYPE[dtype].kind == "c":
        half = np.float32 if dtype is Dtype.COMPLEX64 else np.float64
        got, expected = (np.ascontiguousarray(array).view(half) for array in (got, expected))
    elif NUMPY_DTYPE[dtype].kind != "f" and dtype not in _BITS_OF_FLOATS:
        return 0 if same_bits(got, expected) else np.iinfo(np.int64).max
    ours, theirs = _ordered(got), _ordered(expected)
    apart = np.where(ours > theirs, ours - theirs, theirs - ours)
    if got.dtype.kind == "f":
        apart = np.where(np.isnan(got) & np.isnan(expected), np.uint64(0), apart)
    return int(apart.max(initial=0))


def _ordered(array: Array) -> NDArray[np.uint64]:
    """Number floats so that neighbours differ by one; both zeros have one number."""
    signed = np.ascontiguousarray(array).view(_SIGNED[array.dtype.itemsize]).astype(np.int64)
    lowest = np.int64(-(2 ** (8 * array.dtype.itemsize - 1)))
    counted = np.where(signed < 0, lowest - signed, signed)
    ordered: NDArray[np.uint64] = counted.view(np.uint64) ^ np.uint64(2**63)
    return ordered

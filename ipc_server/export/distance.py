"""How far two tensors are apart: absolutely, and in units in the last place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ipc_server.abi import Dtype

# Bits of the significand that are stored.
_SIGNIFICAND: Final[dict[Dtype, int]] = {
    Dtype.FLOAT64: 52,
    Dtype.FLOAT32: 23,
    Dtype.FLOAT16: 10,
    Dtype.BFLOAT16: 7,
}
_WHOLE: Final = frozenset(
    {
        Dtype.BOOL,
        *(Dtype[f"{sign}INT{bits}"] for sign in ("", "U") for bits in (8, 16, 32, 64)),
    }
)
# Of ULP beyond what 64 bits count, and between a number and what is none.
FARTHEST: Final = float(2**63)


@dataclass(frozen=True, slots=True)
class Distance:
    """The largest differences between two tensors, and the place that is the farthest beyond tolerance."""

    absolute: float
    ulp: float
    # Of the largest finite value in either.
    magnitude: float
    # Index of an element that is out of tolerance; None when all are within it.
    outlier: tuple[int, ...] | None = None
    allowed: float = 0.0


def is_float(dtype: Dtype) -> bool:
    """Whether it has units in the last place."""
    return dtype in _SIGNIFICAND


def is_comparable(dtype: Dtype) -> bool:
    """Whether tensors of it are drawn and compared: of what PyTorch and numpy have both."""
    return is_float(dtype) or dtype in _WHOLE


def ulps(dtype: Dtype, ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.float64]:
    """Count how many representable values lie between each two elements, one of the ends included.

    Two finite values a and b of one format are |i(a) - i(b)| ULP apart, where i numbers the format's values
    in their order: i(x) is the bit pattern of |x| as an integer, negated when x has its sign bit set. So 0
    and -0 are 0 apart, neighbours 1, and an infinity is the neighbour of the largest finite value. Two NaN
    are 0 apart, a NaN and anything else are FARTHEST. Elements of types without ULP are 0 apart when equal,
    else FARTHEST. This is the measure of Bruce Dawson, "Comparing Floating Point Numbers, 2012 Edition", and
    of Boost.Math's `float_distance`; `numpy.testing.assert_array_max_ulp` counts the same.
    """
    if not is_float(dtype):
        return np.where(ours == theirs, 0.0, FARTHEST)
    first, second = _numbered(ours), _numbered(theirs)
    # The difference of two 64-bit numbers needs 65 bits: as unsigned it is exact.
    apart = np.where(first > second, first, second).astype(np.uint64) - np.where(
        first > second, second, first
    ).astype(np.uint64)
    no_number, other = np.isnan(values(dtype, ours)), np.isnan(values(dtype, theirs))
    return np.where(no_number | other, np.where(no_number & other, 0.0, FARTHEST), apart.astype(np.float64))


def compare(
    dtype: Dtype, ours: NDArray[Any], theirs: NDArray[Any], most_ulp: float, atol: float | None
) -> Distance:
    """Compare two tensors of one shape.

    An element is within tolerance when it is at most `most_ulp` ULP off, or at most `atol`. Without `atol`
    that is `most_ulp` ULP of the tensor's largest value: a sum that cancels to nearly 0 is as far off as
    its terms, however many values lie between two numbers near 0.
    """
    if not ours.size:
        return Distance(0.0, 0.0, 0.0)
    apart = ulps(dtype, ours, theirs)
    first, second = values(dtype, ours), values(dtype, theirs)
    with np.errstate(invalid="ignore", over="ignore"):
        absolute = np.where(apart == 0, 0.0, np.abs(first - second))
    absolute = np.where(np.isnan(absolute), np.inf, absolute)
    magnitudes = np.abs(np.concatenate([first.ravel(), second.ravel()]))
    magnitude = float(np.max(magnitudes, initial=0.0, where=np.isfinite(magnitudes)))
    allowed = most_ulp * _ulp_at(dtype, magnitude) if atol is None else atol
    beyond = (apart > most_ulp) & (absolute > allowed)
    outlier = None
    if beyond.any():
        worst = np.unravel_index(int(np.argmax(np.where(beyond, absolute, -1.0))), ours.shape)
        outlier = tuple(int(index) for index in worst)
    return Distance(float(absolute.max()), float(apart.max()), magnitude, outlier, allowed)


def values(dtype: Dtype, array: NDArray[Any]) -> NDArray[np.float64]:
    """Give a tensor's values, of bfloat16 too, which is carried as its bits."""
    if dtype is Dtype.BFLOAT16:
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float64)


def _numbered(array: NDArray[Any]) -> NDArray[np.int64]:
    bits = array.view(np.dtype(f"i{array.dtype.itemsize}")).astype(np.int64)
    magnitude = bits & np.int64(2 ** (8 * array.dtype.itemsize - 1) - 1)
    return np.where(bits < 0, -magnitude, magnitude)


def _ulp_at(dtype: Dtype, magnitude: float) -> float:
    """Give the distance from a value to the next of the format, for normal numbers."""
    if not is_float(dtype) or magnitude == 0.0:
        return 0.0
    return float(2.0 ** (np.frexp(magnitude)[1] - 1 - _SIGNIFICAND[dtype]))

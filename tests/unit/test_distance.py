"""Differences of tensors, absolute and in units in the last place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc_server.abi import Dtype
from ipc_server.export.distance import FARTHEST, compare, ulps

FLOATS = {Dtype.FLOAT16: np.float16, Dtype.FLOAT32: np.float32, Dtype.FLOAT64: np.float64}
WIDTHS = {Dtype.FLOAT16: 16, Dtype.FLOAT32: 32, Dtype.FLOAT64: 64}


def apart(dtype: Dtype, ours: float, theirs: float) -> float:
    kind = FLOATS[dtype]
    return float(ulps(dtype, np.array([ours], kind), np.array([theirs], kind))[0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_neighbours_are_one_apart(dtype: Dtype) -> None:
    kind = FLOATS[dtype]
    for value in (1.0, -1.0, 0.0, 1e-4, 2.0):
        assert apart(dtype, value, float(np.nextafter(kind(value), kind(math.inf)))) == 1
        assert apart(dtype, value, float(np.nextafter(kind(value), kind(-math.inf)))) == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_special_values(dtype: Dtype) -> None:
    largest = float(np.finfo(FLOATS[dtype]).max)
    assert apart(dtype, 0.0, -0.0) == 0
    assert apart(dtype, math.nan, math.nan) == 0
    assert apart(dtype, math.nan, 1.0) == apart(dtype, -math.inf, math.nan) == FARTHEST
    assert apart(dtype, math.inf, largest) == apart(dtype, -math.inf, -largest) == 1
    assert apart(dtype, math.inf, -math.inf) > 2 ** (WIDTHS[dtype] - 2)


@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
def test_it_is_a_distance(ours: float, theirs: float) -> None:
    found = apart(Dtype.FLOAT32, ours, theirs)
    assert found == apart(Dtype.FLOAT32, theirs, ours) == apart(Dtype.FLOAT32, -ours, -theirs)
    assert (found == 0) == (ours == theirs)
    assert apart(Dtype.FLOAT32, ours, 0.0) + apart(Dtype.FLOAT32, 0.0, theirs) >= found


@given(st.floats(1.0, 1.875, width=32), st.integers(0, 1000))
def test_it_counts_as_numpy_does(value: float, steps: int) -> None:
    ours = np.array([value], np.float32)
    theirs = (ours.view(np.int32) + np.int32(steps)).view(np.float32)
    assert float(np.testing.assert_array_max_ulp(ours, theirs, maxulp=1000).max()) == steps
    assert ulps(Dtype.FLOAT32, ours, theirs)[0] == steps


def test_bfloat16_is_compared_by_its_bits() -> None:
    one = np.array([0x3F80, 0x8000], np.uint16)
    other = np.array([0x3F82, 0x0000], np.uint16)
    assert ulps(Dtype.BFLOAT16, one, other).tolist() == [2, 0]
    assert compare(Dtype.BFLOAT16, one, other, 2, 0.0).absolute == 2 / 128


def test_whole_numbers_are_equal_or_as_far_as_can_be() -> None:
    found = ulps(Dtype.INT64, np.array([1, 2]), np.array([1, 3]))
    assert found.tolist() == [0, FARTHEST]
    assert compare(Dtype.INT64, np.array([1, 2]), np.array([1, 3]), 64, None).outlier == (1,)


def test_what_cancels_is_measured_by_the_largest_value() -> None:
    theirs = np.array([1.0, 1e-7], np.float32)
    ours = np.array([1.0, 2e-7], np.float32)
    assert compare(Dtype.FLOAT32, ours, theirs, 64, None).outlier is None
    assert compare(Dtype.FLOAT32, ours, theirs, 0, None).outlier == (1,)
    assert compare(Dtype.FLOAT32, ours, theirs, 64, 1e-8).outlier == (1,)
    assert compare(Dtype.FLOAT32, ours, theirs, 0, 1e-6).outlier is None


def test_the_worst_element_is_named() -> None:
    theirs = np.zeros((2, 3), np.float32)
    ours = theirs.copy()
    ours[1, 2], ours[0, 1] = 2.0, 1.0
    found = compare(Dtype.FLOAT32, ours, theirs, 0, None)
    assert (found.outlier, found.absolute, found.magnitude) == ((1, 2), 2.0, 2.0)


def test_not_a_number_is_beyond_every_tolerance() -> None:
    ours, theirs = np.array([math.nan], np.float32), np.array([1.0], np.float32)
    assert compare(Dtype.FLOAT32, ours, theirs, 1e6, 1e6).outlier == (0,)
    assert compare(Dtype.FLOAT32, ours, ours, 0, 0.0).outlier is None


def test_nothing_does_not_differ_from_nothing() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert compare(Dtype.FLOAT32, empty, empty, 0, 0.0).absolute == 0

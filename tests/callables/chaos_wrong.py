"""Models that answer the client of `make chaos` wrongly, each in its own way: it must see it."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from ipc_server.typed import Float32, Int64, Out


class Answer(NamedTuple):
    echo: Int64[1]
    y: Float32[16]


def one_bit(id: Int64[1], x: Float32[16]) -> Answer:
    """Twice as much, but for the lowest bit of one number in one request."""
    y = x * np.float32(2)
    if id[0] == 7:
        y[3] = np.nextafter(y[3], np.float32(np.inf))
    return Answer(id, y)


def another_number(id: Int64[1], x: Float32[16]) -> Answer:
    """The number of the request before."""
    return Answer(id - 1 if id[0] == 7 else id, x * np.float32(2))


def nothing(id: Int64[1], x: Float32[16], echo: Out[Int64[1]], y: Out[Float32[16]]) -> None:
    """No answer at all, said to be one."""
    if id[0] != 7:
        echo[...], y[...] = id, x * np.float32(2)


class Trailing(NamedTuple):
    echo: Int64[1]
    count: Int64[1]
    sum: Int64[1]
    trail: Float32[32]
    next_count: Int64[1]
    next_sum: Int64[1]
    next_trail: Float32[32]


def trailing(  # noqa: PLR0917
    id: Int64[1],
    x: Float32[32],
    n: Int64[()],
    old_count: Int64[1],
    old_sum: Int64[1],
    old_trail: Float32[32],
) -> Trailing:
    """The state of one request is lost."""
    count, total = old_count + 1, old_sum + id
    trail = x + old_trail * np.float32(0.5)
    kept = (old_count, old_sum, old_trail) if id[0] == 7 else (count, total, trail)
    return Trailing(id, count, total, trail, *kept)


def twice(  # noqa: PLR0917
    id: Int64[1],
    x: Float32[32],
    n: Int64[()],
    old_count: Int64[1],
    old_sum: Int64[1],
    old_trail: Float32[32],
) -> Trailing:
    """One request is applied twice."""
    if id[0] == 7:
        old_count, old_sum = old_count + 1, old_sum + id
        old_trail = x + old_trail * np.float32(0.5)
    count, total = old_count + 1, old_sum + id
    trail = x + old_trail * np.float32(0.5)
    return Trailing(id, count, total, trail, count, total, trail)


def slowly(id: Int64[1], x: Float32[16]) -> Answer:
    """Twice as much, but the seventh takes a while."""
    if id[0] == 7:
        time.sleep(0.05)
    return Answer(id, x * np.float32(2))

"""Functions that the tests serve as models, good and bad."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
import time
from typing import Annotated, NamedTuple, TypedDict

import numpy as np

from ipc_server.typed import Float32, Int64, Out, String

RNG = np.random.default_rng(4)
WEIGHTS = RNG.standard_normal((8, 3)).astype(np.float32)


def matmul(x: Float32["N", 8]) -> Float32["N", 3]:
    return x @ WEIGHTS


def matmul_in_place(x: Float32["N", 8], y: Out[Float32["N", 3]]) -> None:
    np.matmul(x, WEIGHTS, out=y)


def scale(x: Annotated[np.ndarray, "float32[4]"], factor: Float32[()]) -> Float32[4]:
    return x * factor


class Answer(NamedTuple):
    total: Float32[()]
    places: Int64["K"]


class ByName(TypedDict):
    total: Float32[()]
    places: Int64["K"]


def positive(x: Float32["N"]) -> Answer:
    return Answer(x.sum(dtype=np.float32), np.flatnonzero(x > 0))


def positive_by_name(x: Float32["N"]) -> ByName:
    return {"places": np.flatnonzero(x > 0), "total": x.sum(dtype=np.float32)}


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Float32[1]) -> Int64[()]:
        self.calls += 1
        return np.int64(self.calls)


counter = Counter()


class Slow(Counter):
    """Tells how often it was called, and takes as many seconds as it is told."""

    def __call__(self, x: Float32[1]) -> Int64[()]:
        time.sleep(float(x[0]))
        return super().__call__(x)


slow = Slow()
DATA = 3


def echo(x: Float32[2]) -> Float32[2]:
    return x


def addresses(x: Float32["N"], y: Out[Int64[2]], z: Out[Float32["N"]]) -> None:
    y[...] = x.ctypes.data, z.ctypes.data


def unannotated(x, y):
    y[...] = x


async def later(x: Float32[1]) -> Float32[1]:
    return x


# What each bad function does is chosen by the request, so that the next one can be good.
GOOD, BAD = 0.0, 1.0


def raises(x: Float32[1]) -> Float32[1]:
    if x[0]:
        raise TypeError("not\nthis\x1b way")
    return x


def wrong_shape(x: Float32[1]) -> Float32[1]:
    return np.zeros(2, np.float32) if x[0] else x


def wrong_dtype(x: Float32[1]) -> Float32[1]:
    return x.astype(np.float64) if x[0] else x


def wrong_kind(x: Float32[1]) -> Float32[1]:
    return 1.0 if x[0] else x


def nothing(x: Float32[1]) -> Float32[1]:
    return None if x[0] else x


def writes_input(x: Float32[1]) -> Float32[1]:
    if x[0]:
        x[0] = 2
    return x


def unlocks_input(x: Float32[1]) -> Float32[1]:
    if x[0]:
        x.flags.writeable = True
    return x


def out_of_bounds(x: Float32[1], y: Out[Float32[1]]) -> None:
    y[int(x[0])] = x[0]


def wild_write(x: Float32[1]) -> Float32[1]:
    if x[0]:
        ctypes.memset(0x10, 1, 8)
    return x


def leaves(x: Float32[1]) -> Float32[1]:
    if x[0]:
        sys.exit("that is all")
    return x


def interrupts(x: Float32[1]) -> Float32[1]:
    if x[0]:
        raise KeyboardInterrupt
    return x


def eats(x: Float32[1]) -> Float32[1]:
    bytearray(b"1") * (int(x[0]) << 20)
    return x


def ends(x: Float32[1]) -> Float32[1]:
    if x[0]:
        os._exit(7)
    return x


def prints(x: Float32[1]) -> Float32[1]:
    print("printed by a model")
    os.write(1, b"written by a model\n")
    return x


def ends_whatever_comes(a, b, c, d, e, f):  # noqa: PLR0917 - one of each type
    os._exit(7)


def forks(x: Float32[1]) -> Int64[()]:
    return np.int64(os.fork())


def forks_and_stays(x: Float32[1]) -> Int64[()]:
    child = os.fork()
    while child == 0:
        time.sleep(1)
    return np.int64(child)


def forks_and_raises(x: Float32[1]) -> Int64[()]:
    if (child := os.fork()) == 0:
        raise SystemExit(3)
    return np.int64(child)


def never_returns(x: Float32[1]) -> Float32[1]:
    while x[0]:
        pass
    return x


def holds_the_interpreter(x: Float32[1]) -> Float32[1]:
    if x[0]:
        ctypes.PyDLL(None).sleep(3600)
    return x


def backtracks(x: Float32[1]) -> Float32[1]:
    if x[0]:
        re.match(r"(a+)+$", "a" * 64 + "b")
    return x


def starts_a_thread(x: Float32[1]) -> Float32[1]:
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return x


def sleeps(x: Float32[1]) -> Float32[1]:
    time.sleep(float(x[0]))
    return x


def greet(names: String["N"], times: Int64[()]) -> String["N"]:
    return np.array([f"hallo {name} " * int(times) for name in names], object)


def long_words(text: String["N"]) -> String["K"]:
    return text[np.array([len(word) > 3 for word in text], bool)]


def not_text(text: String["N"]) -> String["N"]:
    return np.array([3 if word == "bad" else word for word in text], object)


def identity(x):
    return x


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def unspeakable(x: Float32[1]) -> Float32[1]:
    if x[0]:
        raise UnspeakableError
    return x

"""What a driver in Python is asked, line by line, on stdin: the twin of protocol.c, calls.c and caller.c."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SEEDS = 4
LEAST_CALLS = 20
LEAST_WARM_CALLS = 3
MOST_WARM_CALLS = 64
WARM_NS = 20_000_000
MOST_CALLS = 1 << 30

LINE_BYTES = 64
WORD_BYTES = 8

Array = NDArray[Any]


class Opened(Protocol):
    """A path that was opened: tensors in place, inputs and outputs in the model's order."""

    @property
    def inputs(self) -> Sequence[Array]:
        """The inputs."""

    @property
    def outputs(self) -> Sequence[Array]:
        """The outputs."""

    def run(self) -> object:
        """Run the model on what the inputs hold."""


def source(like: Array, seed: int) -> Array:
    """Give what an input is filled with."""
    if like.dtype == np.int64:
        return np.full(like.shape, 16000, np.int64)
    if like.dtype == np.float32:
        values = ((np.arange(like.size) + 31 * seed) & 255).astype(np.float32) * np.float32(1 / 256)
        return values.reshape(like.shape)
    raise ValueError(f"an input of {like.dtype}: the benchmark fills float32 and int64")


def words(output: Array) -> list[Array]:
    """See what is read of an output: the first word of each line, or what there is of it at the end."""
    octets = output.reshape(-1).view(np.uint8)
    whole = octets.size - octets.size % WORD_BYTES
    parts: list[Array] = [octets[:whole].view(np.uint64)[:: LINE_BYTES // WORD_BYTES]]
    if octets.size % LINE_BYTES < WORD_BYTES:
        parts.append(octets[whole:])
    return [part for part in parts if part.size]


class Driver:
    """A caller of a path."""

    def __init__(self, opened: Opened) -> None:
        """Prepare everything that a call should not have to."""
        self._opened = opened
        self._sources = [
            [(target, source(target, seed)) for target in opened.inputs] for seed in range(SEEDS)
        ]
        self._words = [part for output in opened.outputs for part in words(output)]

    def call(self, seed: int) -> None:
        """Fill, run, read: what is timed."""
        for target, values in self._sources[seed]:
            np.copyto(target, values)
        self._opened.run()
        for part in self._words:
            np.bitwise_xor.reduce(part)

    def outputs(self, seed: int) -> bytes:
        """Run with the inputs of a seed; the outputs' bytes."""
        for target in self._opened.inputs:
            np.copyto(target, source(target, seed))
        self._opened.run()
        return b"".join(output.tobytes() for output in self._opened.outputs)

    def time_calls(self, touch_bytes: int, count: int, budget_ns: int) -> Array:
        """Warm up, then time calls; the nanoseconds of each."""
        clock = time.perf_counter_ns
        touched = np.ones(-(-touch_bytes // WORD_BYTES), np.uint64)[:: LINE_BYTES // WORD_BYTES]
        samples = np.ones(count, np.uint64)
        end = clock() + WARM_NS
        for index in range(MOST_WARM_CALLS):
            touched += 1
            self.call(index % SEEDS)
            if index + 1 >= LEAST_WARM_CALLS and clock() > end:
                break
        made, last = 0, clock() + budget_ns
        while made < count and (made < LEAST_CALLS or clock() < last):
            touched += 1
            begin = clock()
            self.call(made % SEEDS)
            samples[made] = clock() - begin
            made += 1
        return samples[:made]


def obey(driver: Driver, line: str) -> int:
    """Do what one line asks; the number for `done`."""
    match line.split(" ", 4):
        case ["call", touch_bytes, count, budget_ns, file]:
            if int(count) > MOST_CALLS:
                raise ValueError(f"call: at most {MOST_CALLS} calls at a time, not {count}")
            samples = driver.time_calls(int(touch_bytes), int(count), int(budget_ns))
            Path(file).write_bytes(samples.astype("<u8").tobytes())
            return len(samples)
        case ["outputs", seeds, *file_words] if file_words:
            with Path(" ".join(file_words)).open("wb") as file_of_outputs:
                for seed in range(int(seeds)):
                    file_of_outputs.write(driver.outputs(seed))
            return int(seeds)
    raise ValueError(
        f'unknown command "{line}": expected `call TOUCH COUNT BUDGET_NS FILE` or `outputs SEEDS FILE`'
    )


def serve(opened: Opened) -> None:
    """Make one call, print `ready`, then do what the lines ask until they end."""
    driver = Driver(opened)
    driver.call(0)
    print("ready", flush=True)
    for line in sys.stdin:
        print(f"done {obey(driver, line.rstrip(chr(10)))}", flush=True)


def report_error(error: Exception) -> int:
    """Print a failure as the last line; the exit code that goes with it."""
    print("error", " ".join(str(error).split("\n")), flush=True)
    return 1

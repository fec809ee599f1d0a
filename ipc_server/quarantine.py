"""Keeps the inputs of requests that ended every worker that ran them: `sidecaml-probe` can run them again.

A folder a request: a `.npy` file an input, in the form that the probe reads, and `request.json` about it all.
Strings, which no `.npy` file has without pickles, are JSON: the probe runs no request with them again.
Nothing here ever fails a request or a worker, or holds them up for long: the inputs are copied, and a thread
writes the copies, for a disk may never answer.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ipc_server import memory
from ipc_server.abi import Dtype
from ipc_server.engines import string_arrays
from ipc_server.engines.numpy_arrays import bits
from ipc_server.errors import SidecamlError
from ipc_server.lane import GivenUp
from ipc_server.signature import Tensor, TensorSpec
from ipc_server.tensor import size_of

log = logging.getLogger(__name__)

REQUEST_FILE = "request.json"
# What a file takes besides its numbers, generously: header, name, the rest of a block.
_FILE_ROOM = 8192
# The most that a string takes as Python's and as JSON, in all forms that are there at once: by itself, and a
# byte of its text.
_STRING_MEMORY = 256
_TEXT_MEMORY = 24
_LONGEST_NAME = 80
_PART = ".part"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")

# Types that numpy lacks: bytes without a meaning of their own, as the probe reads them.
_OPAQUE = {
    Dtype.BFLOAT16: np.dtype("V2"),
    Dtype.FLOAT8E4M3FN: np.dtype("V1"),
    Dtype.FLOAT8E4M3FNUZ: np.dtype("V1"),
    Dtype.FLOAT8E5M2: np.dtype("V1"),
    Dtype.FLOAT8E5M2FNUZ: np.dtype("V1"),
    Dtype.FLOAT8E8M0: np.dtype("V1"),
}


@dataclass(frozen=True)
class Input:
    """An input of the request: what it is, where it lies, and the dimensions that came with the request."""

    spec: TensorSpec
    address: int
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return size_of(self.spec.dtype, self.dims) + self.spec.text_bytes

    @property
    def copy_bytes(self) -> int:
        """How much memory it takes to keep it, at most."""
        if self.spec.dtype is Dtype.STRING:
            return math.prod(self.dims) * _STRING_MEMORY + self.spec.text_bytes * _TEXT_MEMORY
        return self.size


class Quarantine:
    """A folder of bounded size; the oldest requests make room for new ones."""

    def __init__(self, folder: Path, max_bytes: int, wait_s: float) -> None:
        """Know the folder, which is made when it is first needed, and how long to wait for its disk.

        What is still being written then is written on, and told of in the log.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._wait_s = wait_s
        # The only one at a time: what a disk that does not answer holds up must not add up.
        self._writing: _Writing | None = None

    def keep(self, model: str, channel: int, request: GivenUp) -> Path | None:
        """Write a request's inputs; where they are, None when that could not be: the log says why."""
        try:
            return self._keep(model, channel, request)
        except Exception as error:
            # Whatever it is: the client waits for its answer.
            _tell_lost(channel, self._folder, error)
            return None

    def _keep(self, model: str, channel: int, request: GivenUp) -> Path | None:
        if self._writing and self._writing.is_alive():
            raise TimeoutError("the disk has not answered since those of an earlier one were to be written")
        inputs = _inputs(request)
        wanted = sum(given.size + _FILE_ROOM for given in inputs) + _FILE_ROOM
        if wanted > self._max_bytes:
            raise ValueError(f"they take {wanted} bytes and quarantine_max_bytes is {self._max_bytes}")
        _check_memory(sum(given.copy_bytes for given in inputs))
        copies = [_copy(given) for given in inputs]
        about = {"model": model, "channel": channel, "attempts": request.attempts}
        self._writing = _Writing(self._folder, self._max_bytes - wanted, about, copies)
        self._writing.start()
        self._writing.join(self._wait_s)
        if self._writing.is_alive():
            log.warning(
                "channel %d: the inputs of its request are not in %s yet: its disk has not answered for %g s",
                *(channel, self._folder, self._wait_s),
            )
        return self._writing.place


class _Writing(threading.Thread):
    """Writes copies of one request's inputs; a daemon, as no worker that ends waits for it."""

    def __init__(self, folder: Path, room: int, about: dict[str, Any], copies: Sequence[_Copy]) -> None:
        super().__init__(name="quarantine", daemon=True)
        self._folder = folder
        self._room = room
        self._about = about
        self._copies: Sequence[_Copy] = copies
        # Where they are, once they are.
        self.place: Path | None = None

    def run(self) -> None:
        try:
            self.place = self._write()
        except Exception as error:
            _tell_lost(self._about["channel"], self._folder, error)
        finally:
            # Until the next request is kept they would take memory that nobody counts.
            self._copies = ()

    def _write(self) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(self._folder, self._room)
        model, channel = self._about["model"], self._about["channel"]
        name = f"{time.strftime('%Y%m%dT%H%M%S')}-{model}-{channel}-{secrets.token_hex(4)}"
        part, place = self._folder / f"{name}{_PART}", self._folder / name
        try:
            part.mkdir(mode=0o700)
            described = [_write_input(part, number, copy) for number, copy in enumerate(self._copies)]
            _write_about(part, self._about, described)
            part.rename(place)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return place


def _check_memory(wanted: int) -> None:
    """Raise MemoryError where copies would bring the memory killer, to every worker that tried it."""
    free = memory.available()
    if wanted > free:
        raise MemoryError(f"a copy takes {wanted} bytes of memory and there are {free}")


def _tell_lost(channel: int, folder: Path, error: Exception) -> None:
    log.warning("channel %d: the inputs of its request cannot be kept in %s: %s", channel, folder, error)


def _inputs(request: GivenUp) -> list[Input]:
    """Give the inputs; BAD_DIMS when the request's dimensions are none."""
    specs = [(number, spec) for number, spec in enumerate(request.tensors) if not spec.output]
    return [
        Input(spec, request.address(number), request.dims(number) if spec.dynamic else spec.max_dims)
        for number, spec in specs
    ]


def _make_room(folder: Path, room: int) -> None:
    """Remove the oldest entries until the others take at most `room` bytes."""
    entries = sorted(_entries(folder))
    taken = sum(size for _, _, size in entries)
    for _, entry, size in entries:
        if taken <= room:
            return
        shutil.rmtree(entry, ignore_errors=True)
        taken -= size


def _entries(folder: Path) -> Iterator[tuple[float, Path, int]]:
    """Give age, place and size of everything that was kept; what else lies there is left alone."""
    for entry in folder.iterdir():
        try:
            if entry.is_symlink() or not ((entry / REQUEST_FILE).is_file() or entry.suffix == _PART):
                continue
            size = sum(file.stat().st_size + _FILE_ROOM for file in entry.iterdir())
            yield entry.stat().st_mtime, entry, size
        except FileNotFoundError:
            # Another worker makes room as well.
            continue


def _write_about(folder: Path, about: dict[str, Any], inputs: Sequence[dict[str, Any]]) -> None:
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    told = {**about, "time": when, "inputs": inputs, **_how_to_run(about["model"], inputs)}
    with _created(folder / REQUEST_FILE) as written:
        written.write(json.dumps(told, indent=2).encode())


def _write_input(folder: Path, number: int, copy: _Copy) -> dict[str, Any]:
    name = f"{number}-{_UNSAFE.sub('_', copy.row['name'])[:_LONGEST_NAME]}"
    if copy.problem:
        return copy.row | {"problem": copy.problem}
    name += ".npy" if copy.array is not None else ".json"
    with _created(folder / name) as file:
        if copy.array is not None:
            np.lib.format.write_array(file, copy.array, version=(1, 0), allow_pickle=False)
        else:
            file.write(json.dumps(copy.strings).encode())
    return copy.row | {"file": name}


@dataclass(frozen=True)
class _Copy:
    """What an input was when the request was given up: an array, strings, or why it is none."""

    row: dict[str, Any]
    array: NDArray[Any] | None = None
    strings: Any = None
    problem: str = ""


def _copy(given: Input) -> _Copy:
    spec = given.spec
    row = {"name": spec.name, "dtype": spec.dtype.name.lower(), "dims": list(given.dims)}
    if spec.dtype is not Dtype.STRING:
        return _Copy(row, array=_array(given))
    try:
        return _Copy(row, strings=string_arrays.read(given.address, spec, given.dims).tolist())
    except SidecamlError as error:
        return _Copy(row, problem=str(error))


def _array(given: Input) -> NDArray[Any]:
    spec = given.spec
    tensor = Tensor(spec.name, spec.dtype, tuple(given.dims))
    # A view as V2 of what has no dimensions is none.
    array = np.array(bits(given.address, tensor, given.dims, writable=False), order="C")
    opaque = _OPAQUE.get(spec.dtype)
    return array.view(opaque) if opaque else array


def _created(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _how_to_run(model: str, inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say how it is run again, from within its folder, or why not: it never runs with some inputs only."""
    others = [row["name"] for row in inputs if not row.get("file", "").endswith(".npy")]
    if others:
        which = ", ".join(map(repr, others))
        return {"run": None, "why_not": f"sidecaml-probe reads .npy files, and there is none of {which}"}
    files = [f"--input={row['name']}={row['file']}" for row in inputs]
    return {"run": shlex.join(["sidecaml-probe", "run", model, *files])}


def sentence(attempts: int, place: Path | None) -> str:
    """Say what became of a request that is given up."""
    told = f"{attempts} workers died while they ran this request: it is not run again"
    return f"{told}; its inputs are in {place}" if place else told

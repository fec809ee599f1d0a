"""Random inputs, as bytes of a slot, and the answers to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ipc_server import _core
from ipc_server.abi import Dtype, ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown
from ipc_server.signature import Signature, Tensor
from ipc_server.suggest import hint
from ipc_server.tensor import NUMPY_DTYPE, OFFSET_BYTES, size_of

# Whole numbers are drawn from 0 to 9, unless a range is asked for.
RANGE: Final = (0, 10)
_FLOATS: Final = (Dtype.FLOAT16, Dtype.FLOAT32, Dtype.FLOAT64, Dtype.BFLOAT16)
_COMPLEX: Final = (Dtype.COMPLEX64, Dtype.COMPLEX128)
_WHOLE: Final = (
    *(Dtype.INT8, Dtype.INT16, Dtype.INT32, Dtype.INT64),
    *(Dtype.UINT8, Dtype.UINT16, Dtype.UINT32, Dtype.UINT64),
)
_WORDS: Final = (b"", b"a", b"load", "m\u00fcller".encode())

Ranges = Mapping[str, tuple[float, float]]
# Of each tensor, in order.
Row = list[bytes]


def check_ranges(inputs: Sequence[Tensor], ranges: Ranges) -> None:
    """Raise INVALID for a range that no input has, or that an input cannot take."""
    by_name = {tensor.name: tensor for tensor in inputs}
    for name, limits in ranges.items():
        if name not in by_name:
            raise _invalid(f"--range: the model has no input {shown(name)}: {hint(name, list(by_name))}")
        dtype = by_name[name].dtype
        if dtype not in (*_FLOATS, *_WHOLE):
            raise _invalid(f"--range: input {shown(name)} is {dtype.name.lower()}, which takes no range")
        if dtype in _WHOLE:
            _check_whole(name, dtype, limits)


def _check_whole(name: str, dtype: Dtype, limits: tuple[float, float]) -> None:
    info = np.iinfo(NUMPY_DTYPE[dtype])
    low, high = limits
    if not low.is_integer() or not high.is_integer() or low < info.min or high - 1 > info.max:
        raise _invalid(
            f"--range: input {shown(name)} is {dtype.name.lower()}: expected whole numbers from {info.min} "
            f"to {info.max}, got {low:g}:{high:g}"
        )


def draw(core: _core.Channel, signature: Signature, ranges: Ranges, rng: np.random.Generator) -> Row:
    """Draw all inputs of one request, in the largest dimensions of the channel."""
    return [
        _drawn(tensor.dtype, spec[4], ranges.get(tensor.name), spec[8], rng)
        for tensor, spec in zip(signature.inputs, core.layout.tensors, strict=False)
    ]


def _drawn(
    dtype: Dtype,
    shape: tuple[int, ...],
    limits: tuple[float, float] | None,
    text_bytes: int,
    rng: np.random.Generator,
) -> bytes:
    if dtype is Dtype.STRING:
        return _strings(math.prod(shape), text_bytes, rng)
    if dtype in (*_FLOATS, *_WHOLE, *_COMPLEX, Dtype.BOOL):
        return _numbers(dtype, shape, limits, rng).tobytes()
    # Packed types and those of 8 bits: any bits, but for the highest, so that none is an infinity.
    return rng.integers(0, 0x40, size_of(dtype, shape), np.uint8).tobytes()


def _numbers(
    dtype: Dtype, shape: tuple[int, ...], limits: tuple[float, float] | None, rng: np.random.Generator
) -> NDArray[Any]:
    if dtype in _COMPLEX:
        parts = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        return np.asarray(parts).astype(NUMPY_DTYPE[dtype])
    if dtype in _FLOATS:
        found = np.asarray(rng.uniform(*limits, shape) if limits else rng.standard_normal(shape))
        if dtype is Dtype.BFLOAT16:
            # The upper half of a float32 is the bfloat16 below it.
            return (found.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return found.astype(NUMPY_DTYPE[dtype])
    low, high = (0, 2) if dtype is Dtype.BOOL else limits or RANGE
    # Of the others, all fit in 64 bits with a sign.
    wide = np.uint64 if dtype is Dtype.UINT64 else np.int64
    return np.asarray(rng.integers(int(low), int(high), shape, wide)).astype(NUMPY_DTYPE[dtype])


def _strings(count: int, text_bytes: int, rng: np.random.Generator) -> bytes:
    """Draw words: a table and, behind it, text, as a slot of this size has them."""
    words = [_WORDS[index] for index in rng.integers(0, len(_WORDS), count)]
    place = bytearray(OFFSET_BYTES * (count + 1) + text_bytes)
    _core.write_strings(place, count, words if sum(map(len, words)) <= text_bytes else [b""] * count)
    return bytes(place)


def answer(core: _core.Channel, signature: Signature, row: Row) -> Row:
    """Have one request alone answered: the outputs' bytes. Raises what the request fails with."""
    slot = core.claim()
    for number, image in enumerate(row):
        memoryview(core.tensor(slot, number))[: len(image)] = image
    core.submit()
    core.wait(slot)
    found = [
        _output(core, slot, number, tensor.dtype)
        for number, tensor in enumerate(signature.outputs, len(signature.inputs))
    ]
    core.release(slot)
    return found


def _output(core: _core.Channel, slot: int, number: int, dtype: Dtype) -> bytes:
    memory = memoryview(core.tensor(slot, number))
    size = size_of(dtype, core.get_dims(slot, number))
    if dtype is not Dtype.STRING:
        return bytes(memory[:size])
    text = len(memory) - core.layout.tensors[number][8]
    length = int.from_bytes(memory[size - OFFSET_BYTES : size], "little")
    return bytes(memory[:size]) + bytes(memory[text : text + length])


def _invalid(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.INVALID, what)

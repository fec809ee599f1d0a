"""Tensors of strings as numpy has them: arrays of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown


def object_array(items: Sequence[str], dims: Sequence[int]) -> NDArray[Any]:
    """Make an array of these strings, in C order."""
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(tuple(dims))


def strings_array(name: str, strings: object, rank: int) -> NDArray[Any]:
    """Take an array, or nested lists, of so many dimensions; BAD_DIMS for others."""
    array = np.asarray(strings, object)
    if array.ndim != rank:
        raise SidecamlError(
            ErrorCode.BAD_DIMS,
            f"input {shown(name)}: expected strings in {rank} dimensions, got {array.ndim}",
        )
    return array


def encoded(name: str, array: NDArray[Any]) -> list[bytes]:
    """Give each string as UTF-8, in C order; INVALID for what is no text."""
    texts = []
    for index, item in enumerate(array.ravel()):
        if not isinstance(item, str):
            raise SidecamlError(
                ErrorCode.INVALID, f"input {shown(name)}: string {index}: expected str, got {shown(item)}"
            )
        try:
            texts.append(item.encode())
        except UnicodeEncodeError:
            raise SidecamlError(
                ErrorCode.INVALID,
                f"input {shown(name)}: string {index} is no text that UTF-8 has: {shown(item)}",
            ) from None
    return texts

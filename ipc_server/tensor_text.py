"""Reads a tensor as people write it: `float32[N,64]`, a scalar `float32[]`, or named, `x=float32[N,64]`."""

from __future__ import annotations

import re

from ipc_server.abi import MAX_RANK, Dtype
from ipc_server.messages import shown
from ipc_server.signature import LARGEST_DIM, Tensor
from ipc_server.suggest import hint

EXAMPLE = "float32[N,64]"

_TYPE = re.compile(r"\s*([A-Za-z0-9]+)\s*\[([^\[\]]*)\]\s*")
_DIM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class TensorTextError(ValueError):
    """A text that is no tensor: says what was expected, what came and what is wrong with it."""


def parse_type(name: str, text: str) -> Tensor:
    """Read the type of the tensor called so. Raises TensorTextError."""
    match = _TYPE.fullmatch(text)
    if not match:
        raise _bad(name, text, f"expected an element type and the dimensions in brackets, such as {EXAMPLE}")
    word, dims = match.groups()
    names = [dtype.name.lower() for dtype in Dtype]
    if word not in names:
        raise _bad(name, text, f"no element type is called {shown(word)}: {hint(word, names)}")
    shape = tuple(_dim(name, text, dim.strip()) for dim in dims.split(",")) if dims.strip() else ()
    if len(shape) > MAX_RANK:
        raise _bad(name, text, f"it has {len(shape)} dimensions: at most {MAX_RANK} are carried")
    return Tensor(name, Dtype[word.upper()], shape)


def parse_named(text: str) -> Tensor:
    """Read a tensor with its name: `x=float32[N,64]`. Raises TensorTextError."""
    name, separator, type_ = text.partition("=")
    if not separator or not name.strip():
        raise TensorTextError(f"expected NAME=TYPE[DIMENSIONS], such as x={EXAMPLE}, got {shown(text)}")
    return parse_type(name.strip(), type_)


def _dim(name: str, text: str, dim: str) -> int | str:
    if re.fullmatch(r"[0-9]{1,19}", dim):
        size = int(dim)
        if size > LARGEST_DIM:
            raise _bad(name, text, f"a dimension of {dim} is more than the {LARGEST_DIM} that one may have")
        return size
    if not _DIM_NAME.fullmatch(dim):
        raise _bad(name, text, f"a dimension is a number, or a name where it may change: got {shown(dim)}")
    return dim


def _bad(name: str, text: str, what: str) -> TensorTextError:
    return TensorTextError(f"tensor {shown(name)}: {shown(text)}: {what}")

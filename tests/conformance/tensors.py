"""Tensors as their bits: what two ways of running a model are compared by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


@dataclass(frozen=True)
class Tensor:
    """An element type of `TensorProto`, dimensions, and the bytes as ONNX packs them, or each string's."""

    type: int
    dims: tuple[int, ...]
    data: bytes | tuple[bytes, ...]

    @property
    def type_name(self) -> str:
        """The element type as ONNX writes it."""
        return TensorProto.DataType.Name(self.type).lower()

    def array(self) -> np.ndarray:
        """See it as ONNX's own reader does."""
        return numpy_helper.to_array(self.proto())

    def proto(self) -> TensorProto:
        """Give ONNX's message."""
        proto = TensorProto(data_type=self.type, dims=self.dims)
        if isinstance(self.data, bytes):
            proto.raw_data = self.data
        else:
            proto.string_data.extend(self.data)
        return proto

    def write(self, path: Path) -> None:
        """Write ONNX's message."""
        path.write_bytes(self.proto().SerializeToString())


def tensor_of(proto: TensorProto) -> Tensor:
    """Take a message's bits, in whichever of its fields they are."""
    dims = tuple(proto.dims)
    if proto.data_type == TensorProto.STRING:
        return Tensor(proto.data_type, dims, tuple(proto.string_data))
    if not proto.HasField("raw_data"):
        proto = numpy_helper.from_array(numpy_helper.to_array(proto))
    return Tensor(proto.data_type, dims, proto.raw_data)


def tensor_of_array(array: Any) -> Tensor:
    """Take an array's bits."""
    return tensor_of(numpy_helper.from_array(np.asarray(array)))


def read(path: Path) -> Tensor:
    """Read a file that holds a `TensorProto`."""
    return tensor_of(onnx.load_tensor(path))


def read_all(folder: Path, kind: str) -> list[Tensor]:
    """Read `input_0.pb`, `input_1.pb` and so on, or outputs."""
    return [read(path) for path in numbered(folder, kind)]


def numbered(folder: Path, kind: str) -> list[Path]:
    """List `input_0.pb`, `input_1.pb` and so on, or outputs."""
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [folder / f"{kind}_{number}.pb" for number in range(count)]


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> str:
    """Say where the bits differ first; "" when they are the same."""
    if len(found) != len(expected):
        return f"{len(found)} outputs instead of {len(expected)}"
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one != other:
            return f"output {number}: {_difference(one, other)}"
    return ""


def _difference(found: Tensor, expected: Tensor) -> str:
    if found.type != expected.type:
        return f"{found.type_name} instead of {expected.type_name}"
    if found.dims != expected.dims:
        return f"dimensions {list(found.dims)} instead of {list(expected.dims)}"
    if len(found.data) != len(expected.data):
        unit = "bytes" if isinstance(expected.data, bytes) else "strings"
        return f"{len(found.data)} {unit} instead of {len(expected.data)}"
    pairs = enumerate(zip(found.data, expected.data, strict=True))
    place, (one, other) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
    unit = "byte" if isinstance(expected.data, bytes) else "string"
    return f"{unit} {place} of {len(expected.data)} is {one!r} instead of {other!r}"

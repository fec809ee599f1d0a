"""Annotations of functions that run as models: `def run(x: Float32["N", 64]) -> Float32["N", 10]`.

Each is `typing.Annotated` with a tensor's text, so `Annotated[np.ndarray, "float32[N,64]"]` says the same. A
dimension is a size, or a name where requests may differ; a scalar is `Float32[()]`. A parameter that is an
output, to be written in place, is `Out[Float32["N", 10]]`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import numpy as np

OUT: Final = "out"

Dim = int | str


class Element:
    """An element type, which makes annotations of the dimensions that follow it."""

    def __init__(self, name: str) -> None:
        """Name the type as signatures do."""
        self.name = name

    def __getitem__(self, dims: Dim | tuple[Dim, ...]) -> Any:
        """Annotate a tensor of these dimensions."""
        listed = dims if isinstance(dims, tuple) else (dims,)
        return Annotated[np.ndarray, f"{self.name}[{','.join(map(str, listed))}]"]


class _Out:
    def __getitem__(self, tensor: Any) -> Any:
        """Annotate an output that is written in place."""
        return Annotated[tensor, OUT]


Out: Final = _Out()
Bool: Final = Element("bool")
Int8: Final = Element("int8")
Int16: Final = Element("int16")
Int32: Final = Element("int32")
Int64: Final = Element("int64")
Uint8: Final = Element("uint8")
Uint16: Final = Element("uint16")
Uint32: Final = Element("uint32")
Uint64: Final = Element("uint64")
Float16: Final = Element("float16")
Float32: Final = Element("float32")
Float64: Final = Element("float64")
Bfloat16: Final = Element("bfloat16")
Complex64: Final = Element("complex64")
Complex128: Final = Element("complex128")
Float8E4M3FN: Final = Element("float8e4m3fn")
Float8E4M3FNUZ: Final = Element("float8e4m3fnuz")
Float8E5M2: Final = Element("float8e5m2")
Float8E5M2FNUZ: Final = Element("float8e5m2fnuz")
Float8E8M0: Final = Element("float8e8m0")
String: Final = Element("string")

"""What ml_dtypes, numpy and ONNX's Cast make of numbers: `conversions.py FOLDER` writes it, for OCaml tests.

Of each element type TYPE: TYPE.values, the float32 of every code; TYPE.inputs, numbers in float32 with all
that lies between two of the type's; TYPE.plain and TYPE.saturated, the codes that come of them. Codes have
8 bits, or 16.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CAST_OPSET = 25
IR_VERSION = 12
RANDOM_INPUTS = 200_000
# Infinity, the largest, the smallest, around the smallest normal number, and NaNs, quiet and signalling.
EDGES = [0x7F800000, 0x7F7FFFFF, 1, 0x007FFFFF, 0x00800000, 0x7FC00000, 0x7FC00001, 0x7FE12345, 0x7F800001]

FLOATS = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8e5m2": ml_dtypes.float8_e5m2,
    "float8e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float4e2m1": ml_dtypes.float4_e2m1fn,
    "float8e8m0": ml_dtypes.float8_e8m0fnu,
}
INTEGERS = {
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "int2": ml_dtypes.int2,
    "uint2": ml_dtypes.uint2,
}


def codes_of(dtype: type) -> np.ndarray:
    """Give every code of a type, in the unsigned integers that hold it."""
    if dtype in (np.float16, ml_dtypes.bfloat16):
        return np.arange(1 << 16, dtype=np.uint16)
    return np.arange(1 << (4 if dtype is ml_dtypes.float4_e2m1fn else 8), dtype=np.uint8)


def values_of(dtype: type) -> np.ndarray:
    """Give the numbers of those codes."""
    return codes_of(dtype).view(dtype).astype(np.float32)


def inputs_for(dtype: type) -> np.ndarray:
    """Give a type's numbers, the middles between them, what is next to either, and edges of float32."""
    values = values_of(dtype)
    finite = np.unique(values[np.isfinite(values)])
    middles = (finite[:-1].astype(np.float64) + finite[1:].astype(np.float64)) / 2
    exact = np.concatenate([finite, middles.astype(np.float32), 2 * finite])
    edges = np.array(EDGES, np.uint32)
    noise = np.random.default_rng(0).integers(0, 1 << 32, RANDOM_INPUTS, dtype=np.uint32)
    around = [np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, np.float32(-np.inf))]
    found = np.concatenate([exact, *around, edges.view(np.float32), noise.view(np.float32)])
    return np.concatenate([found, -found])


def cast(inputs: np.ndarray, name: str, **attributes: object) -> np.ndarray:
    """Give what ONNX Runtime's Cast makes of float32."""
    to = getattr(TensorProto, name.upper())
    node = helper.make_node("Cast", ["x"], ["y"], to=to, **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph([node], "cast", [x], [helper.make_tensor_value_info("y", to, ["N"])])
    imports = [helper.make_opsetid("", CAST_OPSET)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = np.zeros(len(inputs), np.uint8)
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, inputs.shape, inputs.ctypes.data)
    binding.bind_output("y", "cpu", 0, to, outputs.shape, outputs.ctypes.data)
    session.run_with_iobinding(binding)
    return outputs


def write(folder: Path, name: str, array: np.ndarray) -> None:
    """Write an array's bytes."""
    (folder / name).write_bytes(array.tobytes())


def write_float(folder: Path, name: str, dtype: type) -> None:
    """Write what is known of one type of floating-point numbers."""
    inputs = inputs_for(dtype)
    plain = inputs.astype(dtype).view(codes_of(dtype).dtype)
    write(folder, f"{name}.values", values_of(dtype))
    write(folder, f"{name}.inputs", inputs)
    if name == "float8e8m0":
        for mode in ("up", "down", "nearest"):
            for suffix, saturate in (("plain", 0), ("saturated", 1)):
                codes = cast(inputs, name, saturate=saturate, round_mode=mode)
                write(folder, f"{name}.{mode}.{suffix}", codes)
        return
    write(folder, f"{name}.plain", plain)
    if name.startswith("float8"):
        # Of NaN's codes each library has its own.
        saturated = cast(inputs, name, saturate=1)
        write(folder, f"{name}.saturated", np.where(np.isnan(inputs), plain, saturated))


def write_integer(folder: Path, name: str, dtype: type) -> None:
    """Write an odd count of numbers, what a packed type keeps of them, and the bytes that ONNX packs."""
    numbers = np.arange(-128, 127, dtype=np.int8)
    narrowed = numbers.astype(dtype)
    write(folder, f"{name}.inputs", numbers)
    write(folder, f"{name}.numbers", narrowed.astype(np.int8))
    write(folder, f"{name}.packed", np.frombuffer(numpy_helper.from_array(narrowed).raw_data, np.uint8))


def main(folder: Path) -> None:
    """Write everything."""
    np.seterr(all="ignore")
    for name, dtype in FLOATS.items():
        write_float(folder, name, dtype)
    for name, dtype in INTEGERS.items():
        write_integer(folder, name, dtype)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Small ONNX models for the tests, each written to the path given: `from models import small_mlp`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
SEED = 20240607

Shape = Sequence[int | str]

ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    **{
        name: TensorProto.DataType.Value(name.upper())
        for name in (
            *(
                "float16",
                "bfloat16",
                "int8",
                "int16",
                "int32",
                "int64",
                "uint8",
                "uint16",
                "uint32",
                "uint64",
            ),
            *("bool", "complex64", "complex128", "string", "int4", "uint4", "int2", "uint2", "float4e2m1"),
            *("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0"),
        )
    },
}
# Of the types that are younger than OPSET.
FIRST_OPSET = {
    **{ONNX_TYPES[name]: 19 for name in ("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")},
    **{ONNX_TYPES[name]: 21 for name in ("int4", "uint4")},
    **{ONNX_TYPES[name]: 23 for name in ("float4e2m1",)},
    **{ONNX_TYPES[name]: 24 for name in ("float8e8m0",)},
    **{ONNX_TYPES[name]: 25 for name in ("int2", "uint2")},
}
# Of operators that are.
OPERATORS = {"StringConcat": 20}
# For these ONNX Runtime has no Identity.
WITHOUT_IDENTITY = {"complex64", "complex128", "int4", "uint4", "float4e2m1", "int2", "uint2", "float8e8m0"}
IDENTITY_TYPES = [name for name in ONNX_TYPES if name not in {*WITHOUT_IDENTITY, "string"}]


def value(name: str, dtype: str, shape: Shape) -> onnx.ValueInfoProto:
    """Describe one input or output; a dimension given as a string is dynamic."""
    return helper.make_tensor_value_info(name, ONNX_TYPES[dtype], list(shape))


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a checked model of these nodes."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), path.stem, list(inputs), list(outputs), initializers)
    kinds = [tensor.type.tensor_type.elem_type for tensor in (*inputs, *outputs)]
    firsts = [
        *(FIRST_OPSET.get(kind, OPSET) for kind in kinds),
        *(OPERATORS.get(n.op_type, OPSET) for n in nodes),
    ]
    opsets = [helper.make_opsetid("", max(OPSET, *firsts))]
    ir_version = max(helper.find_min_ir_version_for(opsets), IR_VERSION)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def identity(dtype: str, shape: Shape, path: Path) -> Path:
    """`y` = `x`, of any element type and shape."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], [value("x", dtype, shape)], [value("y", dtype, shape)])


def splits(path: Path) -> Path:
    """`y`, a sequence, from `x` float32[4]: what no channel carries."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    y = helper.make_value_info("y", helper.make_sequence_type_proto(tensor))
    return save(path, [helper.make_node("SplitToSequence", ["x"], ["y"])], [value("x", "float32", [4])], [y])


def small_mlp(path: Path) -> Path:
    """`x` float32[1,64] to `y` float32[1,10] through two hidden layers of 256."""
    return _mlp(path, 1)


def dynamic_mlp(path: Path) -> Path:
    """The network of `small_mlp` over `x` float32[N,64]."""
    return _mlp(path, "N")


def _mlp(path: Path, batch: int | str) -> Path:
    random = np.random.default_rng(SEED)
    sizes = [64, 256, 256, 10]
    constants: dict[str, np.ndarray] = {}
    nodes = []
    current = "x"
    for layer, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        last = layer == len(sizes) - 2
        constants[f"w{layer}"] = (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        constants[f"b{layer}"] = random.standard_normal(columns).astype(np.float32)
        gemm = "y" if last else f"g{layer}"
        nodes.append(helper.make_node("Gemm", [current, f"w{layer}", f"b{layer}"], [gemm]))
        if not last:
            nodes.append(helper.make_node("Relu", [gemm], [f"r{layer}"]))
            current = f"r{layer}"
    return save(
        path, nodes, [value("x", "float32", [batch, 64])], [value("y", "float32", [batch, 10])], constants
    )


def rolled(path: Path, times: int = 12) -> Path:
    """`y` = `x`, float32[N,256], rolled by `times` along its rows, by as many products: to the bit."""
    size = 256
    constants = {"step": np.roll(np.eye(size, dtype=np.float32), 1, axis=1)}
    names = ["x", *(f"x{number}" for number in range(1, times)), "y"]
    nodes = [
        helper.make_node("MatMul", [before, "step"], [after]) for before, after in itertools.pairwise(names)
    ]
    inputs, outputs = [value("x", "float32", ["N", size])], [value("y", "float32", ["N", size])]
    return save(path, nodes, inputs, outputs, constants)


def two_in_two_out(path: Path) -> Path:
    """`a` float32[3,4] and `b` int64[] to `sum` = a + b and `shape` = [3, 4]."""
    nodes = [
        helper.make_node("Cast", ["b"], ["b_float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["a", "b_float"], ["sum"]),
        helper.make_node("Shape", ["a"], ["shape"]),
    ]
    inputs = [value("a", "float32", [3, 4]), value("b", "int64", [])]
    return save(path, nodes, inputs, [value("sum", "float32", [3, 4]), value("shape", "int64", [2])])


def slow(path: Path) -> Path:
    """`n` matrix products of 128 x 128 in a row, 3 to 20 µs each: `n` int64[] to `y` float32[128,128]."""
    size = 128
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "step"], ["next"]),
            helper.make_node("Identity", ["going"], ["still_going"]),
        ],
        "body",
        [value("index", "int64", []), value("going", "bool", []), value("state", "float32", [size, size])],
        [value("still_going", "bool", []), value("next", "float32", [size, size])],
    )
    node = helper.make_node("Loop", ["n", "", "start"], ["y"], body=body)
    constants = {
        "start": np.eye(size, dtype=np.float32),
        "step": np.roll(np.eye(size, dtype=np.float32), 1, axis=1),
    }
    return save(path, [node], [value("n", "int64", [])], [value("y", "float32", [size, size])], constants)


def slow_total(path: Path) -> Path:
    """Carry the sum of all `x` so far, which is `y`, int64[16], after `n` matrix products as in `slow`."""
    size = 128
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "step"], ["next"]),
            helper.make_node("Identity", ["going"], ["still_going"]),
        ],
        "body",
        [value("index", "int64", []), value("going", "bool", []), value("state", "float32", [size, size])],
        [value("still_going", "bool", []), value("next", "float32", [size, size])],
    )
    nodes = [
        helper.make_node("Loop", ["n", "", "start"], ["product"], body=body),
        helper.make_node("ReduceSum", ["product"], ["ones"], keepdims=0),
        helper.make_node("Cast", ["ones"], ["counted"], to=TensorProto.INT64),
        helper.make_node("Sub", ["counted", "count"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["same"]),
        helper.make_node("Add", ["same", "sum"], ["y"]),
        helper.make_node("Identity", ["y"], ["next_sum"]),
    ]
    inputs = [value("n", "int64", []), value("x", "int64", [16]), value("sum", "int64", [16])]
    constants = {
        "start": np.eye(size, dtype=np.float32),
        "step": np.roll(np.eye(size, dtype=np.float32), 1, axis=1),
        "count": np.array(size, np.int64),
    }
    return save(path, nodes, inputs, [value("y", "int64", [16]), value("next_sum", "int64", [16])], constants)


def rereads(path: Path) -> Path:
    """`y` = `x` to the power of `n`, all float32[256,256]: `x` is read again at each of `n` steps."""
    size = 256
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "x"], ["next"]),
            helper.make_node("Identity", ["going"], ["still_going"]),
        ],
        "body",
        [value("index", "int64", []), value("going", "bool", []), value("state", "float32", [size, size])],
        [value("still_going", "bool", []), value("next", "float32", [size, size])],
    )
    node = helper.make_node("Loop", ["n", "", "start"], ["y"], body=body)
    inputs = [value("n", "int64", []), value("x", "float32", [size, size])]
    constants = {"start": np.eye(size, dtype=np.float32)}
    return save(path, [node], inputs, [value("y", "float32", [size, size])], constants)


def top_half(path: Path, size: int) -> Path:
    """`y` and `places` = the larger half of `x`, float32[size], sorted."""
    node = helper.make_node("TopK", ["x", "half"], ["y", "places"])
    outputs = [value("y", "float32", [size // 2]), value("places", "int64", [size // 2])]
    constants = {"half": np.array([size // 2], np.int64)}
    return save(path, [node], [value("x", "float32", [size])], outputs, constants)


def fails_inside(path: Path) -> Path:
    """`x` float32[6] seen as `shape` int64[2]: `y` = `x` + its sum; a kernel fails where it cannot hold 6."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["seen"]),
        helper.make_node("ReduceSum", ["seen"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["y"]),
    ]
    inputs = [value("x", "float32", [6]), value("shape", "int64", [2])]
    return save(path, nodes, inputs, [value("y", "float32", [6])])


def rows_of_a_table(path: Path) -> Path:
    """`y` float32[N,4] = the rows of a table of 100 at `index` int64[N]: a kernel fails beyond its end."""
    node = helper.make_node("Gather", ["table", "index"], ["y"])
    constants = {"table": np.arange(400, dtype=np.float32).reshape(100, 4)}
    return save(path, [node], [value("index", "int64", ["N"])], [value("y", "float32", ["N", 4])], constants)


def data_dependent(path: Path) -> Path:
    """Positions of what is not zero: `x` float32[8] to `y` int64[1,count]."""
    node = helper.make_node("NonZero", ["x"], ["y"])
    return save(path, [node], [value("x", "float32", [8])], [value("y", "int64", [1, "count"])])


def topk(path: Path) -> Path:
    """`y`, the larger half of `x` float32[32768], sorted: each comparison reads the input again."""
    node = helper.make_node("TopK", ["x", "k"], ["y", "places"])
    outputs = [value("y", "float32", [16384]), value("places", "int64", [16384])]
    return save(path, [node], [value("x", "float32", [32768])], outputs, {"k": np.array([16384])})


def scalar(path: Path) -> Path:
    """`y` = 2 `x`, both float32[]."""
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    constants = {"two": np.array(2, dtype=np.float32)}
    return save(path, [node], [value("x", "float32", [])], [value("y", "float32", [])], constants)


def recurrent(path: Path, state: Shape = (8,), x: Shape = (8,), after: Shape | None = None) -> Path:
    """y = x + state / 2 and next = tanh(y); a `shape` other than [8] makes it fail inside."""
    nodes = [
        helper.make_node("Reshape", ["ones", "shape"], ["one"], name="refuse"),
        helper.make_node("Mul", ["state", "half"], ["faded"]),
        helper.make_node("Mul", ["x", "one"], ["same"]),
        helper.make_node("Add", ["same", "faded"], ["y"]),
        helper.make_node("Tanh", ["y"], ["next"]),
    ]
    inputs = [value("x", "float32", x), value("state", "float32", state), value("shape", "int64", [1])]
    outputs = [value("y", "float32", x), value("next", "float32", after or state)]
    constants = {"ones": np.ones(8, np.float32), "half": np.array(0.5, np.float32)}
    return save(path, nodes, inputs, outputs, constants)

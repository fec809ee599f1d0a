"""Writes the models of test_ort_*.c into a folder: ort_models.py FOLDER, with tests/ on PYTHONPATH."""

from __future__ import annotations

import sys
from pathlib import Path

import models
from models import value
from onnx import TensorProto, helper


def unchecked(path: Path, nodes: list, inputs: list, outputs: list) -> None:
    """Write a model that need not be valid."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def all_types(path: Path) -> None:
    """Every element type that ONNX Runtime passes through as it is."""
    names = models.IDENTITY_TYPES
    nodes = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in names]
    groups = [[value(f"{way}_{name}", name, ["N", 3]) for name in names] for way in ("in", "out")]
    models.save(path, nodes, *groups)


def containers(folder: Path) -> None:
    """Write inputs and outputs that are no tensors: sequences, optionals, maps."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    x = value("x", "float32", [2])
    y = helper.make_value_info("y", helper.make_sequence_type_proto(tensor))
    unchecked(folder / "sequence.onnx", [helper.make_node("SequenceConstruct", ["x"], ["y"])], [x], [y])
    optional = helper.make_value_info("x", helper.make_optional_type_proto(tensor))
    has = helper.make_node("OptionalHasElement", ["x"], ["y"])
    unchecked(folder / "optional.onnx", [has], [optional], [value("y", "bool", [])])


def bad_names(folder: Path) -> None:
    """Write names that are not UTF-8, of a tensor and of a dimension."""
    for kind, name, dim in (("tensor", "QQQQ", "N"), ("dim", "x", "QQQQ")):
        path = folder / f"bad_{kind}_name.onnx"
        node = helper.make_node("Abs", [name], ["y"])
        unchecked(path, [node], [value(name, "float32", [dim])], [value("y", "float32", [dim])])
        path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xffa\xc3\x28"))


def dynamic(folder: Path) -> None:
    """Write dimensions with and without names, and outputs that are not as declared."""
    shape = [None, "M", -1, 2]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y"))
    unchecked(folder / "unnamed.onnx", [helper.make_node("Abs", ["x"], ["y"])], [x], [y])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    axes = helper.make_node("Constant", [], ["a"], value_ints=[0])
    node = helper.make_node("Unsqueeze", ["x", "a"], ["y"])
    unchecked(folder / "undeclared.onnx", [axes, node], [x], [y])
    huge = value("x", "float32", [2**40, 2**20])
    unchecked(
        folder / "huge.onnx", [helper.make_node("Shape", ["x"], ["y"])], [huge], [value("y", "int64", [2])]
    )


def main(folder: Path) -> None:
    """Write them all."""
    folder.mkdir(parents=True, exist_ok=True)
    models.identity("float32", [4], folder / "identity.onnx")
    models.identity("string", [2], folder / "strings.onnx")
    models.identity("float32", [1] * 17, folder / "rank_17.onnx")
    models.dynamic_mlp(folder / "dynamic_mlp.onnx")
    models.fails_inside(folder / "fails_inside.onnx")
    models.data_dependent(folder / "data_dependent.onnx")
    models.slow(folder / "slow.onnx")
    all_types(folder / "all_types.onnx")
    nodes = [helper.make_node("Identity", ["x"], [f"y{i}"]) for i in range(256)]
    models.save(
        folder / "tensors_257.onnx",
        nodes,
        [value("x", "int8", [])],
        [value(f"y{i}", "int8", []) for i in range(256)],
    )
    containers(folder)
    bad_names(folder)
    dynamic(folder)
    (folder / "empty.onnx").touch()
    (folder / "garbage.onnx").write_bytes(b"garbage" * 100)
    (folder / "cut.onnx").write_bytes((folder / "dynamic_mlp.onnx").read_bytes()[:5000])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

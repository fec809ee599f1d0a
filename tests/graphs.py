"""Graphs that ONNX Runtime treats in ways of their own, each with inputs: `from graphs import CASES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import models
import numpy as np
from models import save, value
from onnx import helper

Arrays = dict[str, np.ndarray]
RANDOM = np.random.default_rng(7)


@dataclass(frozen=True)
class Case:
    """A model, inputs for it, and the maxima of its dynamic dimensions."""

    build: Callable[[Path], Path]
    inputs: Arrays
    dims: Mapping[str, int] = field(default_factory=dict)


def floats(*shape: int) -> np.ndarray:
    """Random float32, negative ones among them."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def convolution(path: Path) -> Path:
    """Convolution, pooling, softmax."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]),
    ]
    return save(
        path,
        nodes,
        [value("x", "float32", [1, 3, 8, 8])],
        [value("y", "float32", [1, 64])],
        {"w": floats(4, 3, 3, 3)},
    )


def attention(path: Path) -> Path:
    """Two dynamic inputs that share a dimension: softmax(q k^T) and a mask by Where."""
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[1, 0]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Where", ["mask", "scores", "low"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "k"], ["y"]),
    ]
    inputs = [
        value("q", "float32", ["N", 8]),
        value("k", "float32", ["M", 8]),
        value("mask", "bool", ["N", "M"]),
    ]
    outputs = [value("y", "float32", ["N", 8]), value("weights", "float32", ["N", "M"])]
    return save(path, nodes, inputs, outputs, {"low": np.array(-1e9, np.float32)})


def in_place(path: Path) -> Path:
    """A chain that may reuse its buffers, with an intermediate that is an output too."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Exp", ["b"], ["y"]),
    ]
    outputs = [value("a", "float32", [33]), value("y", "float32", [33])]
    return save(path, nodes, [value("x", "float32", [33])], outputs)


def input_as_output(path: Path) -> Path:
    """An input that is an output as it is, beside a computed one."""
    node = helper.make_node("Relu", ["x"], ["y"])
    shape = [2, 5]
    outputs = [value("y", "float32", shape), value("x", "float32", shape)]
    return save(path, [node], [value("x", "float32", shape)], outputs)


def same_twice(path: Path) -> Path:
    """One value as two outputs, and a constant as a third."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Identity", ["x"], ["z"]),
        helper.make_node("Identity", ["k"], ["constant"]),
    ]
    outputs = [value("y", "int64", [4]), value("z", "int64", [4]), value("constant", "int16", [2])]
    return save(path, nodes, [value("x", "int64", [4])], outputs, {"k": np.array([5, 6], np.int16)})


def views_of_input(path: Path) -> Path:
    """Outputs that share the input's bytes in all but shape."""
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["r"]),
        helper.make_node("Unsqueeze", ["x", "axis"], ["u"]),
        helper.make_node("Squeeze", ["u"], ["s"]),
        helper.make_node("Flatten", ["x"], ["f"], axis=0),
    ]
    outputs = [value("r", "float32", [12]), value("u", "float32", [1, 3, 4]), value("f", "float32", [1, 12])]
    outputs.append(value("s", "float32", [3, 4]))
    constants = {"flat": np.array([12], np.int64), "axis": np.array([0], np.int64)}
    return save(path, nodes, [value("x", "float32", [3, 4])], outputs, constants)


def top_k(path: Path) -> Path:
    """Largest values and where they are."""
    node = helper.make_node("TopK", ["x", "k"], ["values", "places"])
    outputs = [value("values", "float32", [3]), value("places", "int64", [3])]
    return save(path, [node], [value("x", "float32", [20])], outputs, {"k": np.array([3], np.int64)})


def reductions(path: Path) -> Path:
    """Sums, which depend on alignment, and a split and concatenation."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Split", ["x"], ["left", "right"], axis=1),
        helper.make_node("Concat", ["right", "left"], ["swapped"], axis=1),
    ]
    outputs = [
        value("sum", "float32", []),
        value("mean", "float32", [7]),
        value("swapped", "float32", [7, 10]),
    ]
    return save(path, nodes, [value("x", "float32", [7, 10])], outputs)


def recurrent(path: Path) -> Path:
    """A gated recurrent unit with its state in and out."""
    node = helper.make_node("GRU", ["x", "w", "r", "", "", "h"], ["", "hn"], hidden_size=5)
    inputs = [value("x", "float32", [3, 1, 4]), value("h", "float32", [1, 1, 5])]
    constants = {"w": floats(1, 15, 4), "r": floats(1, 15, 5)}
    return save(path, [node], inputs, [value("hn", "float32", [1, 1, 5])], constants)


def scatter(path: Path) -> Path:
    """An update of an input, which must stay as it is."""
    node = helper.make_node("ScatterElements", ["x", "at", "new"], ["y"])
    inputs = [value("x", "float32", [6]), value("at", "int64", [2]), value("new", "float32", [2])]
    return save(path, [node], inputs, [value("y", "float32", [6])])


def fixed_and_not(path: Path) -> Path:
    """No dynamic input, an output that only the run can size, and one that is fixed."""
    nodes = [helper.make_node("NonZero", ["x"], ["at"]), helper.make_node("Neg", ["x"], ["y"])]
    outputs = [value("at", "int64", [1, "count"]), value("y", "float32", [8])]
    return save(path, nodes, [value("x", "float32", [8])], outputs)


CASES: dict[str, Case] = {
    "mlp": Case(models.small_mlp, {"x": floats(1, 64)}),
    "dynamic mlp": Case(models.dynamic_mlp, {"x": floats(5, 64)}, {"N": 9}),
    "empty batch": Case(models.dynamic_mlp, {"x": floats(0, 64)}, {"N": 9}),
    "two in two out": Case(models.two_in_two_out, {"a": floats(3, 4), "b": np.array(-3, np.int64)}),
    "scalar": Case(models.scalar, {"x": np.array(1.5, np.float32)}),
    "loop": Case(models.slow, {"n": np.array(3, np.int64)}),
    "data dependent": Case(models.data_dependent, {"x": np.float32([0, 1, 0, -2, 0, 0, 3, 0])}, {"count": 8}),
    "nothing found": Case(models.data_dependent, {"x": np.zeros(8, np.float32)}, {"count": 8}),
    "reshape": Case(models.fails_inside, {"x": floats(6), "shape": np.array([2, 3], np.int64)}),
    "convolution": Case(convolution, {"x": floats(1, 3, 8, 8)}),
    "attention": Case(
        attention,
        {"q": floats(3, 8), "k": floats(5, 8), "mask": RANDOM.random((3, 5)) < 0.7},
        {"N": 4, "M": 6},
    ),
    "in place": Case(in_place, {"x": floats(33)}),
    "input as output": Case(input_as_output, {"x": floats(2, 5)}),
    "same twice": Case(same_twice, {"x": np.array([1, -2, 3, -4], np.int64)}),
    "views of input": Case(views_of_input, {"x": floats(3, 4)}),
    "top k": Case(top_k, {"x": floats(20)}),
    "reductions": Case(reductions, {"x": floats(7, 10)}),
    "recurrent": Case(recurrent, {"x": floats(3, 1, 4), "h": floats(1, 1, 5)}),
    "scatter": Case(scatter, {"x": floats(6), "at": np.array([4, 1], np.int64), "new": floats(2)}),
    "fixed and not": Case(fixed_and_not, {"x": np.float32([0, 1, 0, -2, 0, 0, 3, 0])}, {"count": 8}),
}

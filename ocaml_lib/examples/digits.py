"""Writes the model that the README's program runs: `python digits.py digits.onnx`.

It has the shape of a classifier of digits, `image` float32[1,784] to `scores` float32[1,10]; random weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write(path: Path) -> Path:
    """Write the model."""
    weights = np.random.default_rng(1).standard_normal((784, 10)).astype(np.float32) / 28
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 784])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])
    nodes = [helper.make_node("MatMul", ["image", "weights"], ["scores"])]
    graph = helper.make_graph(
        nodes, "digits", [image], [scores], [numpy_helper.from_array(weights, "weights")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


if __name__ == "__main__":
    try:
        (target,) = sys.argv[1:]
    except ValueError:
        sys.exit(__doc__)
    write(Path(target))

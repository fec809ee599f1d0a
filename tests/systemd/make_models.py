"""Writes the models of the scenarios, whose answers can be told exactly: `make_models.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from onnx import helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models import save, value


def affine(path: Path, factor: int) -> None:
    """y = factor * x + 1."""
    constants = {"factor": np.array(factor, np.int64), "one": np.array(1, np.int64)}
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Add", ["product", "one"], ["y"]),
    ]
    save(path, nodes, [value("x", "int64", [16])], [value("y", "int64", [16])], constants)


def total(path: Path) -> None:
    """Carry the sum of all x so far: y = sum + x, and that is the sum from then on."""
    nodes = [
        helper.make_node("Add", ["x", "sum"], ["y"]),
        helper.make_node("Identity", ["y"], ["next_sum"]),
    ]
    inputs = [value("x", "int64", [16]), value("sum", "int64", [16])]
    save(path, nodes, inputs, [value("y", "int64", [16]), value("next_sum", "int64", [16])])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    affine(folder / "triple.onnx", 3)
    affine(folder / "fivefold.onnx", 5)
    total(folder / "total.onnx")

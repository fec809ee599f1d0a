"""The four models, the daemon's settings for them, and what is known of their answers beforehand.

Each has an input `id` that it gives back as `echo`. `Job` in ocaml_lib/test/chaos asks for them by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

TABLE_ROWS = 64
TABLE = "network.table"
JOBS = ("network", "doubled", "trailing", "rows")
CALLABLES = Path(__file__).resolve().parents[1] / "callables"
_SIZES = (64, 256, 256, 10)
_TRAIL = 32
_SIDE = 128


def build(folder: Path) -> None:
    """Write the ONNX files; needs the package `onnx`."""
    import onnx  # noqa: PLC0415
    from models import save, value  # noqa: PLC0415
    from onnx import helper  # noqa: PLC0415

    def node(kind: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)

    identified = node("Identity", "id", "echo")
    taken, given = value("id", "int64", [1]), value("echo", "int64", [1])

    random = np.random.default_rng(5)
    layers, nodes, last = {}, [identified], "x"
    for i, (rows, columns) in enumerate(itertools.pairwise(_SIZES)):
        layers[f"w{i}"] = (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        layers[f"b{i}"] = random.standard_normal(columns).astype(np.float32)
        end = i == len(_SIZES) - 2
        nodes.append(node("Gemm", f"{last} w{i} b{i}", "y" if end else f"g{i}"))
        if not end:
            nodes.append(node("Relu", f"g{i}", f"r{i}"))
            last = f"r{i}"
    xs, ys = value("x", "float32", [1, _SIZES[0]]), value("y", "float32", [1, _SIZES[-1]])
    save(folder / "network.onnx", nodes, [taken, xs], [given, ys], layers)

    save(
        folder / "doubled.onnx",
        [identified, node("Add", "x x", "y")],
        [taken, value("x", "float32", [16])],
        [given, value("y", "float32", [16])],
    )

    # The products change nothing: a matrix that moves rows, times nothing.
    body = helper.make_graph(
        [node("MatMul", "state step", "next"), node("Identity", "going", "still_going")],
        "body",
        [
            value("index", "int64", []),
            value("going", "bool", []),
            value("state", "float32", [_SIDE, _SIDE]),
        ],
        [value("still_going", "bool", []), value("next", "float32", [_SIDE, _SIDE])],
    )
    nodes = [
        identified,
        helper.make_node("Loop", ["n", "", "start"], ["worked"], body=body),
        node("ReduceSum", "worked", "work", keepdims=0),
        node("Mul", "work nothing", "no_work"),
        node("Add", "old_count one", "count"),
        node("Identity", "count", "next_count"),
        node("Add", "old_sum id", "sum"),
        node("Identity", "sum", "next_sum"),
        node("Mul", "old_trail half", "faded"),
        node("Add", "x faded", "brighter"),
        node("Add", "brighter no_work", "trail"),
        node("Identity", "trail", "next_trail"),
    ]
    counter, trail = ("int64", [1]), ("float32", [_TRAIL])
    carried = [("count", *counter), ("sum", *counter), ("trail", *trail)]
    save(
        folder / "trailing.onnx",
        nodes,
        [
            taken,
            value("x", *trail),
            value("n", "int64", []),
            *(value(f"old_{name}", kind, shape) for name, kind, shape in carried),
        ],
        [
            given,
            *(value(name, kind, shape) for name, kind, shape in carried),
            *(value(f"next_{name}", kind, shape) for name, kind, shape in carried),
        ],
        {
            "start": np.eye(_SIDE, dtype=np.float32),
            "step": np.roll(np.eye(_SIDE, dtype=np.float32), 1, axis=1),
            "nothing": np.array(0, np.float32),
            "one": np.array([1], np.int64),
            "half": np.array(0.5, np.float32),
        },
    )


def write_table(folder: Path, table: Path) -> None:
    """Write inputs of `network` in the folder and what onnxruntime alone makes of them, row by row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "network.onnx", options, providers=["CPUExecutionProvider"]
    )
    inputs = np.random.default_rng(6).standard_normal((TABLE_ROWS, _SIZES[0])).astype(np.float32)
    number = np.zeros(1, np.int64)
    outputs = [session.run(["y"], {"x": row[np.newaxis], "id": number})[0] for row in inputs]
    table.write_bytes(np.hstack([inputs, np.concatenate(outputs)]).tobytes())


def configuration(folder: Path, limits: Mapping[str, object], standbys: int) -> str:
    """Write the daemon's settings for models that were built in the folder."""
    state = ", ".join(f'next_{name} = "old_{name}"' for name in ("count", "sum", "trail"))
    models = {
        "network": [f"path = '{folder}/network.onnx'"],
        "doubled": [f"path = '{folder}/doubled.onnx'"],
        "trailing": [f"path = '{folder}/trailing.onnx'", f"state = {{ {state} }}"],
        "rows": ["engine = 'python'", "callable = 'chaos_rows:rows'", f"python_path = ['{CALLABLES}']"],
    }
    lines = ["[limits]", *(f"{key} = {value}" for key, value in limits.items())]
    for name, keys in models.items():
        lines += [f"[models.{name}]", *keys, f"standbys = {standbys}"]
    return "\n".join(lines) + "\n"

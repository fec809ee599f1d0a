"""Serve the models of the OCaml tests: `serve.py FOLDER` writes them there and becomes the daemon.

Its socket is FOLDER/sidecaml.sock. It ends with the process that started it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def repository() -> Path:
    """Find the sources above the build folder that this runs in."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "ipc_server" / "cli.py").is_file():
            return folder
    raise SystemExit("serve.py: no folder above this one has ipc_server")


ROOT = repository()
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import models  # noqa: E402
import numpy as np  # noqa: E402
from onnx import helper  # noqa: E402

RANKS = 5


def every_type(path: Path) -> Path:
    """`x_TYPE` to `y_TYPE` for every element type, each [2,3]."""
    types = models.IDENTITY_TYPES
    nodes = [helper.make_node("Identity", [f"x_{name}"], [f"y_{name}"]) for name in types]
    inputs = [models.value(f"x_{name}", name, [2, 3]) for name in types]
    outputs = [models.value(f"y_{name}", name, [2, 3]) for name in types]
    return models.save(path, nodes, inputs, outputs)


def every_rank(path: Path) -> Path:
    """`x0` to `y0` with no dimension, `x1` to `y1` with one, and so on; every dimension is 2."""
    ranks = range(RANKS)
    nodes = [helper.make_node("Identity", [f"x{rank}"], [f"y{rank}"]) for rank in ranks]
    inputs = [models.value(f"x{rank}", "float64", [2] * rank) for rank in ranks]
    outputs = [models.value(f"y{rank}", "float64", [2] * rank) for rank in ranks]
    return models.save(path, nodes, inputs, outputs)


def digits(path: Path) -> Path:
    """`image` float32[1,64] to `scores` float32[1,10]: each score is the image's sum over 32."""
    constants = {"weights": np.full((64, 10), 1 / 32, dtype=np.float32)}
    node = helper.make_node("MatMul", ["image", "weights"], ["scores"])
    image, scores = models.value("image", "float32", [1, 64]), models.value("scores", "float32", [1, 10])
    return models.save(path, [node], [image], [scores], constants)


def same_rows(path: Path) -> Path:
    """`a` and `b` float32[N,2] to `y` = `a` + `b`."""
    node = helper.make_node("Add", ["a", "b"], ["y"])
    inputs = [models.value(name, "float32", ["N", 2]) for name in ("a", "b")]
    return models.save(path, [node], inputs, [models.value("y", "float32", ["N", 2])])


def positives(path: Path) -> Path:
    """`x` float32[N] to `y`: those above 0, though it declares that all of them come out."""
    zero = {"zero": np.zeros(1, dtype=np.float32)}
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["chosen"]),
        helper.make_node("Compress", ["x", "chosen"], ["y"], axis=0),
    ]
    x, y = models.value("x", "float32", ["N"]), models.value("y", "float32", ["N"])
    return models.save(path, nodes, [x], [y], zero)


def packed(path: Path) -> Path:
    """`x` int4[N,3] to `y`, the same in int8, and `small` int8[N,3] to `again`, the same in int4."""
    int8, int4 = models.ONNX_TYPES["int8"], models.ONNX_TYPES["int4"]
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], to=int8),
        helper.make_node("Cast", ["small"], ["again"], to=int4),
    ]
    inputs = [models.value("x", "int4", ["N", 3]), models.value("small", "int8", ["N", 3])]
    outputs = [models.value("y", "int8", ["N", 3]), models.value("again", "int4", ["N", 3])]
    return models.save(path, nodes, inputs, outputs)


def positions(path: Path) -> Path:
    """`x` float32[N] to `y` int64[1,count]: the positions of what is not zero."""
    node = helper.make_node("NonZero", ["x"], ["y"])
    x, y = models.value("x", "float32", ["N"]), models.value("y", "int64", [1, "count"])
    return models.save(path, [node], [x], [y])


def recurrent_rows(path: Path) -> Path:
    """`recurrent` over rows."""
    return models.recurrent(path, state=["N", 8], x=["N", 8])


# Of these the daemon carries `next` to `state`.
CARRIED = ("carried", "carried_rows")


def chosen(path: Path) -> Path:
    """`x` string[N] to `y` string[count], those where `keep` bool[N] is true, and `at`, their positions."""
    nodes = [
        helper.make_node("Compress", ["x", "keep"], ["y"], axis=0),
        helper.make_node("NonZero", ["keep"], ["at"]),
    ]
    inputs = [models.value("x", "string", ["N"]), models.value("keep", "bool", ["N"])]
    outputs = [models.value("y", "string", ["count"]), models.value("at", "int64", [1, "count"])]
    return models.save(path, nodes, inputs, outputs)


def texts(path: Path) -> Path:
    """`x` string[N] to `y`, each of them twice."""
    node = helper.make_node("StringConcat", ["x", "x"], ["y"])
    x, y = models.value("x", "string", ["N"]), models.value("y", "string", ["N"])
    return models.save(path, [node], [x], [y])


# Of the engine python, which takes what ONNX Runtime has no Identity for.
NUMPY_TYPES = [
    *("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"),
    *("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0"),
]


def through_numpy() -> str:
    """`x_TYPE` to `y_TYPE` for every type that numpy shows, each [2,3]."""

    def signature(prefix: str) -> str:
        return ", ".join(f'{prefix}_{name} = "{name}[2,3]"' for name in NUMPY_TYPES)

    return f"""
engine = "python"
callable = "functions:through"
python_path = ["{Path(__file__).resolve().parent}"]
inputs = {{ {signature("x")} }}
outputs = {{ {signature("y")} }}
"""


FUNCTIONS = {"through_numpy": through_numpy}

MODELS = {
    "carried": models.recurrent,
    "carried_rows": recurrent_rows,
    "chosen": chosen,
    "data_dependent": models.data_dependent,
    "digits": digits,
    "dynamic_mlp": models.dynamic_mlp,
    "every_rank": every_rank,
    "every_type": every_type,
    "fails_inside": models.fails_inside,
    "packed": packed,
    "positions": positions,
    "positives": positives,
    "recurrent": models.recurrent,
    "recurrent_rows": recurrent_rows,
    "same_rows": same_rows,
    "slow": models.slow,
    "texts": texts,
}


def main(folder: Path, names: list[str]) -> None:
    """Write the models named, or all, and serve them."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise SystemExit("serve.py: cannot ask to end with the process that started it")
    arguments = [f"--socket={folder}/sidecaml.sock"]
    wanted = names or [*MODELS, *FUNCTIONS]
    tables = {name: 'state = { next = "state" }\n' for name in CARRIED}
    tables.update({name: table() for name, table in FUNCTIONS.items()})
    config = folder / "models.toml"
    config.write_text("".join(f"[models.{name}]\n{tables[name]}" for name in wanted if name in tables))
    arguments.append(f"--config={config}")
    for name in wanted:
        if name in MODELS:
            arguments.append(f"--model={name}={MODELS[name](folder / f'{name}.onnx')}")
    command = [sys.executable, "-m", "ipc_server.cli", "serve", "--strict", *arguments]
    # No test here needs a standby, and each takes a processor for a second.
    ours = {"PYTHONPATH": str(ROOT), "ORT_DISABLE_TELEMETRY": "1", "SIDECAML_STANDBYS": "0"}
    environment = {**os.environ, **ours, "STATE_DIRECTORY": str(folder)}
    os.chdir(folder)
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""The models that are run, all with fixed shapes and a batch of one."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.tools.update_model_dims import update_inputs_outputs_dims

from bench.errors import BenchError

OPSET = 17
IR_VERSION = 8
SEED = 20240607
FLOATS_A_MIB = 2**20 // 4
# Of the voice detector's 16 kHz model: a frame of 512 samples after 64 of the frame before.
VAD_INPUTS = {"input": [1, 576], "state": [2, 1, 128], "sr": []}
VAD_OUTPUTS = {"output": [1, 1], "stateN": [2, 1, 128]}


def identity(path: Path, shape: Sequence[int]) -> None:
    """`y` = `x`, of float32."""
    _save(path, [helper.make_node("Identity", ["x"], ["y"])], shape, shape, {})


def mlp(path: Path, sizes: Sequence[int], batch: int | str = 1) -> None:
    """`x` float32[batch,first] to `y` float32[batch,last] through layers of these sizes, Relu between."""
    random = np.random.default_rng(SEED)
    constants: dict[str, np.ndarray] = {}
    nodes = []
    current = "x"
    last = len(sizes) - 2
    for layer, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        constants[f"w{layer}"] = (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)
        constants[f"b{layer}"] = random.standard_normal(columns).astype(np.float32)
        gemm = "y" if layer == last else f"g{layer}"
        nodes.append(helper.make_node("Gemm", [current, f"w{layer}", f"b{layer}"], [gemm]))
        if layer != last:
            current = f"r{layer}"
            nodes.append(helper.make_node("Relu", [gemm], [current]))
    _save(path, nodes, [batch, sizes[0]], [batch, sizes[-1]], constants)


def vad(path: Path) -> None:
    """The Silero voice detector of the silero-vad package, with its dimensions fixed."""
    # Without importing the package: that would import PyTorch.
    spec = importlib.util.find_spec("silero_vad")
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise BenchError("the package silero-vad is not installed: run scripts/python-environment")
    model = onnx.load(Path(places[0]) / "data" / "silero_vad_op18_ifless.onnx")
    update_inputs_outputs_dims(model, VAD_INPUTS, VAD_OUTPUTS)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


NETWORKS: dict[str, Sequence[int]] = {
    "tiny": [16, 8, 1],
    "small": [64, 256, 256, 10],
    "wide": [1024, 1024, 1024, 1024],
}

MODELS: dict[str, Callable[[Path], None]] = {
    "id16": lambda path: identity(path, [16]),
    **{name: partial(mlp, sizes=sizes) for name, sizes in NETWORKS.items()},
    "vad": vad,
    "id1m": lambda path: identity(path, [FLOATS_A_MIB]),
    "id16m": lambda path: identity(path, [16 * FLOATS_A_MIB]),
}

# Which outputs are the state of the next call, in which inputs.
STATE = {"vad": {"stateN": "state"}}

# Bytes of the one tensor of the identities, for the plot of latency against size.
IDENTITY_BYTES = {"id16": 64, "id1m": 2**20, "id16m": 16 * 2**20}


def write(name: str, folder: Path) -> Path:
    """Write a model into the folder and give its path."""
    path = folder / f"{name}.onnx"
    MODELS[name](path)
    return path


def write_dynamic(name: str, folder: Path) -> Path:
    """Write one of the networks with a dynamic batch, N, and give its path."""
    path = folder / f"{name}.onnx"
    mlp(path, NETWORKS[name], "N")
    return path


def _save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    input_shape: Sequence[int | str],
    output_shape: Sequence[int | str],
    constants: dict[str, np.ndarray],
) -> None:
    graph = helper.make_graph(
        list(nodes),
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(input_shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(output_shape))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())

"""ONNX files that cannot be served: each is named with its cause, in both lanes; their neighbour serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from channels import serves_others
from conftest import StartDaemon
from daemon_process import RawClient, wait_until
from models import scalar
from onnx import TensorProto, helper, numpy_helper

LANES = ("native", "python")
LARGEST = 2**62
OPSET = ("", 17)
WEIGHTS = np.arange(1024, dtype=np.float32)

Domains = Sequence[tuple[str, int]]


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str] = (1,),
    weights: Sequence[onnx.TensorProto] = (),
    domains: Domains = (OPSET,),
) -> None:
    """Write a model from `x` to `y` that nobody has checked."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph(list(nodes), "bad", [x], [y], list(weights))
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def missing_operator(path: Path) -> None:
    write(path, [helper.make_node("Frobnicate", ["x"], ["y"])])


def custom_operator(path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")
    write(path, [node], domains=(OPSET, ("com.example", 1)))


def later_opset(path: Path) -> None:
    write(path, [helper.make_node("Identity", ["x"], ["y"])], domains=[("", 999)])


def cycle(path: Path) -> None:
    nodes = [("Add", ["x", "b"], ["a"]), ("Add", ["a", "x"], ["b"]), ("Identity", ["b"], ["y"])]
    write(path, [helper.make_node(*node) for node in nodes])


def with_shape(*shape: int) -> Callable[[Path], None]:
    return lambda path: write(path, [helper.make_node("Identity", ["x"], ["y"])], shape)


def expands(path: Path) -> None:
    """Declare nothing absurd: ONNX Runtime infers it."""
    size = numpy_helper.from_array(np.array([LARGEST], np.int64), "size")
    write(path, [helper.make_node("Expand", ["x", "size"], ["y"])], ["N"], [size])


def with_data_in(location: str, size: int | None = None, offset: int = 0) -> Callable[[Path], None]:
    """Keep weights in another file, of that size where there is one."""

    def build(path: Path) -> None:
        if size is not None:
            (path.parent / location).write_bytes(WEIGHTS.tobytes()[:size])
        weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHTS.shape)
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", WEIGHTS.nbytes)):
            weights.external_data.add(key=key, value=str(value))
        write(path, [helper.make_node("Add", ["x", "w"], ["y"])], WEIGHTS.shape, [weights])

    return build


# A model's name, how to make it, and what its problem must name besides the file.
BAD: dict[str, tuple[Callable[[Path], None], Sequence[str]]] = {
    "missing-operator": (missing_operator, ["No Op registered for Frobnicate"]),
    "custom-operator": (custom_operator, ["com.example:Frobnicate", "not a registered"]),
    "later-opset": (later_opset, ["Opset 999"]),
    "cycle": (cycle, ["not acyclic"]),
    "one-absurd-dimension": (with_shape(LARGEST), ["'x'", f"[{LARGEST}]", "at most 2^40"]),
    "absurd-product": (with_shape(2**40, 2**40), ["'x'", f"[{2**40}, {2**40}]", "at most 2^62 bytes"]),
    "product-that-wraps": (with_shape(2**32, 2**32, 0), ["'x'", "at most 2^62 bytes"]),
    "expands": (expands, ["'y'", f"[{LARGEST}]", "at most 2^40"]),
    "data-missing": (with_data_in("nowhere.bin"), ["initializer: w", "nowhere.bin"]),
    "data-cut-short": (with_data_in("cut.bin", size=1000), ["initializer: w", "4096", "1000"]),
    "data-beyond-the-end": (with_data_in("whole.bin", 4096, LARGEST), ["initializer: w", str(LARGEST)]),
    "data-elsewhere": (with_data_in("../../../etc/passwd"), ["escapes model directory"]),
    "data-at-a-root": (with_data_in("/etc/passwd"), ["Absolute path not allowed"]),
}


@pytest.mark.parametrize("lane", LANES)
def test_a_bad_model_is_named_with_its_cause_and_its_neighbour_is_served(
    daemon: StartDaemon, tmp_path: Path, lane: str
) -> None:
    paths = {name: tmp_path / f"{name}.onnx" for name in BAD}
    for name, (build, _) in BAD.items():
        build(paths[name])
    running = daemon({"scalar": scalar(tmp_path / "scalar.onnx"), **paths}, lane=lane)
    with RawClient(running.socket) as client:
        for name, (_, wanted) in BAD.items():
            code, sentence = client.refused("open", model=name, slots=1)
            assert code == "MODEL_FAILED", sentence
            for part in (f"model '{name}'", *wanted):
                assert part in sentence, sentence
            assert ".cc:" not in sentence, sentence
    assert serves_others(running)
    # No worker stays for a model that cannot be loaded.
    wait_until("one worker is left", lambda: len(running.workers()) == 1)
    assert "Traceback" not in running.log(), running.log()

"""ONNX Runtime alone, in a process of its own: what it makes of each case is what sidecaml is held to.

Reads a line of JSON for each case, answers with one. When it dies of a case, reference.py starts another.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.backend.test.runner import Runner
from onnxruntime import OrtValue

from conformance.suite import Case, containers, inputs_of
from conformance.tensors import Tensor, numbered, read_all, tensor_of_array

# What is random shows itself by then: the smallest random output of the suite has ten bits.
RUNS = 4
LOG_FATAL = 4
# Names a case to die of, for the tests.
DIE_OF = "CONFORMANCE_DIE_OF"


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """Load with the daemon's options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = LOG_FATAL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def tensor_into(tensor: Tensor) -> OrtValue | np.ndarray:
    """Hand a tensor over as its bits, since numpy lacks half of the types; strings as numpy has them."""
    if tensor.type == TensorProto.STRING:
        return tensor.array().astype(object)
    value = OrtValue.ortvalue_from_shape_and_type(tensor.dims, tensor.type)
    if tensor.data:
        ctypes.memmove(value.data_ptr(), bytes(tensor.data), len(tensor.data))
    return value


def tensor_out_of(value: OrtValue) -> Tensor:
    """Take a tensor's bits."""
    if value.element_type() == TensorProto.STRING:
        return tensor_of_array(value.numpy())
    size = value.tensor_size_in_bytes()
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return Tensor(value.element_type(), tuple(value.shape()), data)


def run_tensors(
    session: onnxruntime.InferenceSession, model: onnx.ModelProto, data_set: Path
) -> list[Tensor]:
    """Run a data set of tensors."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = LOG_FATAL
    pairs = zip(inputs_of(model.graph), read_all(data_set, "input"), strict=True)
    feeds = {declared.name: tensor_into(tensor) for declared, tensor in pairs}
    if any(isinstance(value, np.ndarray) for value in feeds.values()):
        return [tensor_of_array(array) for array in session.run(None, feeds, options)]
    wanted = [output.name for output in session.get_outputs()]
    return [tensor_out_of(value) for value in session.run_with_ort_values(wanted, feeds, options)]


def run_containers(
    session: onnxruntime.InferenceSession, model: onnx.ModelProto, data_set: Path
) -> list[Any]:
    """Run a data set that has sequences or optionals among its values."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = LOG_FATAL
    pairs = zip(inputs_of(model.graph), numbered(data_set, "input"), strict=True)
    feeds = {declared.name: read_value(path, declared.type) for declared, path in pairs}
    return list(session.run(None, feeds, options))


def read_value(path: Path, declared: onnx.TypeProto) -> Any:
    """Read a value of any type as the suite's runner does."""
    kind = declared.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(path.read_bytes()))
    return numpy_helper.to_array(onnx.load_tensor(path))


def expected_of(model: onnx.ModelProto, data_set: Path) -> list[Any]:
    """Read the outputs that the suite expects."""
    paths = numbered(data_set, "output")
    return [read_value(path, info.type) for path, info in zip(paths, model.graph.output, strict=True)]


def check(case: Case, expected: list[Any], found: list[Any]) -> str:
    """Ask the suite's own check; what it says when it is not content."""
    try:
        Runner.assert_similar_outputs(expected, found, case.rtol, case.atol)
    except Exception as error:
        return words_of(error)
    return ""


def judge(case: Case, results: Path) -> dict[str, Any]:
    """Load and run a case; write its outputs when they are tensors."""
    try:
        session = session_of(case.path)
    except Exception as error:
        return {"outcome": "not loaded", "words": words_of(error)}
    loaded = Loaded(case, session, case.load())
    try:
        runs = {data_set: loaded.run(data_set) for data_set in case.data_sets}
    except Exception as error:
        return {"outcome": "not run", "words": words_of(error)}
    if not loaded.held:
        for data_set, outputs in runs.items():
            write(outputs[0], results / data_set.name)
    return {
        "outcome": "ran",
        "words": "",
        "deterministic": all(again == outputs[0] for outputs in runs.values() for again in outputs[1:]),
        "check": next(filter(None, (loaded.check(*item) for item in runs.items())), ""),
    }


@dataclass(frozen=True)
class Loaded:
    """A case in a session."""

    case: Case
    session: onnxruntime.InferenceSession
    model: onnx.ModelProto

    @property
    def held(self) -> bool:
        """Whether there are containers among its values."""
        return bool(containers(self.model))

    def run(self, data_set: Path) -> list[list[Any]]:
        """Run a data set, of tensors several times."""
        if self.held:
            return [run_containers(self.session, self.model, data_set)]
        return [run_tensors(self.session, self.model, data_set) for _ in range(RUNS)]

    def check(self, data_set: Path, runs: list[list[Any]]) -> str:
        """Ask the suite's own check; what it says first when it is not content."""
        expected = expected_of(self.model, data_set)
        arrays = runs if self.held else [[tensor.array() for tensor in outputs] for outputs in runs]
        return next(filter(None, (check(self.case, expected, found) for found in arrays)), "")


def write(outputs: list[Tensor], folder: Path) -> None:
    """Write a run's outputs as the suite has them."""
    folder.mkdir(parents=True)
    for number, tensor in enumerate(outputs):
        tensor.write(folder / f"output_{number}.pb")


def words_of(error: Exception) -> str:
    """Give what was said, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def main() -> None:
    """Answer until there is nothing more to ask."""
    for line in sys.stdin:
        asked = json.loads(line)
        case = Case(asked["suite"], asked["name"], Path(asked["folder"]), asked["rtol"], asked["atol"])
        if case.name == os.environ.get(DIE_OF):
            os.kill(os.getpid(), signal.SIGSEGV)
        print(json.dumps(judge(case, Path(asked["results"]))), flush=True)


if __name__ == "__main__":
    main()

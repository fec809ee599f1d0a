"""The suite's cases as files: in a folder each `model.onnx`, and folders of inputs and outputs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import DATA_DIR, load_model_tests
from onnx.backend.test.runner import Runner

# What the suite's runner runs, by the names of its folders. `real` once was models to download, today it is
# small copies of them that come with the suite.
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
CONTAINERS = {
    "sequence_type": "seq",
    "map_type": "map",
    "optional_type": "optional",
    "sparse_tensor_type": "sparse_tensor",
}
LIGHT = "onnx/backend/test/data/light/"


@dataclass(frozen=True, order=True)
class Case:
    """One case: its suite and name, where its files are, and the tolerance of the suite's own check."""

    suite: str
    name: str
    folder: Path
    rtol: float
    atol: float

    @property
    def path(self) -> Path:
        """The model's file."""
        return self.folder / "model.onnx"

    @property
    def data_sets(self) -> list[Path]:
        """The folders of inputs and expected outputs."""
        return sorted(self.folder.glob("test_data_set_*"))

    def load(self) -> onnx.ModelProto:
        """Read the model."""
        return onnx.load(self.path)


def write_suite(folder: Path) -> list[Case]:
    """Write every case that is not a folder of files already; all cases, in order."""
    with warnings.catch_warnings():
        # The suite computes its expected outputs as it is imported, infinities among them.
        warnings.simplefilter("ignore")
        found = [case for kind in KINDS for case in load_model_tests(kind=kind)]
    return sorted(_write(case, folder) for case in found)


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """List the inputs that a data set has files for: old models have their constants among the inputs."""
    constants = {constant.name for constant in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def containers(model: onnx.ModelProto) -> list[tuple[str, str, str]]:
    """List what is no tensor: input or output, its name, and what ONNX Runtime calls it."""
    return [
        (kind, value.name, CONTAINERS[value.type.WhichOneof("value")])
        for kind, values in (("input", model.graph.input), ("output", model.graph.output))
        for value in values
        if value.type.WhichOneof("value") != "tensor_type"
    ]


def _write(case: TestCase, folder: Path) -> Case:
    if case.url is not None:
        return _write_light(case, folder)
    if case.model_dir is not None:
        return Case(case.kind, case.name, Path(case.model_dir), case.rtol, case.atol)
    assert case.model is not None and case.data_sets is not None
    place = folder / case.kind / case.name
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(case.model.SerializeToString())
    graph = case.model.graph
    for number, (inputs, outputs) in enumerate(case.data_sets):
        data_set = place / f"test_data_set_{number}"
        data_set.mkdir()
        _write_values(data_set, "input", graph.input, inputs)
        _write_values(data_set, "output", graph.output, outputs)
    return Case(case.kind, case.name, place, case.rtol, case.atol)


def _write_values(
    folder: Path, kind: str, declared: Sequence[onnx.ValueInfoProto], values: Sequence[Any]
) -> None:
    for number, (value, info) in enumerate(zip(values, declared, strict=True)):
        (folder / f"{kind}_{number}.pb").write_bytes(_message(value, info.type).SerializeToString())


def _message(value: Any, declared: onnx.TypeProto) -> Any:
    what = declared.WhichOneof("value")
    if what == "optional_type":
        return numpy_helper.from_optional(value)
    if what == "sequence_type":
        return numpy_helper.from_list(value)
    assert what == "tensor_type", what
    return value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value))


def _write_light(case: TestCase, folder: Path) -> Case:
    """Do what the suite's runner does for these: made inputs, and the outputs that lie beside the model."""
    assert case.url is not None and case.url.startswith(LIGHT), case.url
    source = Path(DATA_DIR) / "light" / case.url.removeprefix(LIGHT)
    place = folder / "light" / case.name
    data_set = place / "test_data_set_0"
    data_set.mkdir(parents=True)
    shutil.copy(source, place / "model.onnx")
    graph = onnx.load(source).graph
    for number, value in enumerate(inputs_of(graph)):
        made = Runner.generate_dummy_data(value, name=case.model_name)
        (data_set / f"input_{number}.pb").write_bytes(numpy_helper.from_array(made).SerializeToString())
    for number in range(len(graph.output)):
        shutil.copy(source.with_name(f"{source.stem}_output_{number}.pb"), data_set / f"output_{number}.pb")
    return Case("light", case.name, place, case.rtol, case.atol)

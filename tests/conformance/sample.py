"""The cases that `make test` runs: some by a hash of their names, and more until everything is among them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from onnx import TensorProto

from conformance.suite import Case, containers
from conformance.tensors import Tensor, read_all

ONE_OF = 40
# What only a run shows: random outputs, a model that is loaded and then not run. And the smallest network.
NAMED = ("test_training_dropout", "test_convinteger_with_padding", "test_squeezenet")


def choose(cases: Sequence[Case]) -> list[Case]:
    """Choose the same cases each time."""
    # By the hash, so that no suite's or operator's first cases are preferred.
    shuffled = sorted(cases, key=lambda case: (case.name not in NAMED, _hash(case)))
    few = len(NAMED) + len(cases) // ONE_OF
    chosen = shuffled[:few]
    seen = {feature for case in chosen for feature in features(case)}
    for case in shuffled[few:]:
        new = features(case) - seen
        if new:
            seen |= new
            chosen.append(case)
    return sorted(chosen)


def features(case: Case) -> set[str]:
    """List what is special about a case: its suite, element types, and forms of its tensors."""
    model = case.load()
    held = {f"{kind} {what}" for kind, _, what in containers(model)}
    if held:
        return {case.suite, *held}
    found = {case.suite}
    for kind, declared in (("input", model.graph.input), ("output", model.graph.output)):
        for value in declared:
            shape = value.type.tensor_type.shape
            if any(not dim.HasField("dim_value") for dim in shape.dim):
                found.add(f"dynamic {kind}")
        for data_set in case.data_sets:
            for tensor in read_all(data_set, kind):
                found |= {f"{kind} {feature}" for feature in _features_of(tensor)}
    return found


def _features_of(tensor: Tensor) -> Iterator[str]:
    yield tensor.type_name
    if not tensor.dims:
        yield "scalar"
    if 0 in tensor.dims:
        yield "without elements"
    if tensor.type == TensorProto.STRING and any(not text.isascii() for text in tensor.data):
        yield "text beyond ASCII"


def _hash(case: Case) -> int:
    return zlib.crc32(case.name.encode())

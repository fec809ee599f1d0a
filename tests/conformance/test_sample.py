"""ONNX's conformance suite through sidecaml: a sample of it. All of it: `make conformance`."""

from __future__ import annotations

import dataclasses
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from onnx import TensorProto
from onnx.backend.test.runner import Runner

from conformance import reference, sample, suite, verdict, ways
from conformance.backend import SidecamlBackend
from conformance.reference import Reference
from conformance.suite import Case
from conformance.tensors import Tensor, difference, read, tensor_of_array
from conformance.verdict import Kind, Verdict
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

# The suite computes its inputs and outputs anew, and each part has a daemon that loads many models.
pytestmark = pytest.mark.timeout(600)
PARTS = 4


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return suite.write_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def sampled(cases: list[Case]) -> list[Case]:
    return sample.choose(cases)


@pytest.fixture(scope="module")
def references(sampled: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Mapping[Case, Reference]:
    return reference.judge(sampled, tmp_path_factory.mktemp("references"))


def wrong_among(found: Mapping[str, Mapping[Case, Verdict]]) -> list[str]:
    return [
        f"{way}: {case.suite} {case.name}: {verdict.why}"
        for way, verdicts in found.items()
        for case, verdict in verdicts.items()
        if verdict.kind is Kind.WRONG
    ]


def test_the_sample_has_every_suite_element_type_and_form(cases: list[Case], sampled: list[Case]) -> None:
    assert len(cases) > 2000
    assert len(sampled) < len(cases) / 10
    every = {feature for case in cases for feature in sample.features(case)}
    assert {feature for case in sampled for feature in sample.features(case)} == every
    assert {"node", "simple", "pytorch-converted", "pytorch-operator", "light"} < every
    assert {
        "input string",
        "output int4",
        "output scalar",
        "output without elements",
        "dynamic output",
    } < every
    assert {"input seq", "input optional", "output seq"} < every


@pytest.mark.parametrize("part", range(PARTS))
def test_every_client_gets_the_bits_of_onnxruntime_alone(
    part: int, sampled: list[Case], references: Mapping[Case, Reference]
) -> None:
    found = verdict.verdicts(sampled[part::PARTS], references, "native", ways.ALL)
    assert wrong_among(found) == []
    assert [len(judged) for judged in found.values()] == [len(sampled[part::PARTS])] * len(ways.ALL)
    assert all(Kind.SAME in {judged.kind for judged in by_case.values()} for by_case in found.values())


def test_the_python_lane_gives_them_too(sampled: list[Case], references: Mapping[Case, Reference]) -> None:
    found = verdict.verdicts(sampled[::PARTS], references, "python", {"python": ways.python_client})
    assert wrong_among(found) == []


def test_the_sample_has_a_case_of_every_kind(
    sampled: list[Case], references: Mapping[Case, Reference]
) -> None:
    found = [references[case] for case in sampled]
    assert any(one.passed for one in found)
    assert {one.outcome for one in found} == {"ran", "not loaded", "not run"}
    assert any(one.outcome == "ran" and not one.deterministic for one in found)


def test_the_suites_own_runner_is_content_with_the_backend() -> None:
    runner = Runner(SidecamlBackend).include(
        r"^test_(add|argmax_default_axis_example|Conv2d|nonzero_example)_cpu$"
    )
    result = unittest.TestResult()
    runner.test_suite.run(result)
    assert [*result.errors, *result.failures] == []
    assert result.testsRun - len(result.skipped) == 4


# --- The judge ------------------------------------------------------------------------------------------


@pytest.fixture
def added(cases: list[Case]) -> Case:
    return next(case for case in cases if case.name == "test_add")


@pytest.fixture
def of_added(added: Case, tmp_path: Path) -> Reference:
    return reference.judge([added], tmp_path)[added]


def flipped(tensor: Tensor) -> Tensor:
    assert isinstance(tensor.data, bytes)
    return dataclasses.replace(tensor, data=tensor.data[:-1] + bytes([tensor.data[-1] ^ 1]))


def test_one_bit_is_a_difference(added: Case, of_added: Reference) -> None:
    outputs = of_added.outputs(added)
    assert verdict.verdict(added, of_added, outputs) == Verdict(Kind.SAME, "")
    judged = verdict.verdict(added, of_added, [[flipped(outputs[0][0])]])
    assert judged.kind is Kind.WRONG
    assert "output 0: byte 239 of 240" in judged.why


def test_a_refusal_counts_only_with_the_reason(added: Case, of_added: Reference) -> None:
    refused = SidecamlError(ErrorCode.MODEL_FAILED, "no implementation for Add")
    assert verdict.verdict(added, of_added, refused).kind is Kind.WRONG
    not_loaded = dataclasses.replace(of_added, outcome="not loaded", words="no implementation for Add")
    assert verdict.verdict(added, not_loaded, refused).kind is Kind.REFUSED
    assert verdict.verdict(added, not_loaded, of_added.outputs(added)).kind is Kind.WRONG
    other = dataclasses.replace(not_loaded, words="something else")
    assert verdict.verdict(added, other, refused).kind is Kind.WRONG


def test_a_process_that_dies_of_a_case_costs_only_that(
    cases: list[Case], added: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ["test_abs", "test_add", "test_sub"]
    few = [case for case in cases if case.name in named]
    monkeypatch.setattr(reference, "PROCESSES", 1)
    monkeypatch.setenv("CONFORMANCE_DIE_OF", added.name)
    found = reference.judge(few, tmp_path)
    assert [one.outcome for one in found.values()] == ["ran", "crashed", "ran"]
    assert "SIGSEGV" in found[added].words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "0 outputs instead of 1"),
        ([Tensor(TensorProto.INT32, (2,), bytes(8))], "int32 instead of float"),
        ([Tensor(TensorProto.FLOAT, (1, 2), bytes(8))], "dimensions [1, 2] instead of [2]"),
        ([Tensor(TensorProto.FLOAT, (2,), bytes(4))], "4 bytes instead of 8"),
        ([Tensor(TensorProto.FLOAT, (2,), bytes(7) + b"\x80")], "byte 7 of 8 is 128 instead of 0"),
    ],
)
def test_differences_are_told(found: Sequence[Tensor], words: str) -> None:
    assert words in difference(found, [Tensor(TensorProto.FLOAT, (2,), bytes(8))])


def test_strings_are_compared_one_by_one() -> None:
    one, other = (Tensor(TensorProto.STRING, (2,), texts) for texts in ((b"a", b"bc"), (b"ab", b"c")))
    assert difference([one], [one]) == ""
    assert "string 0 of 2 is b'a' instead of b'ab'" in difference([one], [other])


@pytest.mark.parametrize("name", ["FLOAT", "INT4", "UINT2", "FLOAT16", "BFLOAT16", "STRING", "COMPLEX64"])
def test_a_tensor_is_the_same_from_every_field_of_its_message(name: str, tmp_path: Path) -> None:
    code = TensorProto.DataType.Value(name)
    data = (b"a", "é".encode(), b"") if name == "STRING" else b"\x01\x02\x01" * 8
    size = {"INT4": 48, "UINT2": 96, "FLOAT": 6, "COMPLEX64": 3, "STRING": 3}.get(name, 12)
    tensor = Tensor(code, (size,), data)
    tensor.write(tmp_path / "tensor.pb")
    assert read(tmp_path / "tensor.pb") == tensor
    assert tensor_of_array(tensor.array()) == tensor

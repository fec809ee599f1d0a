"""What became of each case: sidecaml's answer, held against ONNX Runtime's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from conformance import fleet
from conformance.onnxruntime_alone import check, expected_of
from conformance.reference import Reference
from conformance.suite import Case, containers
from conformance.tensors import Tensor, difference
from conformance.ways import Outcome, Way
from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.messages import shown


class Kind(Enum):
    """Everything that may become of a case; all but the last is as it should be."""

    SAME = "same bits"
    RANDOM = "not deterministic"
    CONTAINER = "container, refused"
    REFUSED = "not run by ONNX Runtime"
    WRONG = "wrong"


@dataclass(frozen=True)
class Verdict:
    """What became of a case, and the reason; of the same bits, what the suite finds wrong with them."""

    kind: Kind
    why: str


# Of a reason: sidecaml's sentences, which name the model's file first, end where a message must.
ENOUGH = 100
# What sidecaml has to say to what ONNX Runtime alone does not run.
REFUSALS = {
    "not loaded": (ErrorCode.MODEL_FAILED,),
    "not run": (ErrorCode.ENGINE,),
    "crashed": (ErrorCode.MODEL_FAILED, ErrorCode.WORKER_CRASHED),
}


def verdicts(
    cases: Sequence[Case],
    references: Mapping[Case, Reference],
    lane: str,
    ways: Mapping[str, Way],
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[Case, Verdict]]:
    """Run every case through daemons, in each of the ways."""
    found: dict[str, dict[Case, Verdict]] = {name: {} for name in ways}
    for batch in fleet.batches(cases):
        with fleet.serve(batch, lane) as (daemon, names):
            for name, way in ways.items():
                for case, outcome in way(daemon.socket, names, references):
                    found[name][case] = verdict(case, references[case], outcome)
            assert daemon.process.poll() is None, daemon.log()
        tell(f"{lane} lane: {len(next(iter(found.values())))} of {len(cases)} cases")
    return found


def verdict(case: Case, reference: Reference, outcome: Outcome) -> Verdict:
    """Judge what came of a case."""
    if isinstance(outcome, AssertionError):
        return Verdict(Kind.WRONG, str(outcome))
    if isinstance(outcome, SidecamlError):
        return _judge_refusal(case, reference, outcome)
    if reference.outcome != "ran":
        return Verdict(Kind.WRONG, f"it runs; ONNX Runtime alone: {reference.outcome}: {reference.words}")
    expected = reference.outputs(case)
    if not reference.deterministic:
        return _judge_random(case, reference, outcome, expected)
    differences = (difference(*pair) for pair in zip(outcome, expected, strict=True))
    return _first_wrong(differences) or Verdict(Kind.SAME, reference.check)


def _judge_refusal(case: Case, reference: Reference, error: SidecamlError) -> Verdict:
    said = f"{error.code.name}: {error}"
    if reference.outcome in REFUSALS:
        reason = _core.sentence(reference.words)
        alike = error.code in REFUSALS[reference.outcome] and reason[:ENOUGH] in str(error)
        return (
            Verdict(Kind.REFUSED, reason) if alike else Verdict(Kind.WRONG, f"{said}; instead of: {reason}")
        )
    told = (f"{kind} {shown(name)} is a {what}" for kind, name, what in containers(case.load()))
    refused = next((what for what in told if what in str(error)), None)
    return Verdict(Kind.CONTAINER, refused) if refused else Verdict(Kind.WRONG, said)


def _judge_random(
    case: Case,
    reference: Reference,
    outcome: Sequence[Sequence[Tensor]],
    expected: Sequence[Sequence[Tensor]],
) -> Verdict:
    forms = [
        [[(tensor.type, tensor.dims) for tensor in outputs] for outputs in answer]
        for answer in (outcome, expected)
    ]
    if forms[0] != forms[1]:
        return Verdict(Kind.WRONG, "other types or dimensions than ONNX Runtime's")
    if reference.check:
        return Verdict(Kind.RANDOM, "the suite's check fails for ONNX Runtime alone, too")
    model = case.load()
    said = (
        check(case, expected_of(model, data_set), [tensor.array() for tensor in outputs])
        for data_set, outputs in zip(case.data_sets, outcome, strict=True)
    )
    return _first_wrong(said) or Verdict(Kind.RANDOM, "the suite's check passes")


def _first_wrong(said: Iterable[str]) -> Verdict | None:
    wrong = next(filter(None, said), None)
    return Verdict(Kind.WRONG, wrong) if wrong else None

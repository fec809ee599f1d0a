"""The ways from a client to a model: each runs a daemon's cases, and says for each what came of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon_process import REPOSITORY, environment

from conformance.backend import SidecamlRep, maxima_of
from conformance.reference import Reference
from conformance.suite import Case
from conformance.tensors import Tensor, read_all
from ipc_server import client
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

OCAML = REPOSITORY / "_build" / "default" / "ocaml_lib" / "test" / "conformance" / "cases.exe"
PATIENCE_S = 600.0

# The outputs of each data set of a case, or what the case was refused by; an assertion for any mistake.
Outcome = Sequence[Sequence[Tensor]] | SidecamlError | AssertionError
Outcomes = Iterator[tuple[Case, Outcome]]
# Given a daemon's socket, and the name of each case there.
Way = Callable[[Path, Mapping[Case, str], Mapping[Case, Reference]], Outcomes]


def python_client(socket: Path, names: Mapping[Case, str], references: Mapping[Case, Reference]) -> Outcomes:
    """Run each with the Python client."""
    for case, name in names.items():
        try:
            model = SidecamlRep(socket, name)
            yield (
                case,
                [
                    model.run_tensors(read_all(data_set, "input"), [tensor.dims for tensor in expected])
                    for data_set, expected in zip(case.data_sets, references[case].outputs(case), strict=True)
                ],
            )
        except (SidecamlError, AssertionError) as error:
            yield case, error


def ocaml_client(socket: Path, names: Mapping[Case, str], references: Mapping[Case, Reference]) -> Outcomes:
    """Run all with an OCaml program that talks to the daemon."""
    return _ocaml(["daemon", str(socket)], socket, names, references, lambda case: names[case])


def ocaml_in_process(
    socket: Path, names: Mapping[Case, str], references: Mapping[Case, Reference]
) -> Outcomes:
    """Run all in the process of an OCaml program; the daemon tells the names of dimensions only."""
    return _ocaml(["in-process"], socket, names, references, lambda case: str(case.path))


@dataclass(frozen=True)
class _Line:
    """One run of the OCaml program: a case on a data set."""

    case: Case
    text: str
    results: Path


def _ocaml(
    arguments: Sequence[str],
    socket: Path,
    names: Mapping[Case, str],
    references: Mapping[Case, Reference],
    model_of: Callable[[Case], str],
) -> Outcomes:
    assert OCAML.exists(), f"{OCAML} is missing: run `dune build`"
    signatures = {model.name: model.signature for model in client.models(str(socket))}
    with tempfile.TemporaryDirectory(prefix="sidecaml-") as place:
        plan = []
        for number, (case, name) in enumerate(names.items()):
            for data_set, expected in zip(case.data_sets, references[case].outputs(case), strict=True):
                results = Path(place) / str(number) / data_set.name
                results.mkdir(parents=True)
                dims = {}
                if signatures[name].dim_names:
                    shapes = [tensor.dims for tensor in (*read_all(data_set, "input"), *expected)]
                    dims = maxima_of(signatures[name], shapes)
                fields = [model_of(case), str(data_set), str(results), *(f"{k}={v}" for k, v in dims.items())]
                plan.append(_Line(case, "\t".join(fields), results))
        answers = _answers(arguments, plan)
        yield from _outcomes(plan, answers)


def _answers(arguments: Sequence[str], plan: Sequence[_Line]) -> list[str]:
    ran = subprocess.run(
        [OCAML, *arguments],
        check=False,
        input="".join(f"{line.text}\n" for line in plan),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment(VIRTUAL_ENV=sys.prefix),
    )
    answers = ran.stdout.splitlines()
    # What it did not come to, it died before.
    lost = f"-1\tthe program ended with {ran.returncode}: {ran.stderr[-300:].strip()}"
    return answers + [lost] * (len(plan) - len(answers))


def _outcomes(plan: Sequence[_Line], answers: Sequence[str]) -> Outcomes:
    found: dict[Case, Outcome] = {}
    for line, answer in zip(plan, answers, strict=True):
        before = found.get(line.case, [])
        if not isinstance(before, Exception):
            now = _outcome(line, answer)
            found[line.case] = now if isinstance(now, Exception) else [*before, now]
    yield from found.items()


def _outcome(line: _Line, answer: str) -> Sequence[Tensor] | SidecamlError | AssertionError:
    number, _, words = answer.partition("\t")
    if number == "0":
        return read_all(line.results, "output")
    if number == "-1":
        return AssertionError(words)
    return SidecamlError(ErrorCode(int(number)), words)


ALL: Mapping[str, Way] = {
    "Python client": python_client,
    "OCaml client": ocaml_client,
    "Sidecaml_ffi": ocaml_in_process,
}

"""docs/conformance.md, from what a run found."""

from __future__ import annotations

import platform
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnxruntime

from conformance.suite import Case
from conformance.verdict import Kind, Verdict

Verdicts = Mapping[Case, Verdict]

SUITES = {
    "node": "each operator",
    "simple": "small models of several operators",
    "pytorch-converted": "layers of PyTorch",
    "pytorch-operator": "operators of PyTorch",
    "light": "networks such as ResNet-50, weights left out",
}
# What ONNX Runtime says when it lacks an operator, and the group that such words go to.
LACKS = (
    (
        re.compile(r"Could not find an implementation for (\w+\(\d+\))"),
        "no kernel for this version of the operator, or for these types",
    ),
    (
        re.compile(r"Failed to find kernel for (\w+\(\d+\))"),
        "no kernel for this version of the operator, or for these types",
    ),
    (re.compile(r"([\w.]+:\w+)\(-1\) is not a registered function/op"), "the operator is unknown"),
    (re.compile(r"No Op registered for (\w+)"), "the operator is unknown"),
)

INTRODUCTION = """\
# Conformance

`make conformance` runs ONNX's own conformance suite, `onnx.backend.test`, through sidecaml and writes this
page. `make test` runs a sample of it.

Each case is a model with inputs. ONNX Runtime runs it alone, in a process of its own, with the options of
sidecaml's engine: that is the reference. Then a daemon serves the model, and clients run it on the same
inputs. A case has the *same bits* when every output has the reference's element type, dimensions and bytes,
strings and NaNs included. What ONNX Runtime does not run must be refused with ONNX Runtime's reason, and what
is no tensor by its name and type.
"""


@dataclass(frozen=True)
class Row:
    """A way from a client to a model, and what it found."""

    way: str
    verdicts: Verdicts


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lay a table out, as Markdown and for people: the columns of numbers to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(row[column].isdigit() for row in cells[1:]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (
            f"{cell:{'>' if to_right else '<'}{width}}"
            for cell, to_right, width in zip(row, right, widths, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    ruler = (
        ("-" * (width + 1) + ":") if to_right else "-" * (width + 2)
        for width, to_right in zip(widths, right, strict=True)
    )
    return [line(cells[0]), f"|{'|'.join(ruler)}|", *map(line, cells[1:])]


def summary(rows: Sequence[Row]) -> list[str]:
    """Count the kinds of each way."""
    counted = [(row.way, Counter(verdict.kind for verdict in row.verdicts.values())) for row in rows]
    return table(
        ["way", "cases", *(kind.value for kind in Kind)],
        [[way, counts.total(), *(counts[kind] for kind in Kind)] for way, counts in counted],
    )


def page(rows: Sequence[Row]) -> str:
    """Write the page."""
    verdicts = rows[0].verdicts
    versions = ", ".join(
        [
            f"onnx {onnx.__version__}",
            f"ONNX Runtime {onnxruntime.__version__}",
            f"Python {platform.python_version()}",
            platform.machine(),
        ]
    )
    sections = [
        INTRODUCTION.splitlines(),
        ["## Counts", "", f"With {versions}. {_told(verdicts)}", "", *summary(rows), "", *_suites(verdicts)],
        *(_wrong(row) for row in rows if _of(row.verdicts, Kind.WRONG)),
        _refused(verdicts),
        _containers(verdicts),
        _random(verdicts),
        _deviations(verdicts),
    ]
    return "\n\n".join("\n".join(lines).rstrip() for lines in sections if lines) + "\n"


def _of(verdicts: Verdicts, kind: Kind) -> dict[Case, str]:
    return {case: verdict.why for case, verdict in verdicts.items() if verdict.kind is kind}


def _told(verdicts: Verdicts) -> str:
    counts = Counter(verdict.kind for verdict in verdicts.values())
    same, steady = counts[Kind.SAME], counts[Kind.SAME] + counts[Kind.WRONG]
    return (
        f"ONNX Runtime runs {steady + counts[Kind.RANDOM]} cases whose inputs and outputs are tensors, "
        f"{steady} of them to the same bits each time: {same} of {steady} have these bits through sidecaml."
    )


def _suites(verdicts: Verdicts) -> list[str]:
    counted: dict[str, Counter[Kind]] = defaultdict(Counter)
    for case, verdict in verdicts.items():
        counted[case.suite][verdict.kind] += 1
    return [
        "By suite:",
        "",
        *table(
            ["suite", "of", "cases", *(kind.value for kind in Kind)],
            [
                [suite, what, counted[suite].total(), *(counted[suite][kind] for kind in Kind)]
                for suite, what in SUITES.items()
                if suite in counted
            ],
        ),
        "",
        "The large models that the suite once downloaded are no longer in it: `light` took their place.",
    ]


def _wrong(row: Row) -> list[str]:
    found = _of(row.verdicts, Kind.WRONG)
    lines = [f"- `{case.suite}` `{case.name}`: {why}" for case, why in found.items()]
    return [f"## Wrong: {row.way}", "", *lines]


def _refused(verdicts: Verdicts) -> list[str]:
    lacking: dict[str, Counter[str]] = defaultdict(Counter)
    others: dict[str, list[str]] = defaultdict(list)
    for case, why in _of(verdicts, Kind.REFUSED).items():
        found = next(((group, match[1]) for pattern, group in LACKS if (match := pattern.search(why))), None)
        if found:
            lacking[found[0]][found[1]] += 1
        else:
            others[_shortened(why)].append(case.name)
    lines = [
        "## Not run by ONNX Runtime",
        "",
        "Operators with their version and the number of cases; then what stands alone.",
        "",
    ]
    for group, counts in lacking.items():
        operators = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        lines += [f"- **{group}** ({counts.total()} cases): {operators}"]
    lines += [f"- {why}: {_named(names)}" for why, names in sorted(others.items())]
    return lines


def _shortened(why: str) -> str:
    """Leave out what differs from case to case, and from machine to machine."""
    why = re.sub(r"\S*/model\.onnx", "the model", why)
    why = re.sub(r"/onnxruntime_src/\S+ ", "", why)
    return why if len(why) <= 160 else why[:157] + "..."


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _containers(verdicts: Verdicts) -> list[str]:
    found: dict[str, list[str]] = defaultdict(list)
    for case, why in _of(verdicts, Kind.CONTAINER).items():
        kind, what = why.split()[0], why.split()[-1]
        found[f"{kind} of type {what}"].append(case.name)
    lines = [f"- {what} ({len(names)} cases): {_named(names)}" for what, names in sorted(found.items())]
    return [
        "## Containers",
        "",
        "A channel carries tensors. Refused when the model is loaded, by name and type:",
        "",
        *lines,
    ]


def _random(verdicts: Verdicts) -> list[str]:
    found = _of(verdicts, Kind.RANDOM)
    lines = [f"- `{case.name}`: {why}" for case, why in found.items()]
    told = (
        "Runs of ONNX Runtime alone do not agree with one another. Element types and dimensions are compared,"
        " and the suite's own check decides."
    )
    return ["## Not deterministic", "", told, "", *lines] if found else []


def _deviations(verdicts: Verdicts) -> list[str]:
    found = [case.name for case, why in _of(verdicts, Kind.SAME).items() if why]
    told = "ONNX Runtime's own answer is outside the suite's tolerance; sidecaml's has the same bits as that."
    return (
        ["## Where ONNX Runtime and the suite differ", "", told, "", *(f"- `{name}`" for name in found)]
        if found
        else []
    )

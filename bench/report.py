"""The report, from the results files: `python -m bench.report [RESULTS]` writes RESULTS/latest.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import idle, results
from bench.errors import BenchError
from bench.goals import Outcome, outcomes
from bench.models import MODELS
from bench.results import Row
from bench.settings import CALLERS, RESULTS

REPORT = "latest.md"
WITHOUT_PAUSES = (
    "Not measured: another domain's pauses need OCaml 5. `make bench-debian13` measures them on Debian 13."
)
NOT_MEASURED = "Not measured here:"
_PERCENTILES = ("p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns")
_PERCENTILE_HEADS = ("p50", "p90", "p99", "p99.9", "max")
_KINDS = {
    "quick": "**Quick, for a first impression: few calls, few models. `make bench` is the one to cite.**",
    "partial": "**A part of the benchmark, as chosen on the command line.**",
}
# Of all processors.
_BUSY_SHARE = 0.1


def write(folder: Path) -> Path:
    """Write the report of a folder's results beside them."""
    rows = results.load(folder, results.LATEST)
    machine = results.load(folder, results.MACHINE)
    if rows is None or machine is None:
        raise BenchError(
            f"{folder} holds no {results.LATEST} and {results.MACHINE}: measure first, with `make bench`"
        )
    pauses = results.load(folder, results.PAUSES)
    checks = results.load(folder, results.CHECKS)
    sections = [
        heading(machine),
        goals_section(goal_outcomes([*rows, *(checks or [])], pauses)),
        latency_section(rows),
        wake_section(results.load(folder, results.WAKE)),
        pauses_section(pauses),
        beside_section(results.load(folder, results.BESIDE)),
        carried_section(results.load(folder, results.CARRIED)),
        engines_section(results.load(folder, results.ENGINES)),
        checks_section(checks),
        staging_section(results.load(folder, results.STAGING)),
        idle_section(results.load(folder, results.IDLE)),
    ]
    file = folder / REPORT
    file.write_text("\n\n".join(filter(None, sections)) + "\n", encoding="utf-8")
    return file


def goal_outcomes(rows: Sequence[Row], pauses: Mapping[str, Any] | None) -> list[Outcome]:
    """Hold the goals against latencies and pauses."""
    return outcomes(results.index([*rows, *(pauses["rows"] if pauses else [])]))


def heading(machine: Mapping[str, Any]) -> str:
    """Say where, when and with what was measured."""
    pinning, load = machine["pinning"], machine["load_average"][0]
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    lines = [
        "# Benchmark",
        "How this is measured and what it does not say: [docs/benchmark.md](../../docs/benchmark.md).",
        _KINDS.get(machine["kind"], ""),
        f"{machine['date']}, commit {machine['commit']} (+: and changes on top). {machine['cpu']}, "
        f"{machine['processors']} processors{', virtual' if machine['virtual'] else ''}, caches {caches}; "
        f"governor {machine['governor']}. Client on processor {pinning['client']}, the other side on "
        f"{pinning['server']}{', threads of one core' if pinning['siblings'] else ''}, and the reverse in "
        f"every second round. {machine['system']}, Linux {machine['kernel']}, {machine['libc']}, ONNX "
        f"Runtime {machine['onnxruntime']}, OCaml {machine['ocaml']}, Python {machine['python']}. "
        f"{machine['runs']} runs of {machine['rounds']} rounds; load average at the start {load:.2f}.",
        "**The machine was busy when this began: measure again.**"
        if machine["busy_before"] > _BUSY_SHARE
        else "",
    ]
    return "\n\n".join(filter(None, lines))


def goals_section(found: Sequence[Outcome]) -> str:
    """Show each goal with what was measured."""
    head = ("what", "where", "goal", "median", "over runs", "reached")
    measured = [_goal_row(outcome) for outcome in found if outcome.measured]
    parts = ["## Goals", "Medians over runs of ratios within one run."]
    if measured:
        parts.append(table(head, measured))
    lacking: dict[str, list[str]] = {}
    for outcome in found:
        if not outcome.measured:
            lacking.setdefault(outcome.goal.what, []).append(" ".join(outcome.place))
    if lacking:
        lines = [f"- {what}: {', '.join(places)}" for what, places in lacking.items()]
        parts.append(f"{NOT_MEASURED}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _goal_row(outcome: Outcome) -> list[str]:
    assert outcome.measured
    median, least, most = (f"{value:.3f}" for value in outcome.measured)
    goal, where = outcome.goal, ", ".join(outcome.place)
    reached = "yes" if outcome.reached else "**no**"
    return [goal.what, where, goal.wanted, median, f"{least} to {most}", reached]


def latency_section(rows: Sequence[Row]) -> str:
    """Show a table of each model and caller, fastest path first."""
    parts = [
        "## Latencies\n\nMicroseconds a call: fill the inputs, run, read the outputs. Ratios are of medians, "
        "with their least and greatest over runs. *Spins*: the sides that burn their core while they wait."
    ]
    for model in MODELS:
        for caller in CALLERS:
            cells = [row for row in rows if (row["model"], row["caller"]) == (model, caller)]
            if cells:
                cells.sort(key=lambda row: row["p50_ns"])
                parts.append(f"### {model}, {caller}\n\n" + table(_LATENCY_HEAD, map(_latency_row, cells)))
    return "\n\n".join(parts)


_LATENCY_HEAD = ("path", "spins", "cores", "calls", *_PERCENTILE_HEADS, "/ ffi-locked", "/ floor")


def _latency_row(row: Row) -> list[str]:
    spins = " and ".join(row["spinning"]) or "none"
    if row["policy"] == "adaptive":
        spins += ", at first"
    ratios = [_ratio(row, "ratio_to_ffi_locked_p50"), _ratio(row, "ratio_to_floor_p50")]
    return [row["path"], spins, str(row["cores"]), str(row["n"]), *_percentiles(row), *ratios]


def _ratio(row: Row, key: str) -> str:
    if row[key] is None:
        return ""
    return f"{row[key]:.2f} ({row[f'{key}_min']:.2f} to {row[f'{key}_max']:.2f})"


def wake_section(rows: Sequence[Row] | None) -> str:
    """Show what waking costs."""
    if not rows:
        return ""
    return (
        "## What waking costs\n\nMicroseconds a round trip between two sides that sleep while they wait.\n\n"
        + table(
            ("mechanism", "on", "round trips", *_PERCENTILE_HEADS),
            ([row["mechanism"], row["place"], str(row["n"]), *_percentiles(row)] for row in rows),
        )
    )


def idle_section(rows: Sequence[Row] | None) -> str:
    """Show what a daemon costs whose clients do nothing."""
    if not rows:
        return ""
    head = ("open", "share of a core", "goal", "wake-ups a second", "a channel beyond its tensors", "goal")
    return (
        "## An idle daemon\n\nSupervisor, worker and standby of `small` together, while nobody calls.\n\n"
        + table(head, map(_idle_row, rows))
    )


def _idle_row(row: Row) -> list[str]:
    return [
        row["caller"].removeprefix("none, "),
        f"{100 * row['core_share']:.2f} %",
        f"under {100 * idle.CORE_SHARE:g} %",
        f"{row['wakeups_per_s']:g}",
        f"{row['bytes_per_channel'] / 1024:.0f} KiB",
        f"under {idle.BYTES_A_CHANNEL // 1024} KiB",
    ]


def pauses_section(pauses: Mapping[str, Any] | None) -> str:
    """Show the pauses of a domain beside one that infers."""
    title = "## Another domain's pauses\n\n"
    if not pauses:
        return title + WITHOUT_PAUSES
    machine = pauses["machine"]
    return (
        f"{title}Microseconds that a minor collection of domain B takes while domain A runs `wide`. "
        f"OCaml {machine['ocaml']}, {machine['processors']} processors, {machine['date']}, "
        f"commit {machine['commit']}.\n\n"
        + table(
            ("domain A", "busy threads", "collections", *_PERCENTILE_HEADS),
            (_pauses_row(row, machine["processors"]) for row in pauses["rows"]),
        )
    )


def _pauses_row(row: Row, processors: int) -> list[str]:
    lacking = f", of which {processors} have a core" if row["cores"] > processors else ""
    return [row["path"], f"{row['cores']}{lacking}", str(row["n"]), *_percentiles(row)]


def beside_section(rows: Sequence[Row] | None) -> str:
    """Show what releasing the lock costs beside a busy systhread."""
    if not rows:
        return ""
    return (
        "## Beside a busy systhread\n\nMicroseconds a call of `small` while another systhread of the program "
        "computes: who releases the runtime lock has to get it back.\n\n"
        + table(
            ("path", "calls", *_PERCENTILE_HEADS),
            ([row["path"], str(row["n"]), *_percentiles(row)] for row in rows),
        )
    )


def carried_section(rows: Sequence[Row] | None) -> str:
    """Show what carrying state saves."""
    if not rows:
        return ""
    return (
        "## State carried where the model runs\n\nMicroseconds a frame of `vad`: fill the frame, run, read "
        "the probability; and, where state is not carried, copy it from the output to the input.\n\n"
        + table(
            ("path", "calls", *_PERCENTILE_HEADS, "/ copied"),
            ([row["path"], str(row["n"]), *_percentiles(row), _copied_ratio(row)] for row in rows),
        )
    )


def engines_section(rows: Sequence[Row] | None) -> str:
    """Show what each engine costs."""
    if not rows:
        return ""
    return (
        "## Engines\n\nMicroseconds a call of `small`, from one OCaml program that does not know which it "
        "is, in a tight loop, both sides spinning.\n\n"
        + table(
            ("engine", "calls", *_PERCENTILE_HEADS, "/ native lane"),
            (
                [row["path"], str(row["n"]), *_percentiles(row), _ratio(row, "ratio_to_native_p50")]
                for row in rows
            ),
        )
    )


def checks_section(rows: Sequence[Row] | None) -> str:
    """Show what the checks cost on every call."""
    if not rows:
        return ""
    return (
        "## What checks cost\n\nNanoseconds a call of a model that does nothing, by the ring alone: "
        "*checked*, as it is; *unchecked*, without the journal, the guard and the look whether a channel is "
        "staged. On one thread, which submits, serves and takes the answer; and between two cores that "
        "spin.\n\n"
        + table(
            ("build", "on", "calls", "p50", "p90", "p99", "added", "/ unchecked"),
            (
                [
                    row["path"].removeprefix("ring-"),
                    row["caller"],
                    str(row["n"]),
                    *(f"{row[name]:.1f}" for name in _PERCENTILES[:3]),
                    *_added(row, 1, 1),
                ]
                for row in rows
            ),
        )
    )


def staging_section(rows: Sequence[Row] | None) -> str:
    """Show what staging costs by size."""
    if not rows:
        return ""
    return (
        "## What staging costs\n\nMicroseconds a call of a model that copies its input to its output, both "
        "of this size: fill, run, read; both sides spin. *Staged*, as for users that are not trusted, the "
        "worker copies the input before the run and the output after it.\n\n"
        + table(
            ("bytes", "tensors", "calls", "p50", "p90", "p99", "added", "/ in place"),
            (
                [
                    f"{row['bytes']:,}",
                    row["path"],
                    str(row["n"]),
                    *_percentiles(row)[:3],
                    *_added(row, 1000, 2),
                ]
                for row in rows
            ),
        )
    )


def _added(row: Row, unit_ns: int, digits: int) -> list[str]:
    if "added_p50_ns" not in row:
        return ["", ""]
    median, least, most = (row[f"added_p50_ns{end}"] / unit_ns for end in ("", "_min", "_max"))
    added = f"{median:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"
    return [added, _ratio(row, "ratio_p50")]


def _copied_ratio(row: Row) -> str:
    return _ratio(row, "ratio_to_copied_p50") if "ratio_to_copied_p50" in row else ""


def _percentiles(row: Row) -> list[str]:
    return [microseconds(row[name]) for name in _PERCENTILES]


def microseconds(ns: int) -> str:
    """Show nanoseconds as microseconds, to about three digits."""
    value = ns / 1000
    for below, digits in ((10, 2), (100, 1)):
        if value < below:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def table(head: Sequence[str], rows: Any) -> str:
    """Write a table in Markdown; numbers on the right."""
    body = [list(row) for row in rows]
    numeric = [
        all(row[i][:1].isdigit() or not row[i] for row in body) and bool(body) for i in range(len(head))
    ]
    lines = [list(head), ["---:" if right else "---" for right in numeric], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(folder: Path) -> str:
    """Write the report and give what of it belongs on a terminal: the goals, and where the rest is."""
    file = write(folder)
    text = file.read_text(encoding="utf-8")
    goals = text[text.index("## Goals") : text.index("## Latencies")].partition(NOT_MEASURED)[0]
    return f"{goals}The whole report: {file}"


def main() -> int:
    """Write the report and show the goals."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    try:
        print(shown(folder))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

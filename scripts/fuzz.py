"""Runs the fuzz targets: fuzz.py [--seconds N] [--jobs N] [TARGET...], N seconds for all of them together.

Those in C are libFuzzer's, built by `make -C c_shim fuzz`; those in Python are atheris's (tests/fuzz). Each
begins with what the tree has for it (tests/fuzz/seeds.py, tests/fuzz/corpus) and with what earlier runs found
interesting, which is kept in build/fuzz/corpus. An input that a target does not survive is written to
build/fuzz/findings, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/fuzz"
C_TARGETS = ROOT / "c_shim/tests/fuzz"
PYTHON_TARGETS = ROOT / "tests/fuzz"
CORPUS = PYTHON_TARGETS / "corpus"

# A target that needs longer for one input than this does not end. By a clock on the wall: on a machine that
# does much else, an input of a millisecond was seen to take more than ten seconds.
INPUT_TIMEOUT_S = 60
RSS_LIMIT_MB = 2048
# To start, to run what is known already, and to end.
START_S = 300

EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s+(\d+)", re.MULTILINE)
# Lines such as `#8192 pulse cov: 454 ft: 1510 corp: 365/4611b lim: 33 exec/s: 671 rss: 354Mb`.
PROGRESS = re.compile(r"^#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Target:
    """One fuzz target: its name, and how it starts."""

    name: str
    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run: the numbers as libFuzzer counts them."""

    target: Target
    executions: int
    edges: int
    features: int
    inputs: int
    seconds: int
    log: Path
    failed: bool
    findings: Sequence[Path]


def targets() -> list[Target]:
    """List every target there is."""
    in_c = sorted(path.stem for path in C_TARGETS.glob("fuzz_*.c"))
    in_python = sorted(PYTHON_TARGETS.glob("fuzz_*.py"))
    commands = {
        **{stem: [str(ROOT / "build/c_shim/fuzz" / stem)] for stem in in_c},
        **{path.stem: [sys.executable, str(path)] for path in in_python},
    }
    return [Target(stem.removeprefix("fuzz_"), command) for stem, command in commands.items()]


def run(target: Target, seconds: int) -> Result:
    """Fuzz one target for so long."""
    found = BUILD / "findings"
    corpus, log = BUILD / "corpus" / target.name, BUILD / f"{target.name}.log"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    known = [str(path) for path in (CORPUS / target.name, BUILD / "seeds" / target.name) if path.is_dir()]
    before = set(found.glob(f"{target.name}-*"))
    flags = [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-report_slow_units={INPUT_TIMEOUT_S}",
        f"-rss_limit_mb={RSS_LIMIT_MB}",
        f"-artifact_prefix={found}/{target.name}-",
        "-print_final_stats=1",
        "-max_len=8192",
    ]
    with log.open("wb") as output:
        code = subprocess.run(
            [*target.command, *flags, str(corpus), *known],
            env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1", "ORT_DISABLE_TELEMETRY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=BUILD,
            timeout=seconds + START_S,
            check=False,
        ).returncode
    findings = sorted(set(found.glob(f"{target.name}-*")) - before)
    return _result(target, seconds, log, code != 0 or bool(findings), findings)


def _result(target: Target, seconds: int, log: Path, failed: bool, findings: Sequence[Path]) -> Result:
    text = log.read_text(encoding="utf-8", errors="replace")
    executed = EXECUTIONS.findall(text)
    progress = PROGRESS.findall(text) or [("0", "0", "0", "0")]
    count, edges, features, inputs = map(int, progress[-1])
    return Result(
        target=target,
        executions=int(executed[-1]) if executed else count,
        edges=edges,
        features=features,
        inputs=inputs,
        seconds=seconds,
        log=log,
        # Nothing executed is no run, whatever the exit code.
        failed=failed or count == 0,
        findings=findings,
    )


def table(results: Sequence[Result]) -> str:
    """Show what the runs came to, as Markdown."""
    rows = [
        "| target | seconds | executions | edges | features | inputs kept | findings |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {one.target.name} | {one.seconds} | {one.executions:,} | {one.edges:,} | {one.features:,} | "
            f"{one.inputs:,} | {len(one.findings)} |"
            for one in results
        ),
    ]
    return "\n".join(rows)


def complain(result: Result) -> None:
    """Say how one ended that did not end well, and how to see it again."""
    print(f"\n=== {result.target.name}: the end of {result.log}")
    print("\n".join(result.log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]))
    for path in result.findings:
        print(f"again: {' '.join(result.target.command)} {path}")


def parse(arguments: Sequence[str] | None) -> tuple[list[Target], int, int]:
    """Read the command line: which targets, seconds for each, how many at once."""
    every = {target.name: target for target in targets()}
    parser = argparse.ArgumentParser(description="Runs the fuzz targets.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(every)}; default: all")
    parser.add_argument("--seconds", type=int, default=3600, help="for all of them together; default: 3600")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once; default: one a core")
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - set(every):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    chosen = [every[name] for name in options.targets or every]
    return chosen, max(1, options.seconds * options.jobs // len(chosen)), options.jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them and tell; 1 when something was found."""
    chosen, seconds, jobs = parse(arguments)
    subprocess.run([sys.executable, PYTHON_TARGETS / "seeds.py", BUILD / "seeds"], check=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda target: run(target, seconds), chosen))
    bad = [result for result in results if result.failed]
    for result in bad:
        complain(result)
    print(table(results))
    total = sum(result.executions for result in results)
    found = sum(len(result.findings) for result in results)
    print(f"fuzz: {'FAILED' if bad else 'ok'}: {total:,} executions, {found} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

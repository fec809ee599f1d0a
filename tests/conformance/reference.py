"""What ONNX Runtime alone makes of the cases."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from daemon_process import environment

from conformance.suite import Case
from conformance.tensors import Tensor, read_all

PROCESSES = 2
# For one case, the largest model among them.
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Reference:
    """What became of one case: ran, not loaded, not run, or crashed; the words when it did not run."""

    outcome: str
    words: str
    # Whether every run gave the same bits.
    deterministic: bool
    # What the suite's own check said against the outputs; "" when nothing.
    check: str
    # Where the outputs are, a folder for each data set.
    folder: Path

    @property
    def passed(self) -> bool:
        """Whether it ran and the suite's own check is content."""
        return self.outcome == "ran" and not self.check

    def outputs(self, case: Case) -> list[list[Tensor]]:
        """Read the outputs of each data set: none of a case that did not run or has containers."""
        return [read_all(self.folder / data_set.name, "output") for data_set in case.data_sets]


def judge(cases: Sequence[Case], folder: Path) -> dict[Case, Reference]:
    """Run every case; outputs go below `folder`."""
    parts = [cases[start::PROCESSES] for start in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        found: dict[Case, Reference] = {}
        for part in pool.map(lambda part: list(_judge(part, folder)), parts):
            found.update(part)
    return {case: found[case] for case in cases}


def _judge(cases: Iterable[Case], folder: Path) -> Iterable[tuple[Case, Reference]]:
    process = _Process()
    try:
        for case in cases:
            results = folder / case.suite / case.name
            if process.has_ended():
                process.close()
                process = _Process()
            found = process.ask(case, results)
            if found.outcome == "crashed":
                process.close()
                process = _Process()
            yield case, found
    finally:
        process.close()


class _Process:
    def __init__(self) -> None:
        tests = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "conformance.onnxruntime_alone"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(PYTHONPATH=tests),
            text=True,
        )

    def ask(self, case: Case, results: Path) -> Reference:
        asked = {
            "suite": case.suite,
            "name": case.name,
            "folder": str(case.folder),
            "rtol": case.rtol,
            "atol": case.atol,
            "results": str(results),
        }
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return Reference("crashed", self._how_it_ended(), False, "", results)
        if not select.select([self._process.stdout], [], [], PATIENCE_S)[0]:
            return Reference("crashed", f"no answer within {PATIENCE_S:g} s", False, "", results)
        answer = self._process.stdout.readline()
        if not answer:
            return Reference("crashed", self._how_it_ended(), False, "", results)
        told = json.loads(answer)
        return Reference(
            told["outcome"], told["words"], told.get("deterministic", False), told.get("check", ""), results
        )

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        return (
            f"the process ended by {signal.Signals(-code).name}"
            if code < 0
            else f"the process ended with {code}"
        )

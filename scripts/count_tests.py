"""Counts the tests in logs of `make test`: count_tests.py LOG... prints `N passed, 0 failed` if all is well.

Fails when a runner did not report, or when a test did anything but pass: a skipped test proves nothing.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Every runner closes with a line that counts.
C_CLOSING = re.compile(r"^(\d+) passed, 0 failed$", re.MULTILINE)
ALCOTEST = re.compile(r"^Test Successful in .*?(\d+) tests? run\.", re.MULTILINE)
ALCOTEST_SKIP = re.compile(r"^\s*\[SKIP\].*", re.MULTILINE)
PYTEST = re.compile(r"^=+ (.*\d+ passed.*) in [\d.]+s\b.*=+$", re.MULTILINE)
PYTEST_OUTCOME = re.compile(r"(\d+) (\w+)")


class NotAllPassedError(Exception):
    """Something was not run, or did not pass."""


def c_tests(log: str) -> int:
    """Count the C core's tests."""
    return sum(int(number) for number in C_CLOSING.findall(log))


def alcotest_tests(log: str) -> int:
    """Count the OCaml library's tests."""
    if (skipped := ALCOTEST_SKIP.search(log)) is not None:
        raise NotAllPassedError(skipped[0].strip())
    return sum(int(number) for number in ALCOTEST.findall(log))


def cram_tests(log: str) -> int:
    """Count the cram tests: dune says nothing of one that passes, and fails when one does not."""
    return len(list((ROOT / "ocaml_lib").rglob("*.t"))) if "dune runtest" in log else 0


def pytest_tests(log: str) -> int:
    """Count the Python tests."""
    closings = PYTEST.findall(log)
    outcomes = PYTEST_OUTCOME.findall(", ".join(closings))
    if any(outcome != "passed" for _, outcome in outcomes):
        raise NotAllPassedError(f"pytest: {', '.join(closings)}")
    return sum(int(number) for number, _ in outcomes)


RUNNERS = {"C": c_tests, "alcotest": alcotest_tests, "cram": cram_tests, "pytest": pytest_tests}


def counts(path: Path) -> Iterator[tuple[str, int]]:
    """Count each runner's tests in one log."""
    log = path.read_text(encoding="utf-8", errors="replace")
    for name, count in RUNNERS.items():
        if (number := count(log)) == 0:
            raise NotAllPassedError(f"no test of {name} has run")
        yield name, number


def main() -> int:
    """Count the tests of every log named on the command line."""
    total = 0
    for path in map(Path, sys.argv[1:]):
        try:
            found = dict(counts(path))
        except NotAllPassedError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
        print(f"{path.stem}: " + ", ".join(f"{number} {name}" for name, number in found.items()))
        total += sum(found.values())
    print(f"{total} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""All paths of a model at once: only the one that is measured is awake, and none is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import cast as cast_module
from bench.cast import cast
from bench.cores import Cores
from bench.errors import BenchError
from bench.paths import PathSpec
from bench.program import measured_by

ROOT = Path(__file__).resolve().parent.parent.parent
FAKE = ROOT / "tests/fake_driver.py"
CORE = min(os.sched_getaffinity(0))
CORES = Cores(CORE, CORE, siblings=False)


@pytest.fixture(autouse=True)
def fake_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("has-child", "floor", "fails")
    monkeypatch.setattr(
        cast_module, "PATHS", {name: PathSpec(name, FAKE, "make it", "none", (), 1) for name in names}
    )


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_helpers_sleep_but_while_their_path_is_measured(tmp_path: Path) -> None:
    with cast("small", Path("small.onnx"), ["has-child", "floor"], CORES, tmp_path) as paths:
        (child,) = paths._helpers["has-child"]
        assert state_of(child) == "T"
        with paths._awake("has-child"):
            assert state_of(child) != "T"
        assert state_of(child) == "T"
        assert paths.call("floor", 0, 2, 1000).tolist() == [1000, 1001]
        assert paths.outputs("has-child", 4) == paths.outputs("floor", 4)


def test_the_two_sides_change_cores(tmp_path: Path) -> None:
    one, other = sorted(os.sched_getaffinity(0))[:2]
    with cast(
        "small", Path("small.onnx"), ["has-child"], Cores(one, other, siblings=False), tmp_path
    ) as paths:
        driver, (child,) = paths._drivers["has-child"].pid, paths._helpers["has-child"]
        os.sched_setaffinity(child, {other})
        for client, server in ((other, one), (one, other)):
            paths.change_sides()
            assert (os.sched_getaffinity(driver), os.sched_getaffinity(child)) == ({client}, {server})


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchError, match="path fails with model small: the engine failed"),
        cast("small", Path("small.onnx"), ["has-child", "fails"], CORES, tmp_path) as paths,
    ):
        paths.call("fails", 0, 2, 1000)


def test_a_program_that_measures_once_gives_its_samples(tmp_path: Path) -> None:
    script = "import sys, numpy; numpy.arange(3, dtype='<u8').tofile(sys.argv[1]); print('done 3')"
    assert measured_by("three", [sys.executable, "-c", script], tmp_path, 30).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("print('error no such scenario'); raise SystemExit(1)", "program: no such scenario"),
        ("print('finished')", "program: expected 'done N', got 'finished'"),
        ("print('done 3'); raise SystemExit(2)", "program: ended with code 2"),
        ("import sys; open(sys.argv[1], 'wb'); print('done 3')", "program: said 3 samples, and wrote 0"),
    ],
)
def test_a_program_that_fails_says_why(tmp_path: Path, script: str, text: str) -> None:
    with pytest.raises(BenchError, match=text):
        measured_by("program", [sys.executable, "-c", script], tmp_path, 30)


def pytest_of_bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "bench", "--collect-only", "--quiet", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)


def test_each_cell_is_a_test_of_its_own() -> None:
    done = pytest_of_bench(
        "--quick", "--models=small", "--callers=tight", "--paths=floor,pyml", "-k", "latency"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[:2] == [
        "test_latency.py::test_latency[small-tight-floor]",
        "test_latency.py::test_latency[small-tight-pyml]",
    ]


def test_a_path_that_there_is_not_ends_the_benchmark_at_once() -> None:
    done = pytest_of_bench("--paths=flor")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no such path: flor; there are floor, floor-block" in done.stderr

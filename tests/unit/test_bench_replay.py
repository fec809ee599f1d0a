"""Samples fed to pytest-benchmark: each is a round of it, and its own options work on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import replay

ROOT = Path(__file__).resolve().parent.parent.parent

SUITE = """
import pytest
from bench import replay
from bench.replayed import replay_runs
import numpy as np

RUNS = [np.array([1000, 3000], dtype="<u8"), np.array([2000], dtype="<u8")]

@pytest.mark.benchmark(timer=replay.timer)
def test_replayed(benchmark):
    replay_runs(benchmark, "small, tight", RUNS, {"path": "floor"})
"""


def test_the_clock_stands_still_between_samples() -> None:
    clock = replay.Clock()
    clock.load([1500, 7])
    readings = [clock.seconds(), clock.seconds()]
    clock.step()
    readings.append(clock.seconds())
    clock.step()
    readings.append(clock.seconds())
    assert readings == [0.0, 0.0, 1.5e-6, 1.507e-6]


def test_a_sample_too_many_is_an_error() -> None:
    clock = replay.Clock()
    clock.load([1])
    clock.step()
    with pytest.raises(IndexError, match="no sample is left"):
        clock.step()


def test_loading_begins_anew() -> None:
    clock = replay.Clock()
    clock.load([1000, 1000])
    clock.step()
    clock.load([5])
    clock.step()
    assert clock.seconds() == 5e-9


def run_suite(folder: Path, *options: str) -> str:
    (folder / "test_suite.py").write_text(SUITE, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", str(folder), f"--rootdir={folder}", *options]
    done = subprocess.run(
        [*command, f"--benchmark-storage={folder}/storage"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pytest_benchmark_sees_every_sample_as_it_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    run_suite(tmp_path, f"--benchmark-json={file}")
    (found,) = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    assert [round(seconds * 1e9, 3) for seconds in found["stats"]["data"]] == [1000, 3000, 2000]
    assert found["stats"]["median"] == pytest.approx(2e-6)
    assert found["group"] == "small, tight" and found["extra_info"] == {"path": "floor"}


def test_saving_comparing_and_histograms_work(tmp_path: Path) -> None:
    run_suite(tmp_path, "--benchmark-save=before")
    text = run_suite(tmp_path, "--benchmark-compare", f"--benchmark-histogram={tmp_path}/plot")
    assert "(NOW)" in text
    assert list(tmp_path.glob("plot*.svg"))

"""A driver process of the benchmark: what it says is understood, and each failure is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bench import driver as driver_module
from bench.cores import Cores
from bench.driver import Driver, Served, compare_outputs
from bench.errors import BenchError
from bench.freezing import freeze, pin, thaw
from bench.paths import PathSpec
from bench.process import LineProcess

FAKE = Path(__file__).resolve().parent.parent / "fake_driver.py"
CORE = min(os.sched_getaffinity(0))
CORES = Cores(CORE, CORE, siblings=False)

StartDriver = Callable[[str], Driver]


def spec_of(name: str, driver: Path = FAKE) -> PathSpec:
    return PathSpec(name, driver, "make it", "none", (), 1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartDriver]:
    started: list[Driver] = []

    def start(path: str) -> Driver:
        started.append(Driver(spec_of(path), Path("model.onnx"), CORES, tmp_path))
        return started[-1]

    yield start
    for driver in started:
        driver.kill()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_samples_and_outputs_come_through(start: StartDriver) -> None:
    driver = start("floor")
    assert driver.call(0, 3, 1000).tolist() == [1000, 1001, 1002]
    assert driver.call(2048, 2, 1000).tolist() == [1002, 1003]
    assert np.frombuffer(driver.outputs(2), "<f4").tolist() == list(range(8))
    assert driver.others == ()
    driver.end()


def test_it_runs_on_the_clients_core(start: StartDriver) -> None:
    driver = start("floor")
    assert os.sched_getaffinity(driver._process.pid) == {CORE}


def test_its_helpers_can_be_frozen_and_go_on(start: StartDriver) -> None:
    driver = start("has-child")
    (child,) = driver.others
    pin(child, CORE)
    freeze([child])
    assert state_of(child) == "T"
    thaw([child])
    assert state_of(child) != "T"
    driver.end()
    with pytest.raises(BenchError, match=f"process {child} ended during the benchmark"):
        freeze([child])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("refuses", "model file is not to its liking"),
        ("mumbles", "expected a line that begins with 'ready', got 'hello'"),
    ],
)
def test_one_that_does_not_get_ready_says_why(start: StartDriver, path: str, text: str) -> None:
    with pytest.raises(BenchError, match=f"driver of path {path} with model model: {text}"):
        start(path)


def test_one_that_stays_silent_is_named(start: StartDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "READY_S", 0.2)
    with pytest.raises(BenchError, match=r"path stays-silent .* no answer 'ready' within 0\.2 s"):
        start("stays-silent")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("fails", "the engine failed"),
        ("dies", "was killed by SIGKILL before answer 'done'; its last words:\nits last words"),
        ("miscounts", r"said \['4'\] samples, and wrote 3"),
    ],
)
def test_one_that_fails_a_command_says_why(start: StartDriver, path: str, text: str) -> None:
    driver = start(path)
    with pytest.raises(BenchError, match=text):
        driver.call(0, 3, 1000)


def test_one_that_fails_at_the_end_is_noticed(start: StartDriver) -> None:
    with pytest.raises(BenchError, match=r"path ends-badly .* ended with code 3"):
        start("ends-badly").end()


def test_a_command_to_one_that_is_gone_is_an_error(tmp_path: Path) -> None:
    process = LineProcess("true", ["true"], log=tmp_path / "log")
    with pytest.raises(BenchError, match="true: ended with code 0 before a line"):
        process.line(10, "a line")
    with pytest.raises(BenchError, match="true: has ended before it was told 'call'"):
        process.send("call")
    process.kill()


def test_a_driver_that_was_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    missing = spec_of("floor", tmp_path / "bench_c")
    with pytest.raises(BenchError, match=r"bench_c does not exist: build it with `make it`"):
        Driver(missing, Path("model.onnx"), CORES, tmp_path)


def test_a_program_that_is_not_installed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no-such-program cannot be started: No such file or directory"):
        LineProcess("the driver", ["no-such-program"], log=tmp_path / "log")


def test_a_served_model_is_named_by_its_arguments() -> None:
    served = Served("small--native-spin", Path("bench.sock"))
    assert served.arguments == ["--name", "small--native-spin", "--socket", "bench.sock"]


def test_equal_outputs_pass() -> None:
    compare_outputs("small", 2, {"floor": b"abcd", "pyml": b"abcd"})


def test_the_path_that_computes_differently_is_named() -> None:
    outputs = {"floor": b"abcdefgh", "ffi-locked": b"abcdefgh", "pyml": b"abcdeXgh"}
    text = "the output of path pyml differs from that of floor: seed 1, byte 1: 0x58 instead of 0x66"
    with pytest.raises(BenchError, match=text):
        compare_outputs("small", 2, outputs)


def test_outputs_of_another_size_are_named() -> None:
    with pytest.raises(BenchError, match="path pyml gave 3 bytes of output, floor gave 4"):
        compare_outputs("small", 2, {"floor": b"abcd", "pyml": b"abc"})

"""The benchmark's drivers in OCaml: each path gives ONNX Runtime's bits, allocates and leaves nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import models
import numpy as np
import pytest
from conftest import StartDaemon
from daemon_process import REPOSITORY, Daemon, is_alive, wait_until
from test_bench_drivers import (
    MODELS,
    SERVER_CORE,
    Driver,
    Start,
    check_outputs,
    check_refused,
    check_samples,
)

from bench import carried
from bench.daemon import configuration
from bench.models import write
from bench.throughput import requests

BUILT = REPOSITORY / "_build" / "default" / "bench"
DRIVER = BUILT / "ocaml" / "driver.exe"
PYML_DRIVER = BUILT / "pyml" / "driver.exe"
CARRIED = BUILT / "ocaml" / "carried.exe"
BESIDE = BUILT / "ocaml" / "beside.exe"
THROUGHPUT = BUILT / "ocaml" / "throughput.exe"
PAUSES = BUILT / "ocaml" / "pauses.exe"
IN_PROCESS = ["ffi-locked", "ffi-released", "ffi-helper-spin", "pyml"]
SERVED = ["ipc-native-spin", "ipc-native-adaptive", "ipc-native-block", "ipc-python-spin", "ipc-python-block"]
NAME = "model"


@pytest.fixture
def launch(nothing_left: None) -> Iterator[Start]:
    """Start drivers; they end with the test."""
    with ExitStack() as stack:

        def begin(command: list[str], **changes: str) -> Driver:
            assert Path(command[0]).exists(), f"{command[0]} is missing: run `dune build`"
            driver = Driver(command, **changes)
            stack.callback(driver.close)
            return driver

        yield begin


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return models.small_mlp(tmp_path / "small.onnx")


def in_process(path: str, model: Path) -> list[str]:
    program = PYML_DRIVER if path == "pyml" else DRIVER
    return [str(program), "--path", path, "--model", str(model), "--server-core", str(SERVER_CORE)]


def served(path: str, model: Path, running: Daemon, name: str = NAME) -> list[str]:
    return [*in_process(path, model), "--name", name, "--socket", str(running.socket)]


def serve(daemon: StartDaemon, path: str, model: Path, folder: Path) -> Daemon:
    """Serve a model as the benchmark serves it for a path: in its lane, with its policy."""
    _, lane, policy = path.split("-")
    config = folder / "served.toml"
    config.write_text(f'[models.{NAME}]\npath = "{model}"\nlane = "{lane}"\npolicy = "{policy}"\n')
    return daemon({}, f"--config={config}")


def check_works(driver: Driver, model: Path, folder: Path) -> None:
    assert driver.ready() == []
    check_outputs(driver, model, folder)
    # Also that it allocates nothing: a driver whose timed calls did would say so.
    check_samples(driver, folder, "1048576 5 1000000000", made=5)
    check_outputs(driver, model, folder)
    assert driver.end() == 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", IN_PROCESS)
def test_a_path_in_process_gives_the_bits_of_onnx_runtime(
    launch: Start, tmp_path: Path, path: str, model: str
) -> None:
    file = MODELS[model](tmp_path / "model.onnx")
    check_works(launch(in_process(path, file)), file, tmp_path)


@pytest.mark.parametrize("model", ["small", "int64-too", "odd-size"])
@pytest.mark.parametrize("path", SERVED)
def test_a_path_through_the_daemon_gives_the_bits_of_onnx_runtime(
    launch: Start, daemon: StartDaemon, tmp_path: Path, path: str, model: str
) -> None:
    file = MODELS[model](tmp_path / "model.onnx")
    running = serve(daemon, path, file, tmp_path)
    check_works(launch(served(path, file, running)), file, tmp_path)


@pytest.mark.parametrize("path", IN_PROCESS)
def test_a_path_times_as_many_calls_as_asked(launch: Start, small: Path, tmp_path: Path, path: str) -> None:
    driver = launch(in_process(path, small))
    driver.ready()
    check_samples(driver, tmp_path, "0 100 60000000000", made=100)
    check_samples(driver, tmp_path, "1048576 100 60000000000", made=100)
    check_samples(driver, tmp_path, "0 1000 0", made=20)
    check_samples(driver, tmp_path, "0 3 0", made=3)
    assert driver.end() == 0


def test_the_helper_keeps_to_its_core_and_sleeps_between_commands(
    launch: Start, small: Path, tmp_path: Path
) -> None:
    driver = launch(in_process("ffi-helper-spin", small))
    driver.ready()
    check_samples(driver, tmp_path, "0 20 0", made=20)
    threads = list(Path(f"/proc/{driver.process.pid}/task").iterdir())
    pinned = [thread for thread in threads if allowed_cores(thread) == str(SERVER_CORE)]
    assert len(threads) == 2
    assert len(pinned) == 1
    wait_until("every thread's sleep", lambda: all(state(thread) == "S" for thread in threads))
    assert driver.end() == 0


def allowed_cores(thread: Path) -> str:
    lines = (thread / "status").read_text(encoding="ascii").splitlines()
    (cores,) = [line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:")]
    return cores


def state(thread: Path) -> str:
    return (thread / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_requests_are_measured_in_groups(launch: Start, daemon: StartDaemon, tmp_path: Path) -> None:
    file = models.dynamic_mlp(tmp_path / "dynamic.onnx")
    running = daemon({"dynamic": file})
    for path in (*requests.PATHS, "window-adaptive"):
        samples = tmp_path / f"{path}.samples"
        where = ["--name", "dynamic", "--socket", str(running.socket)]
        given = where if path.startswith("window") else ["--model", str(file)]
        command = [str(THROUGHPUT), "--path", path, *given, "--count", "5", str(samples)]
        check_measured(launch(command), samples, 5)


# --- Errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", IN_PROCESS)
def test_a_model_that_is_not_there_is_named(launch: Start, tmp_path: Path, path: str) -> None:
    missing = tmp_path / "missing.onnx"
    check_refused(launch(in_process(path, missing)), str(missing))


@pytest.mark.parametrize("path", IN_PROCESS)
def test_a_run_that_fails_is_told_in_onnx_runtime_s_words(launch: Start, tmp_path: Path, path: str) -> None:
    driver = launch(in_process(path, models.fails_inside(tmp_path / "fails.onnx")))
    check_refused(driver, "requested shape:{16000,16000}")


@pytest.mark.parametrize("path", IN_PROCESS)
def test_a_tensor_that_the_benchmark_cannot_have_is_named(launch: Start, tmp_path: Path, path: str) -> None:
    dynamic = models.dynamic_mlp(tmp_path / "dynamic.onnx")
    check_refused(launch(in_process(path, dynamic)), "x", "dim" if path != "pyml" else "fixed")
    int8 = models.identity("int8", (3,), tmp_path / "int8.onnx")
    check_refused(launch(in_process(path, int8)), "x", "int8", "float32 and int64")


def test_what_the_daemon_refuses_is_told(
    launch: Start, daemon: StartDaemon, small: Path, tmp_path: Path
) -> None:
    path = "ipc-native-adaptive"
    running = serve(daemon, path, small, tmp_path)
    check_refused(launch(served(path, small, running, "modle")), "UNKNOWN_MODEL", "'model'")
    check_refused(launch(in_process(path, small)), "--name")


def test_a_daemon_that_ends_is_told(launch: Start, daemon: StartDaemon, small: Path, tmp_path: Path) -> None:
    path = "ipc-native-block"
    running = serve(daemon, path, small, tmp_path)
    driver = launch(served(path, small, running))
    driver.ready()
    (worker,) = running.workers()
    running.kill()
    # Until it is run, it serves.
    wait_until("the worker's end", lambda: not is_alive(worker))
    answer = driver.ask(f"outputs 1 {tmp_path / 'outputs'}")
    assert answer.startswith("error SERVER_GONE"), answer
    assert driver.process.wait() == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--path", "nope"], ['"nope"', "ffi-helper-spin"]),
        ([], ["--path"]),
        (["--path", "ffi-locked"], ["--model"]),
        (["--path", "ffi-helper-spin", "--model", "m"], ["--server-core"]),
        (["--path", "ffi-helper-spin", "--server-core", "x"], ["--server-core", "'x'"]),
        (["--nope"], ["--nope"]),
        (["more"], ['"more"']),
    ],
)
def test_wrong_arguments_are_named(launch: Start, arguments: list[str], words: list[str]) -> None:
    check_refused(launch([str(DRIVER), *arguments]), *words)


def test_a_core_that_is_not_there_is_named(launch: Start, small: Path) -> None:
    command = in_process("ffi-helper-spin", small)
    check_refused(launch([*command, "--server-core", "1000000"]), "core 1000000")


def test_pyml_without_an_environment_says_so(launch: Start, small: Path) -> None:
    check_refused(launch(in_process("pyml", small), VIRTUAL_ENV=""), "VIRTUAL_ENV is not set")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("dance", '"dance"'),
        ("call 0 20 0", "TOUCH COUNT BUDGET_NS FILE"),
        ("call 0 99999999999 0 /dev/null", "99999999999"),
        ("call 9999999999999999 20 0 /dev/null", "there is no memory"),
        ("call 0 20 0 /nonexistent/samples", "/nonexistent/samples"),
        ("outputs 1 /dev/full", "/dev/full could not be written: No space left"),
    ],
)
def test_what_a_line_asks_in_vain_is_named(launch: Start, small: Path, line: str, word: str) -> None:
    driver = launch(in_process("ffi-helper-spin", small))
    driver.ready()
    answer = driver.ask(line)
    assert answer.startswith("error ")
    assert word in answer
    assert driver.process.wait() == 1


# --- Programs that measure once -----------------------------------------------------------------------------


def check_measured(driver: Driver, file: Path, count: int) -> None:
    assert driver.line() == f"done {count}"
    assert driver.end() == 0
    samples = np.fromfile(file, "<u8")
    assert len(samples) == count
    assert samples.min() > 0


def measuring(program: Path, choice: list[str], model: Path, running: Daemon) -> list[str]:
    return [str(program), *choice, "--model", str(model), "--name", NAME, "--socket", str(running.socket)]


@pytest.mark.parametrize("path", ["ffi-locked", "ffi-released", "ipc-hold", "ipc-release"])
def test_calls_beside_a_busy_thread_are_timed(
    launch: Start, daemon: StartDaemon, small: Path, tmp_path: Path, path: str
) -> None:
    running = daemon({NAME: small})
    file = tmp_path / "samples"
    command = measuring(BESIDE, ["--path", path], small, running)
    check_measured(launch([*command, "--count", "30", str(file)]), file, 30)


@pytest.mark.parametrize("path", carried.NAMES)
def test_calls_with_state_are_timed(launch: Start, daemon: StartDaemon, tmp_path: Path, path: str) -> None:
    model = write("vad", tmp_path)
    config = tmp_path / "vad.toml"
    variant = carried.VARIANTS.get(path, "native-spin")
    config.write_text(configuration("vad", model, [variant], tmp_path / "unused.sock"))
    running = daemon({}, f"--config={config}")
    file = tmp_path / "samples"
    command = [str(CARRIED), "--path", path, "--model", str(model), "--name", f"vad--{variant}"]
    command += ["--socket", str(running.socket), "--count", "20", str(file)]
    check_measured(launch(command), file, 20)


@pytest.mark.parametrize(
    "scenario", ["alone", "asleep", "ffi-locked", "ffi-released", "ipc-released", "ipc-block"]
)
def test_pauses_are_timed_where_ocaml_has_domains(
    launch: Start, daemon: StartDaemon, small: Path, tmp_path: Path, scenario: str
) -> None:
    if ocaml_version() < 5:
        assert not PAUSES.exists()
        return
    running = daemon({NAME: small})
    file = tmp_path / "samples"
    command = measuring(PAUSES, ["--scenario", scenario], small, running)
    check_measured(launch([*command, "--count", "50", str(file)]), file, 50)


def ocaml_version() -> int:
    said = subprocess.run(["ocamlfind", "ocamlopt", "-version"], check=True, capture_output=True, text=True)
    return int(said.stdout.split(".")[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--path", "nope", "--count", "1", "f"], ['"nope"', "ipc-release"]),
        (["--path", "ipc-hold", "--count", "1"], ["FILE"]),
        (["--path", "ipc-hold", "f"], ["--count"]),
        (["--path", "ipc-hold", "--count", "0", "f"], ["--count", "0"]),
        (["--path", "ipc-hold", "--count", "1", "f"], ["--name"]),
        (["--path", "ffi-locked", "--model", "/nonexistent", "--count", "1", "f"], ["/nonexistent"]),
    ],
)
def test_what_a_measurement_lacks_is_named(launch: Start, arguments: list[str], words: list[str]) -> None:
    check_refused(launch([str(BESIDE), *arguments]), *words)

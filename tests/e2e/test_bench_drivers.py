"""The benchmark's drivers in C and Python: each path gives ONNX Runtime's bits, and leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import models
import numpy as np
import onnxruntime
import posix_ipc
import pytest
from conftest import StartDaemon
from daemon_process import REPOSITORY, environment, is_alive, wait_until

BENCH_C = REPOSITORY / "build/bench/bench_c"
RING = REPOSITORY / "build/bench/ring"
WAKE = REPOSITORY / "build/bench/wake"
PYCLIENT = REPOSITORY / "bench/drivers/pyclient.py"
PATHS = ["floor", "floor-block", "c-inprocess", "uds-msgpack"]
SERVED_PATHS = ["floor", "floor-block", "uds-msgpack"]
CLIENT_CORE, SERVER_CORE = sorted(os.sched_getaffinity(0))[:2]
MIB = 2**20
SEEDS = 4

MODELS: dict[str, Callable[[Path], Path]] = {
    "small": models.small_mlp,
    "id16": lambda path: models.identity("float32", (16,), path),
    "one-number": lambda path: models.identity("float32", (1,), path),
    "odd-size": lambda path: models.identity("float32", (1041,), path),
    "int64-too": models.two_in_two_out,
    "id16m": lambda path: models.identity("float32", (4 * MIB,), path),
}


def surroundings(**changes: str) -> dict[str, str]:
    ours = {"VIRTUAL_ENV": sys.prefix, "SIDECAML_PYTHON": sys.executable}
    return environment(**{**ours, **changes})


@pytest.fixture(scope="module", autouse=True)
def drivers() -> None:
    subprocess.run(["make", "-C", "bench/drivers"], cwd=REPOSITORY, check=True)


class Driver:
    """A driver on the client's core, told one line at a time."""

    def __init__(self, command: list[str], **changes: str) -> None:
        self.process = subprocess.Popen(
            ["taskset", "--cpu-list", str(CLIENT_CORE), *command],
            env=surroundings(**changes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin and self.process.stdout
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout

    def line(self) -> str:
        return self.stdout.readline().removesuffix("\n")

    def ready(self) -> list[int]:
        word, *pids = self.line().split()
        assert word == "ready", [word, *pids]
        return [int(pid) for pid in pids]

    def ask(self, line: str) -> str:
        """Tell it a line, and return its answer: one that has ended said why before."""
        with suppress(BrokenPipeError):
            os.write(self.stdin.fileno(), f"{line}\n".encode())
        return self.line()

    def end(self) -> int:
        self.stdin.close()
        return self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


Start = Callable[..., Driver]


@pytest.fixture
def start(nothing_left: None) -> Iterator[Start]:
    """Start drivers; they end with the test."""
    with ExitStack() as stack:

        def begin(command: list[str], **changes: str) -> Driver:
            driver = Driver(command, **changes)
            stack.callback(driver.close)
            return driver

        yield begin


def bench_c(path: str, model: Path) -> list[str]:
    return [str(BENCH_C), f"--path={path}", f"--model={model}", f"--server-core={SERVER_CORE}"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return models.small_mlp(tmp_path / "small.onnx")


def inputs(seed: int, session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    """Fill inputs as bench/callers/caller.h says."""
    feeds = {}
    for put in session.get_inputs():
        index = np.arange(np.prod(put.shape, dtype=int))
        values = ((index + 31 * seed) & 255).astype(np.float32) * np.float32(1 / 256)
        number = np.full(put.shape, 16000, np.int64)
        feeds[put.name] = number if put.type == "tensor(int64)" else values.reshape(put.shape)
    return feeds


def expected_outputs(model: Path) -> bytes:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    runs = [session.run(None, inputs(seed, session)) for seed in range(SEEDS)]
    return b"".join(output.tobytes() for run in runs for output in run)


def check_outputs(driver: Driver, model: Path, folder: Path) -> None:
    file = folder / "outputs with a space"
    assert driver.ask(f"outputs {SEEDS} {file}") == f"done {SEEDS}"
    # Not by ==, whose report of a difference would be megabytes long.
    same = file.read_bytes() == expected_outputs(model)
    assert same, "other bits than ONNX Runtime's"


def check_samples(driver: Driver, folder: Path, asked: str, made: int) -> None:
    """Have calls timed: `asked` is TOUCH COUNT BUDGET_NS."""
    file = folder / "samples"
    assert driver.ask(f"call {asked} {file}") == f"done {made}"
    samples = np.fromfile(file, "<u8")
    assert len(samples) == made
    assert samples.min() > 0


# --- Paths in C ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", PATHS)
def test_a_path_gives_the_bits_of_onnx_runtime(start: Start, tmp_path: Path, path: str, model: str) -> None:
    file = MODELS[model](tmp_path / "model.onnx")
    driver = start(bench_c(path, file))
    driver.ready()
    check_outputs(driver, file, tmp_path)
    check_samples(driver, tmp_path, "1048576 5 1000000000", made=5)
    check_outputs(driver, file, tmp_path)
    assert driver.end() == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_path_times_as_many_calls_as_asked(start: Start, small: Path, tmp_path: Path, path: str) -> None:
    driver = start(bench_c(path, small))
    driver.ready()
    check_samples(driver, tmp_path, "0 100 60000000000", made=100)
    check_samples(driver, tmp_path, "1048576 100 60000000000", made=100)
    check_samples(driver, tmp_path, "0 1000 0", made=20)
    check_samples(driver, tmp_path, "0 3 0", made=3)
    assert driver.end() == 0


@pytest.mark.parametrize("path", SERVED_PATHS)
def test_the_server_is_named_and_keeps_to_its_core(start: Start, small: Path, path: str) -> None:
    (server,) = start(bench_c(path, small)).ready()
    assert os.sched_getaffinity(server) == {SERVER_CORE}


@pytest.mark.parametrize("path", SERVED_PATHS)
def test_a_stopped_server_goes_on(start: Start, small: Path, tmp_path: Path, path: str) -> None:
    driver = start(bench_c(path, small))
    (server,) = driver.ready()
    for _ in range(3):
        os.kill(server, signal.SIGSTOP)
        os.kill(server, signal.SIGCONT)
        check_samples(driver, tmp_path, "0 20 0", made=20)


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("path", SERVED_PATHS)
def test_the_server_ends_with_a_killed_driver(start: Start, small: Path, path: str, stopped: bool) -> None:
    driver = start(bench_c(path, small))
    (server,) = driver.ready()
    if stopped:
        os.kill(server, signal.SIGSTOP)
    driver.process.kill()
    wait_until("the server's end", lambda: not is_alive(server))


@pytest.mark.parametrize("path", SERVED_PATHS)
def test_a_driver_whose_server_was_killed_says_so(
    start: Start, small: Path, tmp_path: Path, path: str
) -> None:
    driver = start(bench_c(path, small))
    (server,) = driver.ready()
    os.kill(server, signal.SIGKILL)
    # It says so before it is asked, or when it is.
    answer = driver.ask(f"outputs 1 {tmp_path / 'outputs'}")
    assert answer.startswith("error ")
    assert "ended" in answer
    assert driver.process.wait() == 1


# --- Errors -------------------------------------------------------------------------------------------------


def check_refused(driver: Driver, *words: str) -> None:
    line = driver.line()
    assert line.startswith("error "), line
    assert all(word in line for word in words), line
    assert driver.process.wait() == 1


@pytest.mark.parametrize("path", PATHS)
def test_a_model_that_is_not_there_is_named(start: Start, tmp_path: Path, path: str) -> None:
    missing = tmp_path / "missing.onnx"
    check_refused(start(bench_c(path, missing)), str(missing), "cannot be read: No such file or directory")


@pytest.mark.parametrize("path", PATHS)
def test_a_library_that_is_not_there_is_named(start: Start, small: Path, path: str) -> None:
    check_refused(
        start(bench_c(path, small), SIDECAML_ONNXRUNTIME="/nonexistent"), "ONNX Runtime", "/nonexistent"
    )


@pytest.mark.parametrize("path", PATHS)
def test_a_run_that_fails_is_told_in_onnx_runtime_s_words(start: Start, tmp_path: Path, path: str) -> None:
    driver = start(bench_c(path, models.fails_inside(tmp_path / "fails.onnx")))
    check_refused(driver, "requested shape:{16000,16000}")


def test_a_tensor_that_the_benchmark_cannot_have_is_named(start: Start, tmp_path: Path) -> None:
    dynamic = models.dynamic_mlp(tmp_path / "dynamic.onnx")
    check_refused(start(bench_c("floor", dynamic)), 'tensor "x"', "dynamic")
    int8 = models.identity("int8", (3,), tmp_path / "int8.onnx")
    check_refused(start(bench_c("floor", int8)), 'input "x"', "tensor(int8)")


def test_a_python_that_is_not_there_ends_the_driver(start: Start, small: Path) -> None:
    driver = start(bench_c("uds-msgpack", small), SIDECAML_PYTHON="/nonexistent")
    check_refused(driver, "the msgpack server exited with 1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--path=nope"], ['unknown path "nope"', "uds-msgpack"]),
        (["--path=floor"], ["usage: bench_c"]),
        (["--nope"], ["--nope"]),
        (["--server-core=x"], ["--server-core", '"x"']),
        (["--path=floor", "--model=m", "--server-core=1000000"], ["core 1000000"]),
    ],
)
def test_wrong_arguments_are_named(
    start: Start, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    model = models.identity("float32", (1,), tmp_path / "model.onnx")
    check_refused(start([str(BENCH_C), *(word.replace("=m", f"={model}") for word in arguments)]), *words)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("dance", '"dance"'),
        ("call 0 20 0", "TOUCH COUNT BUDGET_NS FILE"),
        ("call 0 99999999999 0 /dev/null", "99999999999"),
        ("call 0 20 0 /nonexistent/samples", "/nonexistent/samples"),
        ("outputs 1 /dev/full", "/dev/full could not be written: No space left"),
    ],
)
def test_what_a_line_asks_in_vain_is_named(start: Start, small: Path, line: str, word: str) -> None:
    driver = start(bench_c("c-inprocess", small))
    driver.ready()
    answer = driver.ask(line)
    assert answer.startswith("error ")
    assert word in answer
    assert driver.process.wait() == 1


# --- The ring by itself ------------------------------------------------------------------------------------


IN_BATCHES = ["--window", "32", "--batches"]


@pytest.mark.parametrize("more", [[], IN_BATCHES[:2], IN_BATCHES, [*IN_BATCHES, "--output-bytes", "40"]])
def test_the_ring_is_timed_call_by_call_and_in_windows(start: Start, tmp_path: Path, more: list[str]) -> None:
    file = tmp_path / "samples"
    command = [str(RING), "--bytes", "256", "--count", "7", "--calls", "3", "--client-core", str(CLIENT_CORE)]
    driver = start([*command, *more, str(file)])
    assert driver.line() == "done 7"
    assert (np.fromfile(file, "<u8") > 0).sum() == 7


@pytest.mark.parametrize(
    "more",
    [["--batches"], ["--window", "2", "--server-core", "1"], ["--window", "2", "--output-bytes", "40"]],
)
def test_what_the_ring_cannot_time_is_refused(start: Start, more: list[str]) -> None:
    command = [str(RING), "--bytes", "256", "--count", "7", "--calls", "3", "--client-core", str(CLIENT_CORE)]
    check_refused(start([*command, *more, "/dev/null"]), "usage: ring")


# --- The Python client --------------------------------------------------------------------------------------


def pyclient(name: str, socket: Path) -> list[str]:
    return [sys.executable, str(PYCLIENT), "--path=pyclient", f"--name={name}", f"--socket={socket}"]


@pytest.mark.parametrize("model", MODELS)
def test_the_python_client_gives_the_bits_of_onnx_runtime(
    start: Start, daemon: StartDaemon, tmp_path: Path, model: str
) -> None:
    file = MODELS[model](tmp_path / "model.onnx")
    running = daemon({"model": file}, lane="native")
    driver = start(pyclient("model", running.socket))
    assert driver.ready() == []
    check_outputs(driver, file, tmp_path)
    check_samples(driver, tmp_path, "1048576 50 60000000000", made=50)
    check_samples(driver, tmp_path, "0 1000 0", made=20)
    check_outputs(driver, file, tmp_path)
    assert driver.end() == 0


def test_the_python_client_names_what_is_wrong(start: Start, daemon: StartDaemon, small: Path) -> None:
    running = daemon({"small": small})
    check_refused(start(pyclient("smal", running.socket)), "smal", "small")
    check_refused(start(pyclient("small", running.socket.with_name("none"))), "none")
    driver = start(pyclient("small", running.socket))
    driver.ready()
    assert driver.ask("dance").startswith('error unknown command "dance"')
    assert driver.process.wait() == 1


# --- Waking -------------------------------------------------------------------------------------------------


@pytest.fixture
def semaphores(nothing_left: None) -> Iterator[list[str]]:
    with ExitStack() as stack:
        made = []
        for which in ("there", "back"):
            semaphore = posix_ipc.Semaphore(f"/sidecaml-{os.getpid()}-{which}", posix_ipc.O_CREX, mode=0o600)
            stack.callback(semaphore.close)
            stack.callback(semaphore.unlink)
            made.append(semaphore.name)
        yield made


def wake(mechanism: str, server_core: int, *more: str) -> list[str]:
    cores = [f"--client-core={CLIENT_CORE}", f"--server-core={server_core}"]
    return [str(WAKE), f"--mechanism={mechanism}", *cores, "--count=200", *more]


@pytest.mark.parametrize("server_core", [CLIENT_CORE, SERVER_CORE])
@pytest.mark.parametrize("mechanism", ["posix", "futex", "eventfd"])
def test_a_mechanism_is_timed_as_often_as_asked(
    start: Start, tmp_path: Path, semaphores: list[str], mechanism: str, server_core: int
) -> None:
    file = tmp_path / "samples"
    named = ["--semaphores", *semaphores] if mechanism == "posix" else []
    driver = start(wake(mechanism, server_core, *named, str(file)))
    assert driver.line() == "done 200"
    assert driver.process.wait() == 0
    samples = np.fromfile(file, "<u8")
    assert len(samples) == 200
    assert samples.min() > 0


def test_what_waking_lacks_is_named(start: Start, tmp_path: Path) -> None:
    file = str(tmp_path / "samples")
    check_refused(start(wake("posix", SERVER_CORE, file)), "--semaphores NAME1 NAME2")
    check_refused(
        start(wake("posix", SERVER_CORE, "--semaphores", "/none", "/none", file)), '"/none"', "No such"
    )
    check_refused(start(wake("bell", SERVER_CORE, file)), '"bell"')
    check_refused(start(wake("futex", 1000000, file)), "core 1000000")

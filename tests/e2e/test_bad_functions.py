"""Functions that misbehave: a request pays for it, or one worker; another model of the daemon does not."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import models
import numpy as np
import pytest
from conftest import StartDaemon
from daemon_process import Daemon, is_alive, marked_processes, wait_until

from ipc_server.abi import ErrorCode
from ipc_server.client import Channel, open_model
from ipc_server.errors import SidecamlError

CALLABLES = Path(__file__).resolve().parents[1] / "callables"
PATIENCE_S = 60
LONGEST_RUN_S = 2


class Pair:
    """A daemon that serves a bad function and, beside it, a model that must not notice."""

    def __init__(self, running: Daemon) -> None:
        self.running = running
        self._stack = contextlib.ExitStack()
        self.neighbour = self._stack.enter_context(open_model("neighbour", socket=str(running.socket)))
        self.workers = running.workers()

    def open(self) -> Channel:
        return self._stack.enter_context(open_model("bad", socket=str(self.running.socket)))

    def close(self) -> None:
        """Close the channels; the neighbour's has been served all the time."""
        with self._stack:
            if self.running.process.poll() is None:
                assert ask(self.neighbour, 3) == 3

    def fails(self, channel: Channel, code: ErrorCode) -> str:
        """Make a bad request; what the client hears."""
        with pytest.raises(SidecamlError) as caught:
            ask(channel, 1)
        assert caught.value.code is code, caught.value
        assert ask(self.neighbour, 4) == 4
        return str(caught.value)

    def recovers(self) -> None:
        """Show that a new worker serves the model, and the neighbour is with its old one."""
        assert ask(self.open(), 0) == 0
        assert len(set(self.workers) & set(self.running.workers())) == 1


def ask(channel: Channel, value: float) -> float:
    channel.input("x", channel.claim())[...] = value
    slot = channel.run(PATIENCE_S)
    name = channel.model.signature.outputs[0].name
    return float(channel.output(name, slot).reshape(-1)[0])


@pytest.fixture
def serve(daemon: StartDaemon, tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    pairs: list[Pair] = []

    def start(function: str, extra: str = "", limits: str = "") -> Pair:
        config = tmp_path / "sidecaml.toml"
        config.write_text(
            f'[limits]\n{limits}\n[models.bad]\nengine = "python"\ncallable = "hooks:{function}"\n'
            f'python_path = ["{CALLABLES}"]\n{extra}\n'
        )
        neighbour = models.identity("float32", (1,), tmp_path / "neighbour.onnx")
        pairs.append(Pair(daemon({"neighbour": neighbour}, f"--config={config}")))
        return pairs[-1]

    yield start
    for pair in pairs:
        pair.close()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("raises", "model 'bad': TypeError: not this? way (hooks:raises, line"),
        ("wrong_shape", "model 'bad': hooks:wrong_shape: it returned [2] for the output 'output'"),
        ("wrong_dtype", "model 'bad': hooks:wrong_dtype: it returned float64 for the output 'output'"),
        ("nothing", "model 'bad': hooks:nothing: it returned nothing (None)"),
        ("out_of_bounds", "model 'bad': IndexError: index 1 is out of bounds"),
        ("writes_input", "model 'bad': ValueError: assignment destination is read-only"),
        ("leaves", "model 'bad': SystemExit: that is all"),
    ],
)
def test_a_failing_function_costs_its_request(
    serve: Callable[..., Pair], function: str, expected: str
) -> None:
    pair = serve(function)
    channel = pair.open()
    assert expected in pair.fails(channel, ErrorCode.ENGINE)
    assert ask(channel, 0) == 0
    assert pair.running.workers() == pair.workers


@pytest.mark.parametrize(
    ("function", "expected"),
    [("ends", "exited with code 7"), ("wild_write", "was killed by SIGSEGV")],
)
def test_a_function_that_ends_its_process_costs_one_worker(
    serve: Callable[..., Pair], function: str, expected: str
) -> None:
    pair = serve(function, limits="max_attempts = 1")
    said = pair.fails(pair.open(), ErrorCode.WORKER_CRASHED)
    assert "1 workers died while they ran this request" in said
    pair.running.wait_logged(expected)
    pair.recovers()


@pytest.mark.parametrize("function", ["never_returns", "holds_the_interpreter", "backtracks"])
def test_a_function_that_never_returns_is_ended(serve: Callable[..., Pair], function: str) -> None:
    pair = serve(function, f"longest_run_s = {LONGEST_RUN_S}", limits="max_attempts = 1")
    started = time.monotonic()
    pair.fails(pair.open(), ErrorCode.WORKER_CRASHED)
    assert time.monotonic() - started > LONGEST_RUN_S
    expected = f"was killed, because one request ran for longer than longest_run_s = {LONGEST_RUN_S}"
    pair.running.wait_logged(expected)
    pair.recovers()


def test_a_worker_that_was_idle_for_longer_is_left_alone(serve: Callable[..., Pair]) -> None:
    pair = serve("sleeps", "longest_run_s = 2")
    channel = pair.open()
    time.sleep(2.5)
    for _ in range(25):
        assert ask(channel, 0.1) == pytest.approx(0.1)
    assert pair.running.workers() == pair.workers


def test_prints_go_to_the_log(serve: Callable[..., Pair]) -> None:
    pair = serve("prints")
    assert ask(pair.open(), 5) == 5
    pair.running.wait_logged("printed by a model")
    pair.running.wait_logged("written by a model")


@pytest.mark.parametrize("function", ["forks", "forks_and_raises", "forks_and_stays"])
def test_a_forked_child_never_answers(serve: Callable[..., Pair], function: str) -> None:
    pair = serve(function)
    channel = pair.open()
    children = [int(ask(channel, 0)) for _ in range(3)]
    # A child would have answered 0, or taken the next request.
    assert all(child > 0 for child in children)
    assert pair.running.workers() == pair.workers
    if function == "forks_and_stays":
        assert all(is_alive(child) for child in children)
        bad = parent_of(children[0])
        os.kill(bad, 9)
        assert ask(channel, 0) not in (0, *children)
    wait_until("the children end", lambda: not any(is_alive(child) for child in children))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_thread_that_goes_on_does_not_keep_the_worker(serve: Callable[..., Pair]) -> None:
    pair = serve("starts_a_thread")
    assert ask(pair.open(), 2) == 2
    pair.running.stop()
    assert not [pid for pid in pair.workers if pid in marked_processes()]


def test_a_module_that_cannot_be_imported_costs_its_model(daemon: StartDaemon, tmp_path: Path) -> None:
    config = tmp_path / "sidecaml.toml"
    config.write_text(
        f'[models.bad]\nengine = "python"\ncallable = "broken:f"\npython_path = ["{CALLABLES}"]\n'
    )
    neighbour = models.identity("float32", (1,), tmp_path / "neighbour.onnx")
    running = daemon({"neighbour": neighbour}, f"--config={config}")
    with open_model("neighbour", socket=str(running.socket)) as channel:
        assert ask(channel, 1) == 1
    with pytest.raises(SidecamlError, match="model 'bad' could not be loaded: module 'broken'") as caught:
        open_model("bad", socket=str(running.socket))
    assert caught.value.code is ErrorCode.MODEL_FAILED


def test_the_folder_of_the_configuration_is_where_modules_are(daemon: StartDaemon, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def twice(x):\n    return x * 2\n")
    config = tmp_path / "sidecaml.toml"
    config.write_text(
        '[models.twice]\nengine = "python"\ncallable = "mine:twice"\n'
        'inputs = { x = "float32[1]" }\noutputs = { y = "float32[1]" }\n'
    )
    running = daemon({}, f"--config={config}")
    with open_model("twice", socket=str(running.socket)) as channel:
        assert ask(channel, 4) == np.float32(8)

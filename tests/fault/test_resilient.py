"""The Python client that outlives its daemon."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import models
import numpy as np
import pytest
from conftest import StartDaemon
from daemon_process import PATIENCE_S, REPOSITORY, Daemon, wait_until
from numpy.typing import ArrayLike

from ipc_server import resilient
from ipc_server.abi import ErrorCode
from ipc_server.breaker import Breaker, CircuitOpen
from ipc_server.errors import SidecamlError
from ipc_server.resilient import Settings

CALLABLES = REPOSITORY / "tests" / "callables"
QUICK = Settings(patience_s=5, longest_pause_s=0.02)
PATIENT = Settings(patience_s=60)
X = np.arange(2 * 64, dtype=np.float32).reshape(2, 64)


class Restarted:
    """A daemon that ends and begins, at one socket."""

    def __init__(self, folder: Path, made: Mapping[str, Path], *arguments: str) -> None:
        self._folder, self._models, self._arguments = folder, made, arguments
        self._started = 0
        self.start()

    def start(self) -> None:
        """Start it, and wait until its models are announced."""
        self._daemon = Daemon(self._folder, self._models, *self._arguments, ready=False)
        self._started += 1
        self._daemon.wait_logged("ready: ", self._started)

    def kill(self) -> None:
        """Kill it."""
        self._daemon.kill()

    @property
    def socket(self) -> str:
        """Where it answers."""
        return str(self._daemon.socket)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Restarted]:
    """Serve a model of dynamic size, and one with state."""
    config = tmp_path / "state.toml"
    config.write_text('[models.r]\nstate = { next = "state" }\n')
    made = {"mlp": models.dynamic_mlp(tmp_path / "mlp.onnx"), "r": models.recurrent(tmp_path / "r.onnx")}
    running = Restarted(tmp_path, made, f"--config={config}")
    yield running
    running.kill()


def open_mlp(
    daemon: Restarted,
    settings: Settings,
    breaker: Breaker | None = None,
    fallback: resilient.Fallback | None = None,
) -> resilient.Channel:
    """Open it."""
    return resilient.open_model(
        "mlp", socket=daemon.socket, dims={"N": 4}, settings=settings, breaker=breaker, fallback=fallback
    )


def test_a_restart_is_a_slow_call(served: Restarted) -> None:
    with open_mlp(served, PATIENT) as mlp:
        before = mlp.run({"x": X})["y"].copy()
        answers: list[np.ndarray] = []
        for killed in range(1, 3):
            served.kill()
            thread = threading.Thread(target=lambda: answers.append(mlp.run({"x": X})["y"].copy()))
            thread.start()
            served.start()
            thread.join()
            assert (answers[-1] == before).all()
            assert mlp.reopened == len(answers) == killed
        assert mlp.breaker.state(time.monotonic()) == "closed"


def test_patience_has_an_end_and_then_calls_fail_at_once(served: Restarted) -> None:
    breaker = Breaker(failures=2, cool_down_s=5)
    with open_mlp(served, QUICK, breaker) as mlp:
        mlp.run({"x": X})
        served.kill()
        for _ in range(2):
            with pytest.raises(SidecamlError) as caught:
                mlp.run({"x": X}, timeout=10)
            assert caught.value.code is ErrorCode.CONNECT
        with pytest.raises(CircuitOpen):
            mlp.run({"x": X})
        served.start()
        while breaker.state(time.monotonic()) == "open":
            time.sleep(0.01)
        assert mlp.run({"x": X})["y"].shape == (2, 10)
        assert breaker.state(time.monotonic()) == "closed"


def test_the_fallback_answers_and_is_told_apart(served: Restarted) -> None:
    def fallback(inputs: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        assert list(inputs) == ["x"]
        return {"y": np.zeros((2, 10), np.float32)}

    with open_mlp(served, QUICK, Breaker(failures=1, cool_down_s=0), fallback) as mlp:
        mlp.run({"x": X})
        assert mlp.answered_by == "primary"
        served.kill()
        assert not mlp.run({"x": X})["y"].any()
        assert mlp.answered_by == "fallback"
        served.start()
        assert mlp.run({"x": X})["y"].any()
        assert mlp.answered_by == "primary"


def test_opening_may_wait_for_a_daemon(served: Restarted) -> None:
    served.kill()
    for settings in (QUICK, Settings(patience_s=0.05, wait=True)):
        with pytest.raises(SidecamlError) as caught:
            open_mlp(served, settings)
        assert caught.value.code is ErrorCode.CONNECT
    opened: list[resilient.Channel] = []
    waiting = Settings(patience_s=60, wait=True)
    thread = threading.Thread(target=lambda: opened.append(open_mlp(served, waiting)))
    thread.start()
    served.start()
    thread.join()
    with opened[0] as mlp:
        mlp.run({"x": X})


def test_state_begins_anew_only_where_it_may(served: Restarted) -> None:
    inputs = {"x": np.ones(8, np.float32), "shape": np.array([8])}

    def opened(begin_state_anew: bool) -> resilient.Channel:
        settings = Settings(patience_s=60, begin_state_anew=begin_state_anew)
        return resilient.open_model("r", socket=served.socket, settings=settings)

    with opened(False) as refusing, opened(True) as going_on:
        first = going_on.run(inputs)["y"].copy()
        second = going_on.run(inputs)["y"].copy()
        assert (refusing.run(inputs)["y"] == first).all()
        assert (second != first).any()
        served.kill()
        for _ in range(2):
            with pytest.raises(SidecamlError) as caught:
                refusing.run(inputs)
            assert caught.value.code is ErrorCode.SERVER_GONE
        served.start()
        assert (going_on.run(inputs)["y"] == first).all()
        assert going_on.reopened == 1
        with pytest.raises(SidecamlError):
            refusing.run(inputs)
        refusing.reopen()
        assert (refusing.run(inputs)["y"] == first).all()


def test_what_crashes_workers_is_not_run_again(daemon: StartDaemon, tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text(
        'quarantine = ""\n[limits]\nmax_attempts = 1\nmax_poisoned_per_channel = 1\n'
        f'[models.bad]\nengine = "python"\ncallable = "hooks:ends"\npython_path = ["{CALLABLES}"]\n'
    )
    running = daemon({}, f"--config={config}", standbys=1)

    def code(value: int) -> ErrorCode | None:
        try:
            bad.run({"x": np.full(1, value, np.float32)}, timeout=PATIENCE_S)
        except SidecamlError as error:
            return error.code
        return None

    with resilient.open_model("bad", socket=str(running.socket), settings=PATIENT, fallback=dict) as bad:
        assert code(1) is ErrorCode.WORKER_CRASHED
        wait_until("the channel is given up", lambda: code(0) is ErrorCode.WORKER_CRASHED)
        assert bad.reopened == 0
        assert code(0) is None
        assert bad.reopened == 1
        assert bad.answered_by == "primary"


def test_inputs_that_do_not_fit_are_named(served: Restarted) -> None:
    with open_mlp(served, QUICK) as mlp:
        for inputs, says in (
            ({}, "inputs are missing: 'x'"),
            ({"x": X, "z": X}, "no input 'z'"),
            ({"x": X[:, :3]}, "x"),
            ({"x": X.astype(complex)}, "same_kind"),
        ):
            with pytest.raises(SidecamlError, match=says):
                mlp.run(inputs)
        assert mlp.run({"x": X})["y"].shape == (2, 10)

"""The client of `make chaos` sees every kind of wrong answer: a run without one says something."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from chaos import catalogue, fleet
from chaos.fleet import Fleet, Life
from conftest import StartDaemon
from daemon_process import Daemon, wait_until

STATE = ", ".join(f'next_{name} = "old_{name}"' for name in ("count", "sum", "trail"))


def serve(daemon: StartDaemon, folder: Path, job: str, function: str) -> Daemon:
    settings = folder / "wrong.toml"
    lines = [
        f"[models.{job}]",
        "engine = 'python'",
        f"callable = 'chaos_wrong:{function}'",
        f"python_path = ['{catalogue.CALLABLES}']",
        *([f"state = {{ {STATE} }}"] if job == "trailing" else []),
    ]
    settings.write_text("\n".join(lines), encoding="utf-8")
    return daemon({}, f"--config={settings}")


@pytest.fixture
def live(daemon: StartDaemon, tmp_path: Path) -> object:
    """Run a client against a function until it has seen the tenth request; its life."""
    fleet.environment_check()

    def run(job: str, function: str) -> Life:
        served = serve(daemon, tmp_path, job, function)
        clients = Fleet(served.socket, tmp_path, random.Random(0))
        life = clients.start(job)
        try:
            wait_until("ten answers", lambda: life.counters.answered >= 10 or life.process.poll() is not None)
        finally:
            clients.end()
        return life

    return run


@pytest.mark.parametrize("function", ["one_bit", "another_number", "nothing"])
def test_a_wrong_answer_is_seen(live: object, function: str) -> None:
    life = live("doubled", function)
    assert life.counters.wrong == 1, life.words()
    assert life.words().startswith("request 7: ")
    assert life.process.returncode == 1


@pytest.mark.parametrize("function", ["trailing", "twice"])
def test_state_that_is_lost_or_applied_twice_is_seen(live: object, function: str) -> None:
    life = live("trailing", function)
    assert life.counters.wrong >= 1, life.words()
    assert "requests that the state has seen: expected" in life.words()
    assert life.process.returncode == 1


def test_what_is_right_is_not_wrong_and_a_slow_call_has_a_line(live: object) -> None:
    began_ns = time.monotonic_ns()
    life = live("doubled", "slowly")
    counters = life.counters
    assert (counters.wrong, counters.failed, counters.crashed) == (0, 0, 0), life.words()
    assert counters.submitted == counters.answered
    assert life.process.returncode == 0
    slowest = max(life.slow_calls(), key=lambda call: call.end_ns - call.start_ns)
    assert slowest.end_ns - slowest.start_ns >= 50_000_000
    assert began_ns < slowest.start_ns < slowest.end_ns < time.monotonic_ns()
    assert counters.slowest_ns == slowest.end_ns - slowest.start_ns


def test_a_request_without_an_answer_is_lost(daemon: StartDaemon, tmp_path: Path) -> None:
    served = serve(daemon, tmp_path, "doubled", "slowly")
    clients = Fleet(served.socket, tmp_path, random.Random(0))
    life = clients.start("doubled")
    wait_until("ten answers", lambda: life.counters.answered >= 10)
    served.kill()
    wait_until("the client gives up", lambda: life.process.poll() is not None)
    clients.end()
    assert life.process.returncode == 1
    assert life.counters.failed == 1
    assert life.counters.submitted >= life.counters.answered
    assert "lost: SERVER_GONE" in life.words()

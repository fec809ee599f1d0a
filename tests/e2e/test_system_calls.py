"""With both sides awake, a call makes no system call: counted by strace, from Python and from OCaml.

Awake means that each has a processor: two spinners on one take turns by sched_yield, so each gets its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import models
import pytest
from conftest import StartDaemon
from daemon_process import REPOSITORY, Daemon, environment

CALLS = 10_000
MOST = 100
CLIENT_CORE, WORKER_CORE = sorted(os.sched_getaffinity(0))[:2]
PROBE = REPOSITORY / "_build" / "default" / "ocaml_lib" / "bin" / "probe.exe"
SCRIPT = """
import sys
from ipc_server import client
from ipc_server.abi import Policy
with client.open_model("copy", socket=sys.argv[1], policy=Policy.SPIN) as model:
    for _ in range(int(sys.argv[2])):
        model.run()
"""


@pytest.fixture
def spinning(daemon: StartDaemon, tmp_path: Path) -> Daemon:
    """Start a daemon whose worker never sleeps."""
    model = models.identity("float32", (16,), tmp_path / "copy.onnx")
    config = tmp_path / "sidecaml.toml"
    config.write_text(f'[models.copy]\npath = "{model}"\npolicy = "spin"\n')
    running = daemon({}, f"--config={config}")
    (worker,) = running.workers()
    os.sched_setaffinity(worker, {WORKER_CORE})
    return running


def python_client(running: Daemon, calls: int) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(running.socket), str(calls)]


def ocaml_client(running: Daemon, calls: int) -> list[str]:
    assert PROBE.exists(), f"{PROBE} is missing: run `dune build`"
    return [str(PROBE), "time", "copy", "--policy=spin", f"--count={calls}", f"--socket={running.socket}"]


def count_calls(command: list[str], log: Path) -> Counter[str]:
    """Count the system calls of a program's main thread, by name."""
    pinned = ["taskset", "--cpu-list", str(CLIENT_CORE), "strace", "-qq", "-o", str(log), *command]
    subprocess.run(pinned, check=True, env=environment(), timeout=100)
    return Counter(line.partition("(")[0] for line in log.read_text(errors="replace").splitlines())


@pytest.mark.parametrize("make", [python_client, ocaml_client], ids=["python", "ocaml"])
def test_ten_thousand_calls_make_fewer_than_a_hundred_system_calls(
    spinning: Daemon, tmp_path: Path, make: object
) -> None:
    assert callable(make)
    # A worker that is not run makes its client look whether it is there, every 10 ms.
    for _ in range(5):
        # Start and end make some too: what counts is what ten thousand calls more add.
        few = count_calls(make(spinning, CALLS), tmp_path / "few")
        many = count_calls(make(spinning, 2 * CALLS), tmp_path / "many")
        added = many - few
        print(f"{CALLS} calls added {added.total()} system calls: {dict(added)}")
        assert few.total() > 0
        if added.total() < MOST:
            return
    raise AssertionError(added)


def test_the_same_count_sees_the_system_calls_of_a_blocking_client(spinning: Daemon, tmp_path: Path) -> None:
    script = SCRIPT.replace("Policy.SPIN", "Policy.BLOCK")
    command = [sys.executable, "-c", script, str(spinning.socket), "1000"]
    # It empties its doorbell before each sleep, which strace makes long enough for the answer to come first.
    assert count_calls(command, tmp_path / "log")["preadv2"] >= 500

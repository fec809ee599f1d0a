"""An OCaml program that outlives its daemon: `ocaml_lib/examples/resilient.ml`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_process import REPOSITORY, Daemon, environment

MAKE_MODEL = REPOSITORY / "ocaml_lib" / "examples" / "digits.py"
BUILT = REPOSITORY / "_build" / "default" / "ocaml_lib" / "examples" / "resilient.exe"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run it, before there is a daemon; it asks until it is stopped."""
    assert BUILT.exists(), f"{BUILT} is missing: run `dune build`"
    subprocess.run([sys.executable, str(MAKE_MODEL), str(tmp_path / "digits.onnx")], check=True)
    env = environment(SIDECAML_SOCKET=str(tmp_path / "sidecaml.sock"), VIRTUAL_ENV=sys.prefix)
    command = [BUILT, "1000000", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=tmp_path) as running:
        yield running
        running.kill()


def wait_for(program: subprocess.Popen[str], text: str) -> str:
    """Read on until a line says so; every call must have been answered."""
    assert program.stdout
    for line in program.stdout:
        assert ", from " in line, line
        if text in line:
            return line
    raise AssertionError(f"it ended before it said {text!r}")


def score(line: str) -> float:
    """Give the first score for an image of ones."""
    call, answer = line.split(",", maxsplit=1)[0].split(": ")
    return float(answer) / float(call)


def test_every_call_is_answered_whoever_does_it(program: subprocess.Popen[str], tmp_path: Path) -> None:
    served = {"digits": tmp_path / "digits.onnx"}
    daemon = Daemon(tmp_path, served)
    try:
        first = wait_for(program, "from the daemon; breaker closed, reopened 0")
        daemon.kill()
        in_process = wait_for(program, "from this process; breaker open")
        assert score(in_process) == pytest.approx(score(first), rel=1e-4)
        daemon = Daemon(tmp_path, served)
        again = wait_for(program, "from the daemon; breaker closed, reopened 1")
        assert score(again) == pytest.approx(score(first), rel=1e-4)
    finally:
        daemon.kill()

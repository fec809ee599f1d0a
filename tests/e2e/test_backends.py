"""One OCaml program on the daemon, in process and on a mock: `ocaml_lib/examples/backends.ml`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import StartDaemon
from daemon_process import REPOSITORY, environment

MAKE_MODEL = REPOSITORY / "ocaml_lib" / "examples" / "digits.py"
BUILT = REPOSITORY / "_build" / "default" / "ocaml_lib" / "examples" / "backends.exe"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, str(MAKE_MODEL), str(tmp_path / "digits.onnx")], check=True)
    (tmp_path / "home").mkdir()
    return tmp_path


def run(folder: Path, backend: str, **changes: str) -> subprocess.CompletedProcess[str]:
    assert BUILT.exists(), f"{BUILT} is missing: run `dune build`"
    env = environment(HOME=str(folder / "home"), VIRTUAL_ENV=sys.prefix, **changes)
    # The library itself must see to it.
    del env["ORT_DISABLE_TELEMETRY"]
    command = [BUILT, backend]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=folder)


def scores(ran: subprocess.CompletedProcess[str]) -> list[float]:
    assert ran.returncode == 0, ran.stderr
    return [float.fromhex(number) for number in ran.stdout.split()]


def test_daemon_and_process_give_the_bits_of_onnxruntime(daemon: StartDaemon, folder: Path) -> None:
    model = folder / "digits.onnx"
    running = daemon({"digits": model})
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"image": np.full((1, 784), 0.5, np.float32)})
    assert scores(run(folder, "daemon", SIDECAML_SOCKET=str(running.socket))) == expected[0].tolist()
    assert scores(run(folder, "in-process")) == expected[0].tolist()


def test_a_mock_answers_without_any_of_them(folder: Path) -> None:
    ran = run(folder, "mock", SIDECAML_SOCKET="/nonexistent", SIDECAML_ONNXRUNTIME="/nonexistent")
    assert scores(ran) == [0.5] * 10


def test_nothing_is_written_under_home(folder: Path) -> None:
    assert scores(run(folder, "in-process"))
    assert list((folder / "home").iterdir()) == []


def test_no_library_is_explained(folder: Path) -> None:
    ran = run(folder, "in-process", SIDECAML_ONNXRUNTIME="/nonexistent/libonnxruntime.so")
    assert ran.returncode == 1
    assert ran.stderr.startswith("MODEL_FAILED: model 'digits.onnx' could not be loaded: ")
    assert "/nonexistent/libonnxruntime.so" in ran.stderr

"""Nobody phones home: no file under the home directory and no connection, by the system calls themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import models
import pytest
from daemon_process import MARK, environment, is_alive, marked_processes, wait_until

# ONNX Runtime keeps silent where variables such as CI tell of a build machine: they are not let through.
KEPT = {"HOME", "PATH", "PYTHONPATH", "ORT_DISABLE_TELEMETRY", MARK}
TRACE = ["strace", "-f", "-qq", "-s", "256", "-e", "trace=%file,%network", "-o"]
LOAD = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
CALL = """
import sys
from ipc_server import client
with client.open_model("small", socket=sys.argv[1]) as model:
    model.run()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


def at_home(home: Path) -> dict[str, str]:
    """Build the environment of somebody's own machine."""
    return {name: value for name, value in environment(HOME=str(home)).items() if name in KEPT}


def suspicious_calls(log: Path, home: Path) -> list[str]:
    """Find the system calls that name something inside the home directory, or reach for a network."""
    suspicious = re.compile(rf"{re.escape(str(home))}/|AF_INET")
    return [line for line in log.read_text(errors="replace").splitlines() if suspicious.search(line)]


@pytest.mark.parametrize(
    ("lane", "library"), [("native", "libonnxruntime.so"), ("python", "onnxruntime_pybind11")]
)
def test_daemon_worker_and_client_touch_no_home_and_no_network(
    tmp_path: Path, home: Path, lane: str, library: str
) -> None:
    served, called, socket = tmp_path / "served", tmp_path / "called", tmp_path / "s"
    model = models.small_mlp(tmp_path / "small.onnx")
    config = tmp_path / "sidecaml.toml"
    # The worker is told of the folder, which looks like a use of it.
    config.write_text(f'quarantine = ""\n[models.small]\npath = "{model}"\nlane = "{lane}"\n')
    serve = [sys.executable, "-m", "ipc_server.cli", "serve", f"--config={config}", f"--socket={socket}"]
    traced = at_home(home)
    with (tmp_path / "log").open("wb") as output:
        tracer = subprocess.Popen([*TRACE, str(served), *serve], env=traced, stdout=output, stderr=output)
    try:
        wait_until("the socket", socket.exists)
        subprocess.run([*TRACE, str(called), sys.executable, "-c", CALL, str(socket)], check=True, env=traced)
    finally:
        subprocess.run(["pkill", "-TERM", "-P", str(tracer.pid)], check=True)
        tracer.wait(120)
    loaded = re.findall(r"libonnxruntime\.so|onnxruntime_pybind11", served.read_text())
    # The one library and no other: each lane has its own copy.
    assert set(loaded) == {library}, set(loaded)
    assert "AF_UNIX" in called.read_text()
    assert suspicious_calls(served, home) == []
    assert suspicious_calls(called, home) == []
    assert list(home.iterdir()) == []


def test_the_same_look_sees_onnxruntime_write_when_telemetry_is_on(tmp_path: Path, home: Path) -> None:
    log = tmp_path / "calls"
    model = models.small_mlp(tmp_path / "small.onnx")
    talkative = {k: v for k, v in at_home(home).items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([*TRACE, str(log), sys.executable, "-c", LOAD, str(model)], check=True, env=talkative)
    assert suspicious_calls(log, home) != []


def test_the_tests_themselves_run_with_telemetry_off() -> None:
    command = [sys.executable, "-c", "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "1\n"
    assert not any(is_alive(pid) for pid in marked_processes())

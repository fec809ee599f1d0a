"""The command `sidecaml` as one types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import models
import pytest
from channels import double, open_channel
from conftest import StartDaemon
from daemon_process import RawClient, environment, wait_until

from ipc_server import __version__, _core
from ipc_server.abi import ABI_VERSION


def sidecaml(
    *arguments: str | Path, env: dict[str, str] | None = None, patience_s: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ipc_server.cli", *map(str, arguments)],
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_version(argument: str) -> None:
    done = sidecaml(argument)
    assert (done.returncode, done.stdout) == (0, f"sidecaml {__version__}, ABI {ABI_VERSION}\n")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["serve", "--fly"], ["inspect", "one"]])
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    done = sidecaml(*arguments)
    assert done.returncode == 2
    assert "usage: sidecaml" in done.stderr


def test_check_config_shows_values_and_sources(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[models.m]\npath = "m.onnx"\n', encoding="utf-8")
    done = sidecaml(
        "check-config", "--config", file, "--socket", "/tmp/x.sock", env={"SIDECAML_MAX_SLOTS": "5"}
    )
    assert done.returncode == 0, done.stderr
    settings = {line.split(" = ")[0]: line for line in done.stdout.splitlines()}
    assert settings["socket"].endswith("# command line")
    assert settings["limits.max_slots"].startswith("limits.max_slots = 5 ")
    assert settings["limits.max_slots"].endswith("# environment SIDECAML_MAX_SLOTS")
    assert settings["models.m.path"].startswith(f"models.m.path = {tmp_path}/m.onnx")
    assert settings["models.m.path"].endswith(f"# file {file}")
    assert settings["models.m.max_slots"].startswith("models.m.max_slots = 5 ")
    assert settings["models.m.max_slots"].endswith("# limits.max_slots")
    assert settings["log_level"].endswith("# default")


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_a_bad_configuration_is_code_78_and_one_line(tmp_path: Path, command: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[models.m]\npth = 'm.onnx'\n", encoding="utf-8")
    done = sidecaml(command, "--config", file)
    assert done.returncode == 78
    assert done.stderr == f"sidecaml: file {file}: [models.m]: unknown key 'pth': did you mean 'path'?\n"


def test_a_socket_path_that_is_too_long_is_code_78() -> None:
    done = sidecaml("serve", "--model", "m=/m.onnx", "--socket", "/" + "x" * 200)
    assert done.returncode == 78
    assert "at most 107 bytes" in done.stderr


def test_models_are_listed(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"mlp": models.dynamic_mlp(tmp_path / "m.onnx"), "gone": tmp_path / "gone.onnx"})
    done = sidecaml("models", env={"SIDECAML_SOCKET": str(running.socket)})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "gone  failed  onnx"
    assert "gone.onnx" in lines[1]
    assert lines[2:] == [
        "mlp  ready  onnx  up to 64 slots",
        "  in   x float32[N,64]",
        "  out  y float32[N,10]",
    ]


@pytest.mark.parametrize("command", ["models", "inspect"])
def test_no_daemon_is_code_1_and_says_what_to_do(tmp_path: Path, command: str) -> None:
    done = sidecaml(command, "--socket", tmp_path / "none.sock")
    assert done.returncode == 1
    assert f"no sidecaml daemon answers at {tmp_path}/none.sock" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_lists_channels_and_decodes_one(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")})
    assert sidecaml("inspect", "--socket", running.socket).stdout == "no channel is open\n"
    with open_channel(running.socket, "scalar", 2) as channel, RawClient(running.socket) as client:
        assert double(channel, 4.0) == 8.0
        number = client.ok("channels")["channels"][0]["channel"]
        listed = sidecaml("inspect", "--socket", running.socket).stdout
        assert listed.startswith(f"channel {number}  model scalar  2 slots  ")
        shown = sidecaml("inspect", "--socket", running.socket, str(number))
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith(
            f"channel  {number}, model scalar\nworker   pid {running.workers()[0]},"
        )
        assert " 1 channel, 1 served" in shown.stdout
        assert "\ntensors  1 input, 1 output\n" in shown.stdout
        assert "slots    2" in shown.stdout

        def is_counted() -> bool:
            """Whether the worker and this thread are: for a while after a call."""
            assert double(channel, 4.0) == 8.0
            both = sidecaml("inspect", "--socket", running.socket, str(number))
            return f"machine-wide at work: 2 on {_core.usable_cores()} cores" in both.stdout

        wait_until("who is at work is told", is_counted)
    missing = sidecaml("inspect", "--socket", running.socket, "99")
    assert (missing.returncode, "no channel 99 is open" in missing.stderr) == (1, True)


@pytest.mark.parametrize("damage", ["truncate", "scribble", "enlarge"])
def test_inspect_survives_a_client_that_ruins_its_segment(
    daemon: StartDaemon, tmp_path: Path, damage: str
) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")})
    with RawClient(running.socket) as client:
        message = client.open("scalar")
        segment = message.fds[0]
        if damage == "truncate":
            os.ftruncate(segment, 100)
        elif damage == "enlarge":
            os.ftruncate(segment, 2**62)
        else:
            os.pwrite(segment, b"\xff" * 4096, 0)
        done = sidecaml("inspect", "--socket", running.socket, str(message.body["channel"]))
        assert done.returncode == 1
        assert done.stderr.startswith("sidecaml: ")
        assert "Traceback" not in done.stderr
        message.close_fds()


def test_strict_ends_when_a_model_fails(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon(
        {"scalar": models.scalar(tmp_path / "s.onnx"), "missing": tmp_path / "m.onnx"},
        "--strict",
        ready=False,
    )
    assert running.process.wait(120) == 1
    assert "--strict: ending, because a model failed" in running.log()
    assert not running.socket.exists()


def test_without_strict_a_daemon_without_a_single_loaded_model_still_answers(
    daemon: StartDaemon, tmp_path: Path
) -> None:
    running = daemon({"missing": tmp_path / "m.onnx"})
    with RawClient(running.socket) as client:
        assert client.ok("describe")["models"][0]["state"] == "failed"
    assert running.stop() == 0


@pytest.mark.parametrize("journal", [True, False])
def test_the_log_has_priorities_and_no_times_where_it_is_the_journal(tmp_path: Path, journal: bool) -> None:
    serve = ["serve", "--strict", f"--socket={tmp_path}/s.sock", f"--model=missing={tmp_path}/m.onnx"]
    with (tmp_path / "log").open("w+b") as log:
        place = os.fstat(log.fileno())
        # A terminal of a graphical session inherits the variable, and is not the journal.
        stream = f"{place.st_dev}:{place.st_ino}" if journal else "8:1"
        subprocess.run(
            [sys.executable, "-m", "ipc_server.cli", *serve],
            env=environment(JOURNAL_STREAM=stream),
            stdin=subprocess.DEVNULL,
            stderr=log,
            timeout=60,
            check=False,
        )
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("<6>sidecaml ") is journal
    assert any(line.startswith("<3>model missing: ") for line in lines) is journal
    assert any(" ERROR " in line and "model missing: " in line for line in lines) is not journal


def test_output_that_cannot_be_written_is_code_1_and_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ipc_server.cli", "version"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "sidecaml: standard output cannot be written: No space left on device\n"


def test_a_number_that_no_channel_can_have_is_one_line(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")})
    done = sidecaml("inspect", "--socket", running.socket, str(2**64))
    assert done.returncode == 1
    assert done.stderr.startswith("sidecaml: a control message cannot carry a value: ")
    assert done.stderr.count("\n") == 1


def test_a_log_line_stays_one_line(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")})
    with RawClient(running.socket) as client:
        client.refused("open", model="a\nb\x1b[31m", slots=1)
    running.wait_logged("UNKNOWN_MODEL")
    (line,) = [line for line in running.log().splitlines() if "UNKNOWN_MODEL" in line]
    assert "a\\nb" in line
    assert line.isprintable()


def test_the_supervisor_holds_no_inference_library(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")})
    with open_channel(running.socket, "scalar") as channel:
        assert double(channel, 1.0) == 2.0
        mapped = Path(f"/proc/{running.process.pid}/maps").read_text(encoding="utf-8")
        worker_maps = Path(f"/proc/{running.workers()[0]}/maps").read_text(encoding="utf-8")
    assert "onnxruntime" in worker_maps
    assert "sidecaml-" in worker_maps
    assert not [word for word in ("onnxruntime", "numpy", "/dev/shm") if word in mapped]


def test_an_interrupt_from_the_terminal_is_a_clean_end(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "s.onnx")})
    # A terminal sends it to the workers too.
    for pid in [*running.workers(), running.process.pid]:
        os.kill(pid, signal.SIGINT)
    assert running.process.wait(30) == 0
    assert "Traceback" not in running.log()

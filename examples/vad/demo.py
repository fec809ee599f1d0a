"""The demo: an OCaml program streams speech through a voice detector that lives in the daemon.

Starts the daemon with the Silero voice detector (a PyTorch model, exported to ONNX by its authors), whose
state the daemon carries from frame to frame; runs `vad.exe` on the spoken WAV files of Debian's alsa-utils,
runs the same frames through plain onnxruntime here, which carries the state itself, and compares every
probability bit for bit. The state is the worker's own and cannot be looked at: a bit of it that differed
would differ in the probabilities that follow. One different bit, or no speech, makes it fail.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is loaded, here or in a child

import numpy as np
import onnxruntime
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
VAD = ROOT / "_build" / "default" / "examples" / "vad" / "vad.exe"
SOUNDS = Path("/usr/share/sounds/alsa")
LISTEN_TIMEOUT_S = 60.0
RATE = 16_000
# What vad.exe writes for each frame: input and probability.
FRAME = np.dtype([("first", "<i4"), ("input", "<f4", 576), ("probability", "<f4")])
CONFIGURATION = """[models.vad]
path = '{model}'
state = {{ stateN = "state" }}
"""


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


def start_daemon(configuration: Path, socket: Path) -> subprocess.Popen[bytes]:
    """Start a daemon of our own on a socket of our own; return once it listens."""
    command = ["serve", "--log-level", "warning", "--config", str(configuration), "--socket", str(socket)]
    daemon = subprocess.Popen([sys.executable, "-m", "ipc_server.cli", *command])
    deadline = time.monotonic() + LISTEN_TIMEOUT_S
    while not socket.exists():
        if daemon.poll() is not None:
            raise DemoError(f"the daemon ended with status {daemon.returncode}: its last words are above")
        if time.monotonic() > deadline:
            daemon.kill()
            raise DemoError(f"the daemon did not listen within {LISTEN_TIMEOUT_S:.0f} s")
        time.sleep(0.01)
    return daemon


def find_model() -> Path:
    """Find the model file of the silero-vad package, without importing it: that would import PyTorch."""
    spec = importlib.util.find_spec("silero_vad")
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise DemoError("the package silero-vad is not installed: run `make demo`, which installs it")
    return Path(places[0]) / "data" / "silero_vad_op18_ifless.onnx"


def find_sounds() -> list[Path]:
    """Find the spoken WAV files, and the one of noise."""
    sounds = sorted(SOUNDS.glob("*.wav"))
    if not sounds:
        raise DemoError(f"no WAV files in {SOUNDS}: install Debian's alsa-utils, as `make demo` does")
    return sounds


def compare(model: Path, record: Path) -> list[int]:
    """Run the recorded inputs through plain onnxruntime, its own state carried; each run takes so many ns."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    state: NDArray[np.float32] = np.zeros((2, 1, 128), np.float32)
    took_ns = []
    for index, frame in enumerate(np.fromfile(record, FRAME)):
        if frame["first"]:
            state = np.zeros((2, 1, 128), np.float32)
        feeds = {"input": frame["input"].reshape(1, 576), "state": state, "sr": np.array(RATE, np.int64)}
        start = time.monotonic_ns()
        probability, state = session.run(["output", "stateN"], feeds)
        took_ns.append(time.monotonic_ns() - start)
        check_equal(f"frame {index}: the probability", frame["probability"], probability)
    return took_ns


def check_equal(what: str, ours: Any, theirs: Any) -> None:
    """Raise DemoError when one bit differs."""
    if ours.tobytes() != theirs.tobytes():
        raise DemoError(f"{what} differs from plain onnxruntime's")


def stream(socket: Path, record: Path, sounds: list[Path]) -> str:
    """Run the OCaml program, show what it heard, and return its line on latency."""
    command = [str(path) for path in (VAD, "--socket", socket, "--record", record, *sounds)]
    vad = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    *shown, latency = vad.stdout.splitlines() or [""]
    print(*shown, sep="\n", flush=True)
    if vad.returncode != 0:
        raise DemoError(f"vad.exe ended with status {vad.returncode}: its last words are above")
    return latency


def run(folder: Path) -> str:
    """Run the whole demo in `folder`; return its last line."""
    model, sounds = find_model(), find_sounds()
    socket, record = folder / "sidecaml.sock", folder / "frames"
    configuration = folder / "sidecaml.toml"
    configuration.write_text(CONFIGURATION.format(model=model), encoding="utf-8")
    print(f"daemon   sidecaml serve, {model}, its state carried from stateN to state")
    print(f"program  vad.exe, {len(sounds)} sounds of {SOUNDS}", flush=True)
    daemon = start_daemon(configuration, socket)
    try:
        latency = stream(socket, record, sounds)
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)
    took_ns = compare(model, record)
    print(
        f"compare  the same frames by onnxruntime alone, from Python: p50 {np.median(took_ns) / 1e3:.0f} us"
    )
    return f"demo: ok  {len(took_ns)} frames  {latency}  bit-equal to onnxruntime"


def main() -> int:
    """Run the demo; the last line of output says how it went."""
    try:
        with tempfile.TemporaryDirectory(prefix="sidecaml-demo-") as folder:
            print(run(Path(folder)))
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        print(f"demo: failed  {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

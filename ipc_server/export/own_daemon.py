"""A daemon started for one purpose, on a socket of its own, and ended with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipc_server.export import ExportError

LISTEN_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0


@contextmanager
def own_daemon(*arguments: str) -> Iterator[str]:
    """Run `sidecaml serve` with these arguments; gives the socket."""
    with tempfile.TemporaryDirectory(prefix="sidecaml-") as folder:
        socket, log = Path(folder, "sidecaml.sock"), Path(folder, "log")
        command = ["serve", "--log-level", "warning", "--socket", str(socket), *arguments]
        with log.open("wb") as written:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "ipc_server.cli", *command],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )
        try:
            _wait(daemon, socket, log)
            yield str(socket)
        finally:
            daemon.terminate()
            try:
                daemon.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait(daemon: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    end = time.monotonic() + LISTEN_TIMEOUT_S
    while not socket.exists():
        if daemon.poll() is not None:
            words = log.read_text(encoding="utf-8", errors="replace").strip()
            raise ExportError(f"the daemon ended with {daemon.returncode}: {words}")
        if time.monotonic() > end:
            raise ExportError(f"the daemon did not listen within {LISTEN_TIMEOUT_S:g} s")
        time.sleep(0.01)

"""A daemon started for one purpose, on a socket of its own, and ended with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ipc_server.export import ExportError
from ipc_server.export.held_signals import held_signals

LISTEN_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0


@contextmanager
def own_daemon(*arguments: str) -> Iterator[str]:
    """Run `sidecaml serve` with these arguments; gives the socket."""
    with ExitStack() as undo:
        with held_signals():
            folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="sidecaml-"))
            socket, log = Path(folder, "sidecaml.sock"), Path(folder, "log")
            daemon = _start(log, "--socket", str(socket), *arguments)
            undo.callback(_end, daemon)
        _wait(daemon, socket, log)
        yield str(socket)


def _start(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ipc_server.cli", "serve", "--log-level", "warning", *arguments]
    with log.open("wb") as written:
        return subprocess.Popen(
            command,
            # For so short a life a worker that waits for another's death is not worth its loading.
            env={**os.environ, "SIDECAML_STANDBYS": "0"},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )


def _end(daemon: subprocess.Popen[bytes]) -> None:
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

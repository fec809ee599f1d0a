"""A program of the benchmark: pinned, spoken with line by line, its last words kept for error texts."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.paths import ROOT

END_S = 10.0
_LAST_WORDS = 2000
_CHUNK = 65536


def environment() -> dict[str, str]:
    """Build the environment of every program: one thread each, no telemetry, our Python."""
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    ours = {"ORT_DISABLE_TELEMETRY": "1", "VIRTUAL_ENV": sys.prefix, "SIDECAML_PYTHON": sys.executable}
    folders = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **one_thread, **ours, "PYTHONPATH": os.pathsep.join(filter(None, folders))}


class LineProcess:
    """A running program that is told one line at a time and answers with lines."""

    def __init__(
        self,
        what: str,
        command: Sequence[str],
        *,
        core: int | None = None,
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, on one core if one is given; what it writes to standard error goes to `log`."""
        self.what = what
        self._log = log
        self._pending = b""
        self._ended_well = False
        pinned = ["taskset", "--cpu-list", str(core), *command] if core is not None else list(command)
        with log.open("wb") as errors:
            try:
                self._process = subprocess.Popen(
                    pinned,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**environment(), **(env or {})},
                    # A group of its own, so that its children can be ended with it.
                    start_new_session=True,
                )
            except OSError as error:
                raise BenchError(f"{what}: {pinned[0]} cannot be started: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self.failure(f"has ended before it was told {line!r}") from None

    def line(self, patience_s: float, awaited: str) -> str:
        """Wait for its next line. Raises BenchError when none comes, naming what was awaited."""
        end = time.monotonic() + patience_s
        while b"\n" not in self._pending:
            chunk = self._read(end - time.monotonic())
            if chunk is None:
                raise self.failure(f"no {awaited} within {patience_s:g} s")
            if not chunk:
                raise self.failure(f"{self._ending()} before {awaited}")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace").strip()

    def end(self, patience_s: float = END_S) -> None:
        """Close its standard input and wait for it. Raises BenchError when it fails or does not end."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.failure(f"did not end within {patience_s:g} s after its input was closed") from None
        self._process.stdout.close()
        if code:
            raise self.failure(self._ending())
        self._ended_well = True

    def kill(self) -> None:
        """End it and its children at once; allowed at any time."""
        assert self._process.stdin and self._process.stdout
        if not self._ended_well:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()

    def failure(self, problem: str) -> BenchError:
        """Make the error of a problem, with the program's last words."""
        words = self._log.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:].strip()
        return BenchError(f"{self.what}: {problem}" + (f"; its last words:\n{words}" if words else ""))

    def _read(self, patience_s: float) -> bytes | None:
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(max(patience_s, 0)):
                return None
        return os.read(self._process.stdout.fileno(), _CHUNK)

    def _ending(self) -> str:
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code >= 0:
            return f"ended with code {code}"
        return f"was killed by {signal.Signals(-code).name}"

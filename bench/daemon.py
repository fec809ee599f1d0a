"""`sidecaml serve` with one model in several lanes and policies."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from bench.driver import Served
from bench.engine_forms import FORMS
from bench.errors import BenchError
from bench.freezing import freeze, pin, thaw
from bench.models import STATE
from bench.process import environment

READY_S = 120.0
STOP_S = 30.0
_LAST_WORDS = 2000
_PAUSE_S = 0.01
_READY = re.compile(r"model (\S+): ready in .*?, worker (\d+)")


class Daemon:
    """A running daemon; `workers` gives the process of each model by its served name."""

    def __init__(
        self, model: str, file: Path, variants: Collection[str], folder: Path, core: int | None
    ) -> None:
        """Serve the file as MODEL--VARIANT for each variant LANE-POLICY; wait until all are ready.

        Its workers are pinned to the core, if one is given.
        """
        self._socket = folder / "bench.sock"
        self._log = folder / "daemon.log"
        settings = folder / "daemon.toml"
        settings.write_text(configuration(model, file, variants, self._socket), encoding="utf-8")
        command = [sys.executable, "-m", "ipc_server.cli", "serve", "--strict", f"--config={settings}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment()
            )
        try:
            self.workers = self._wait_ready({f"{model}--{variant}" for variant in variants})
            if core is not None:
                for pid in self.workers.values():
                    pin(pid, core)
        except BaseException:
            self.kill()
            raise

    def served(self, name: str) -> Served:
        """Give what a client needs to reach one of its models."""
        return Served(name, self._socket)

    def stop(self) -> None:
        """Ask it to end, and wait; its workers must not be frozen."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchError(f"the daemon did not end within {STOP_S:g} s: {self._words()}") from None

    def kill(self) -> None:
        """End it at once; its workers end with it."""
        self._process.kill()
        self._process.wait()

    def _wait_ready(self, names: set[str]) -> dict[str, int]:
        end = time.monotonic() + READY_S
        while not names <= (workers := workers_of(self._words())).keys():
            if self._process.poll() is not None:
                raise BenchError(
                    f"the daemon ended with code {self._process.returncode}: {self._words()[-_LAST_WORDS:]}"
                )
            if time.monotonic() > end:
                raise BenchError(f"the daemon was not ready within {READY_S:g} s: {self._words()}")
            time.sleep(_PAUSE_S)
        return workers

    def _words(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def resting(
    model: str, file: Path, variants: Collection[str], folder: Path, core: int | None
) -> Iterator[Daemon]:
    """Serve with all workers stopped, for programs that measure one variant at a time."""
    daemon = Daemon(model, file, variants, folder, core)
    try:
        freeze(daemon.workers.values())
        yield daemon
        thaw(daemon.workers.values())
        daemon.stop()
    except BaseException:
        daemon.kill()
        raise


def configuration(model: str, file: Path, variants: Iterable[str], socket: Path) -> str:
    """Write the daemon's settings: one model a variant, LANE-POLICY, LANE-POLICY-carried or FORM-POLICY."""
    tables = [f'socket = "{socket}"\n']
    for variant in variants:
        lane, policy, *carried = variant.split("-")
        pairs = STATE[model].items() if carried else ()
        state = ", ".join(f'{output} = "{taken}"' for output, taken in pairs)
        tables.append(
            f'[models."{model}--{variant}"]\npolicy = "{policy}"\n'
            + FORMS.get(lane, f'path = "{file}"\nlane = "{lane}"\n')
            + (f"state = {{ {state} }}\n" if carried else "")
        )
    return "\n".join(tables)


def workers_of(log: str) -> dict[str, int]:
    """Find the workers in the daemon's log: served name to process id."""
    return {name: int(pid) for name, pid in _READY.findall(log)}


def _environment() -> dict[str, str]:
    # Settings of somebody's own daemon must not reach this one.
    kept = ("SIDECAML_ONNXRUNTIME", "SIDECAML_PYTHON")
    return {
        name: text for name, text in environment().items() if not name.startswith("SIDECAML_") or name in kept
    }

"""`sidecaml serve` with one model in several lanes and policies."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from bench.driver import Served
from bench.engine_forms import FORMS
from bench.errors import BenchError
from bench.freezing import freeze, pin, thaw
from bench.models import STATE
from bench.process import environment
from ipc_server.config_values import LONGEST_WAIT_S

READY_S = 120.0
STOP_S = 30.0
_LAST_WORDS = 2000
_PAUSE_S = 0.01
_WARM = re.compile(r"model \S+: standby \d+ is warm")
_READY = re.compile(r"model (\S+): ready in .*?, worker (\d+)")


class Daemon:
    """A running daemon; `workers` gives the process of each model by its served name."""

    def __init__(  # noqa: PLR0913 (what there is one of by keyword)
        self,
        model: str,
        file: Path,
        variants: Collection[str],
        folder: Path,
        core: int | None,
        *,
        name: str = "bench",
        standbys: int = 0,
    ) -> None:
        """Serve the file as MODEL--VARIANT for each variant LANE-POLICY; wait until all are ready.

        Its files in the folder have a `name`, if there are several daemons.

        Its workers are pinned to the core, if one is given. Standbys, of which there are none where calls
        are measured, because they take a core while they load, are waited for.
        """
        self._socket = folder / f"{name}.sock"
        self._log = folder / f"{name}.log"
        settings = folder / f"{name}.toml"
        settings.write_text(configuration(model, file, variants, self._socket), encoding="utf-8")
        command = [sys.executable, "-m", "ipc_server.cli", "serve", "--strict", f"--config={settings}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(standbys)
            )
        try:
            self.workers = self._wait_ready({f"{model}--{variant}" for variant in variants}, standbys)
            if core is not None:
                for pid in self.workers.values():
                    pin(pid, core)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self._process.pid

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

    def _wait_ready(self, names: set[str], standbys: int) -> dict[str, int]:
        end = time.monotonic() + READY_S
        while (
            not names <= (workers := workers_of(self._words())).keys()
            or len(_WARM.findall(self._words())) < len(names) * standbys
        ):
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
    # Those that rest are stopped, for as long as the others take.
    tables = [f'socket = "{socket}"\n\n[limits]\nworker_timeout_s = {LONGEST_WAIT_S:g}\n']
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


def wait_for(
    process: subprocess.Popen[bytes], log: Path, what: str, ready: Callable[[], bool], patience_s: float
) -> None:
    """Wait until a server is ready. Raises BenchError with its last words when it ends, or takes too long."""
    end = time.monotonic() + patience_s
    while not ready():
        words = log.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:]
        if process.poll() is not None:
            raise BenchError(f"{what} ended with code {process.returncode}: {words}")
        if time.monotonic() > end:
            raise BenchError(f"{what} was not ready within {patience_s:g} s: {words}")
        time.sleep(_PAUSE_S)


def clean_environment(standbys: int = 0) -> dict[str, str]:
    """Build a daemon's environment: without settings of somebody's own.

    Nor with standbys where calls are measured: one that loads would be measured, too.
    """
    kept = ("SIDECAML_ONNXRUNTIME", "SIDECAML_PYTHON")
    inherited = {
        name: text for name, text in environment().items() if not name.startswith("SIDECAML_") or name in kept
    }
    return {**inherited, "SIDECAML_STANDBYS": str(standbys)}

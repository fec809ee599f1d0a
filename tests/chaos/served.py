"""The daemon under attack, and who works for it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daemon_process import Daemon, RawClient, is_alive, open_descriptors

from chaos import catalogue

# How soon the supervisor must notice a worker that is stopped.
WORKER_TIMEOUT_S = 0.5
LIMITS = {
    "worker_timeout_s": WORKER_TIMEOUT_S,
    # Who is killed is chosen blindly: the same request may be hit again and again, and is no poison for that.
    "max_attempts": 7,
}
SETTLE_S = 60.0
# Between two looks that must see the same.
QUIET_S = 1.0
# How long what was let go of may still be seen.
LEFT_S = 15.0
_WARM = re.compile(r"model (\S+): standby (\d+) is warm")
# Who begins to serve.
_BEGAN = re.compile(r"model (\S+): (?:worker (\d+) took over|ready in .*?, worker (\d+),)")


@dataclass(frozen=True)
class Worker:
    """A worker process as the supervisor sees it; `model` is unknown while it loads."""

    pid: int
    role: str  # active, standby or loading
    model: str = ""


class Served:
    """A daemon with the four models, observed from outside."""

    def __init__(self, folder: Path, standbys: int) -> None:
        """Start it and wait until every model is served."""
        settings = folder / "sidecaml.toml"
        settings.write_text(catalogue.configuration(folder, LIMITS, standbys), encoding="utf-8")
        self.standbys = standbys
        self._warm: dict[int, str] = {}
        self._half_a_line = ""
        # Of each model: the worker that was seen last to begin, and when it was seen.
        self.began: dict[str, tuple[int, int]] = {}
        with contextlib.ExitStack() as undo:
            self.daemon = Daemon(folder, {}, f"--config={settings}", ready=False)
            undo.callback(self.daemon.kill)
            self.daemon.wait_ready()
            self._client = RawClient(self.daemon.socket)
            undo.callback(self._client.close)
            self._log = self.daemon.log_path.open(encoding="utf-8", errors="replace")
            undo.pop_all()

    @property
    def socket(self) -> Path:
        """Where it answers."""
        return self.daemon.socket

    def close(self) -> int:
        """End the daemon as an operator does; its exit code."""
        self._client.close()
        self._log.close()
        return self.daemon.stop()

    @property
    def pid(self) -> int:
        """The supervisor."""
        return self.daemon.process.pid

    def workers(self) -> list[Worker]:
        """List the living workers and what each is there for."""
        self.read_log()
        rows = self._client.ok("channels")["channels"]
        active = {row["worker_pid"]: row["model"] for row in rows}
        return [self._worker(pid, active) for pid in self.daemon.workers()]

    def read_log(self) -> None:
        """Take in what the daemon said since."""
        # A line may be read while it is written: its rest comes with the next.
        lines, end, self._half_a_line = (self._half_a_line + self._log.read()).rpartition("\n")
        said = lines + end
        for model, pid in _WARM.findall(said):
            self._warm[int(pid)] = model
        for model, successor, first in _BEGAN.findall(said):
            self.began[model] = int(successor or first), time.monotonic_ns()

    def _worker(self, pid: int, active: dict[int, str]) -> Worker:
        if pid in active:
            return Worker(pid, "active", active[pid])
        if pid in self._warm:
            return Worker(pid, "standby", self._warm[pid])
        return Worker(pid, "loading")

    def wait_settled(self, patience_s: float = SETTLE_S) -> list[Worker]:
        """Wait until every model has its worker and its standbys, all of them warm."""
        wanted = len(catalogue.JOBS)
        end = time.monotonic() + patience_s
        while True:
            workers = self.workers()
            roles = [worker.role for worker in workers]
            if roles.count("active") == wanted and roles.count("standby") == wanted * self.standbys == (
                len(workers) - wanted
            ):
                return workers
            if time.monotonic() > end:
                raise AssertionError(
                    f"not within {patience_s:g} s at rest: {workers}\n{self.daemon.log()[-4000:]}"
                )
            time.sleep(0.05)

    def signal(self, worker: Worker, number: signal.Signals) -> int | None:
        """Send a signal to it and nobody else; when, or None if it was gone."""
        try:
            fd = os.pidfd_open(worker.pid)
        except ProcessLookupError:
            return None
        try:
            if parent_of(worker.pid) != self.pid or not is_alive(worker.pid):
                return None
            at_ns = time.monotonic_ns()
            signal.pidfd_send_signal(fd, number)
            return at_ns
        except ProcessLookupError:
            return None
        finally:
            os.close(fd)


@dataclass(frozen=True)
class Holdings:
    """What the daemon holds while it is at rest."""

    workers: int
    supervisor_fds: int
    worker_fds: dict[str, int]
    shared_memory: int
    stopped: int

    def leaks(self, base: Holdings) -> list[str]:
        """Say what is more than it was."""
        found = []
        for what in ("workers", "supervisor_fds", "shared_memory", "stopped"):
            before, now = getattr(base, what), getattr(self, what)
            if now != before:
                found.append(f"{what.replace('_', ' ')}: {before} before, {now} after")
        for name, before in base.worker_fds.items():
            if self.worker_fds.get(name) != before:
                found.append(f"descriptors of {name}: {before} before, {self.worker_fds.get(name)} after")
        return found


def at_rest(served: Served, patience_s: float = SETTLE_S) -> Holdings:
    """Look until two looks, a little apart, see the same: something may still be on its way to its end."""
    end = time.monotonic() + patience_s
    found = holdings(served)
    while True:
        time.sleep(QUIET_S)
        before, found = found, holdings(served)
        if found == before:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience_s:g} s at rest: {before}, then {found}")


def as_before(served: Served, base: Holdings, patience_s: float = LEFT_S) -> Holdings:
    """Look until it holds what it held before; the last look, whatever it saw, when the time is over."""
    end = time.monotonic() + patience_s
    while (found := holdings(served)).leaks(base) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def what_stays(look: Callable[[], list[str]], patience_s: float = LEFT_S) -> list[str]:
    """Give what is still there after a while: processes need a moment to end, and names to be unlinked."""
    end = time.monotonic() + patience_s
    while (found := look()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def holdings(served: Served, patience_s: float = SETTLE_S) -> Holdings:
    """Look at a daemon whose clients have their channels and whose standbys are warm."""
    end = time.monotonic() + patience_s
    while True:
        workers = served.wait_settled()
        try:
            return _held(served, workers)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # One of the workers has just ended, and another one comes.
            if time.monotonic() > end:
                raise AssertionError(f"workers end again and again: {workers}") from None


def _held(served: Served, workers: list[Worker]) -> Holdings:
    names = [entry.name for entry in Path("/dev/shm").iterdir() if entry.name.startswith("sidecaml")]
    return Holdings(
        workers=len(workers),
        supervisor_fds=len(open_descriptors(served.pid)),
        worker_fds={
            f"{worker.model}'s {worker.role}": len(open_descriptors(worker.pid)) for worker in workers
        },
        shared_memory=len(names),
        stopped=sum(state_of(worker.pid) in "Tt" for worker in workers),
    )


def resident_bytes(pid: int) -> int:
    """How much memory a process has of its own."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def parent_of(pid: int) -> int:
    """Who started a process; 0 when it is gone."""
    return int(_stat(pid)[1])


def state_of(pid: int) -> str:
    """The letter of a process's state; X when it is gone."""
    return _stat(pid)[0]


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0"]
    return text.rpartition(")")[2].split()

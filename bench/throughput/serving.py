"""A daemon that serves this part's models, whose batch is dynamic; and a way to put it under load."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.daemon import clean_environment, wait_for
from bench.models import write_dynamic
from ipc_server import client
from ipc_server.abi import Policy
from ipc_server.bench.command import Bench, judge
from ipc_server.bench.plan import Plan
from ipc_server.bench.report import Row
from ipc_server.errors import SidecamlError

MODELS = ("tiny", "small", "wide")
DIM = "N"
_READY_S = 120.0
_END_S = 30.0


@dataclass(frozen=True)
class Serving:
    """A running daemon."""

    socket: Path
    files: dict[str, Path]
    pid: int

    def plan(self, model: str, **changes: object) -> Plan:
        """Give a load of one client with one request in flight, changed so."""
        plan = Plan(
            model=model,
            socket=str(self.socket),
            clients=1,
            window=1,
            burst=1,
            seconds=2.0,
            warm_up=0.5,
            policy=Policy.BLOCK,
            seed=1,
            sets=16,
            check=False,
            deadline_ns=0,
            dims={DIM: 1},
            ranges={},
        )
        return replace(plan, **changes)  # type: ignore[arg-type]

    def load(
        self, plan: Plan, rates: Sequence[float] | None = (0.0,), bound_ns: int = 1_000_000
    ) -> list[Row]:
        """Run loads, and give their rows; None for the rates searches for the highest.

        SidecamlError when an answer that was compared was wrong, or the daemon went away.
        """
        bench = Bench(plan, bound_ns, lambda _: None)
        with _away_from(plan.cpus):
            bench.run(None if rates is None else list(rates))
        judge(bench.rows)
        return bench.rows


def pinned(core: int) -> str:
    """Give the setting of a model whose workers are to run on one processor."""
    return f'cpus = "{core}"'


def at_once() -> str:
    """Give the setting of a model whose workers run before all that wants their processor, where allowed."""
    # No real-time priority: who spins with one is stopped by the kernel for a twentieth of each second.
    return "nice = -20" if os.geteuid() == 0 else ""


@contextlib.contextmanager
def _away_from(cpus: Iterable[int]) -> Iterator[None]:
    """Leave processors to the clients that are pinned there: this process looks at costs while they run."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before.difference(cpus) or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def serving(folder: Path, models: Sequence[str] = MODELS, settings: str = "") -> Iterator[Serving]:
    """Serve the models from a folder of their own; `settings` goes into the table of each."""
    files = {name: write_dynamic(name, folder) for name in models}
    socket, log, config = folder / "bench.sock", folder / "daemon.log", folder / "daemon.toml"
    tables = [f'[models.{name}]\npath = "{file}"\n{settings}\n' for name, file in files.items()]
    config.write_text(f'socket = "{socket}"\n\n' + "\n".join(tables), encoding="utf-8")
    command = [sys.executable, "-m", "ipc_server.cli", "serve", "--strict", f"--config={config}"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=clean_environment()
        )
    try:
        wait_for(process, log, "the daemon", lambda: _is_ready(socket, models), _READY_S)
        yield Serving(socket, files, process.pid)
        process.terminate()
        process.wait(_END_S)
    finally:
        process.kill()
        process.wait()


def _is_ready(socket: Path, names: Sequence[str]) -> bool:
    try:
        found = {model.name: model.state for model in client.models(str(socket))}
    except SidecamlError:
        return False
    return all(found.get(name) == "ready" for name in names)

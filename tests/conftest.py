"""Fixtures of every tier: a real daemon, and a check that each test leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything loads ONNX Runtime: it would open a database under the home directory otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["SIDECAML_TEST_MARK"] = uuid.uuid4().hex

from daemon_process import Daemon, marked_processes, open_descriptors

SHARED_MEMORY = Path("/dev/shm")

# A machine that stands still for a moment is no fault of an example's.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Whatever needs PyTorch says so in its file's name; where there is none to be had, that is not collected.
WITHOUT_TORCH = ["*torch*"] if os.environ.get("SIDECAML_TORCH") == "absent" else []
# On a second system only what a system can change is tested. ONNX's suite runs the same wheel of ONNX
# Runtime, by clients that other tests run there; so do the benchmark's drivers and the load generator, and
# nobody measures there. What a client takes away, what a machine lacks, what a death leaves: that is the
# kernel's, and there is one.
OF_THE_KERNEL = [
    "*hostile*",
    "*untrusted*",
    "*sigbus*",
    "*full_machine*",
    "*exhaustion*",
    "*crash_points*",
    "*batch_poison*",
    "*takeover*",
    "*test_moves*",
]
IS_SECOND = os.environ.get("SIDECAML_SYSTEM") == "second"
ON_A_SECOND_SYSTEM = ["conformance", "*test_bench_*", "*load_command*", *OF_THE_KERNEL] if IS_SECOND else []
collect_ignore_glob = [*WITHOUT_TORCH, *ON_A_SECOND_SYSTEM]

StartDaemon = Callable[..., Daemon]

_kill = os.kill


def _kill_one(pid: int, number: int) -> None:
    """Refuse 0, which is what the daemon says where no worker serves: it would be this whole test run."""
    assert pid > 0, f"signal {number} for nobody: process {pid}"
    _kill(pid, number)


os.kill = _kill_one


def shared_memory_names() -> set[str]:
    """List the names of ours in shared memory."""
    return {entry.name for entry in SHARED_MEMORY.iterdir() if entry.name.startswith("sidecaml")}


def assert_vanishes(what: str, left: Callable[[], object], patience_s: float = 15.0) -> None:
    """Fail when there is still something left after the time."""
    end = time.monotonic() + patience_s
    while (found := left()) and time.monotonic() < end:
        time.sleep(0.02)
    assert not found, f"{what}: {found}"


@contextlib.contextmanager
def leaves_nothing() -> Iterator[None]:
    """Fail what leaves shared memory, a process or an open descriptor behind."""
    names, processes, descriptors = shared_memory_names(), set(marked_processes()), set(open_descriptors())
    # What there is before a test is not looked through after it: that took most of the time.
    gc.freeze()
    yield
    gc.collect()
    # Another run's daemon may hold a name between its creation and its unlinking, so names get time.
    assert_vanishes("names left in /dev/shm", lambda: shared_memory_names() - names)
    assert_vanishes(
        "processes left", lambda: {p: what for p, what in marked_processes().items() if p not in processes}
    )
    # Some are closed by threads of this process. The one that lists the folder is gone when its link is read:
    # open_descriptors leaves it out.
    assert_vanishes(
        "descriptors left open",
        lambda: {fd: what for fd, what in open_descriptors().items() if fd not in descriptors},
    )


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Hold every test to it."""
    with leaves_nothing():
        yield


@pytest.fixture(autouse=True)
def proofs_have_time(nothing_left: None) -> Iterator[None]:
    """Let no slow machine limit what is batched in this process; tests of the limit set it themselves."""
    from ipc_server.engines import certificate  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate, "BUDGET_S", 60.0)
        patch.setattr(certificate, "LONGEST_S", 120.0)
        yield


@pytest.fixture
def daemon(nothing_left: None, tmp_path: Path) -> Iterator[StartDaemon]:
    """Start daemons, each in its own folder: `daemon({"name": path}, *arguments)`; they end with the test."""
    started: list[Daemon] = []

    def start(
        models: Mapping[str, Path],
        *args: str,
        ready: bool = True,
        env: Mapping[str, str] | None = None,
        lane: str | None = None,
        standbys: int = 0,
        prefix: Sequence[str] = (),
    ) -> Daemon:
        folder = tmp_path / f"daemon{len(started)}"
        folder.mkdir()
        if lane:
            config = folder / "lanes.toml"
            config.write_text("".join(f'[models."{name}"]\nlane = "{lane}"\n' for name in models))
            args = (*args, f"--config={config}")
        running = Daemon(folder, models, *args, ready=False, env=env, standbys=standbys, prefix=prefix)
        started.append(running)
        if ready:
            running.wait_ready()
        return running

    yield start
    for running in started:
        running.stop()

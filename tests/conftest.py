"""Fixtures of every tier: a real daemon, and a check that each test leaves nothing behind."""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

# Before anything loads ONNX Runtime: it would open a database under the home directory otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["SIDECAML_TEST_MARK"] = uuid.uuid4().hex

from daemon_process import Daemon, marked_processes, open_descriptors

SHARED_MEMORY = Path("/dev/shm")

# Whatever needs PyTorch says so in its file's name; where there is none to be had, that is not collected.
collect_ignore_glob = ["*torch*"] if os.environ.get("SIDECAML_TORCH") == "absent" else []

StartDaemon = Callable[..., Daemon]


def shared_memory_names() -> set[str]:
    """List the names of ours in shared memory."""
    return {entry.name for entry in SHARED_MEMORY.iterdir() if entry.name.startswith("sidecaml")}


def assert_vanishes(what: str, left: Callable[[], object], patience_s: float = 5.0) -> None:
    """Fail when there is still something left after the time."""
    end = time.monotonic() + patience_s
    while (found := left()) and time.monotonic() < end:
        time.sleep(0.02)
    assert not found, f"{what}: {found}"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves shared memory, a process or an open descriptor behind."""
    names, processes, descriptors = shared_memory_names(), set(marked_processes()), set(open_descriptors())
    yield
    gc.collect()
    # Another run's daemon may hold a name between its creation and its unlinking, so names get time.
    assert_vanishes("names left in /dev/shm", lambda: shared_memory_names() - names)
    assert_vanishes(
        "processes left", lambda: {p: what for p, what in marked_processes().items() if p not in processes}
    )
    # The descriptor that lists the folder is gone when its link is read: open_descriptors leaves it out.
    left = {fd: what for fd, what in open_descriptors().items() if fd not in descriptors}
    assert not left, f"descriptors left open: {left}"


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
    ) -> Daemon:
        folder = tmp_path / f"daemon{len(started)}"
        folder.mkdir()
        if lane:
            config = folder / "lanes.toml"
            config.write_text("".join(f'[models."{name}"]\nlane = "{lane}"\n' for name in models))
            args = (*args, f"--config={config}")
        running = Daemon(folder, models, *args, ready=False, env=env)
        started.append(running)
        if ready:
            running.wait_ready()
        return running

    yield start
    for running in started:
        running.stop()

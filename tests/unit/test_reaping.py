"""How a worker ended is known at once, and its zombie is nobody's affair for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from daemon_process import wait_until

from ipc_server import worker_process


@pytest.mark.parametrize(
    ("code", "expected"),
    [("", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_the_exit_code_is_that_of_the_process(code: str, expected: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", code])
    pidfd = os.pidfd_open(child.pid)
    try:
        child.returncode = worker_process._reaped(child.pid, pidfd)
    finally:
        os.close(pidfd)
    assert child.returncode == expected
    wait_until("it is reaped", lambda: not os.path.exists(f"/proc/{child.pid}"))  # noqa: PTH110


def test_without_a_thread_to_be_had_it_is_reaped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    pidfd = os.pidfd_open(child.pid)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    try:
        child.returncode = worker_process._reaped(child.pid, pidfd)
    finally:
        os.close(pidfd)
    assert child.returncode == 7
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)

"""A worker is over when none of its threads runs any more: sooner than its process is gone, never before."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from daemon_process import environment, is_alive, wait_until

from ipc_server import _core
from ipc_server import lifeline as lifeline_module
from ipc_server.lifeline import Lifeline, runs_no_more

SECOND_NS = 1_000_000_000
HOLD = """
import sys, threading, time
from ipc_server import _core, lifeline as lifeline_module
_core.hold_lifeline(int(sys.argv[1]))
"""
ALONE = HOLD + "print('holds', flush=True)\ntime.sleep(600)\n"
# Only the thread that holds it comes to an end.
OTHER_THREAD = (
    HOLD
    + """
import ctypes
threading.Thread(target=lambda: (print('holds', flush=True), time.sleep(600))).start()
ctypes.CDLL(None).pthread_exit(None)
"""
)


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    made = Lifeline()
    yield made
    made.close()
    # The thread that waits closes the page.
    wait_until("nobody waits", lambda: not made.is_watched)


def start(code: str, lifeline: Lifeline) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(lifeline.fd)],
        env=environment(),
        stdout=subprocess.PIPE,
        pass_fds=[lifeline.fd],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"holds\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_a_killed_worker_is_known_to_be_over_before_it_is_reaped(lifeline: Lifeline) -> None:
    process = start(ALONE, lifeline)

    async def told() -> None:
        over = asyncio.Event()
        lifeline.watch(process.pid, over.set)
        await asyncio.sleep(0.05)
        assert not over.is_set()
        process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(30):
            await over.wait()
        assert runs_no_more(process.pid)

    try:
        asyncio.run(told())
    finally:
        end(process)


def test_a_process_is_not_over_while_a_thread_of_it_runs(lifeline: Lifeline) -> None:
    process = start(OTHER_THREAD, lifeline)

    async def not_told() -> None:
        over = asyncio.Event()
        lifeline.watch(process.pid, over.set)
        await asyncio.sleep(0.3)
        assert not over.is_set()

    try:
        wait_until("its main thread is over", lambda: _core.wait_lifeline(lifeline.fd, SECOND_NS))
        assert is_alive(process.pid) or not runs_no_more(process.pid)
        assert not runs_no_more(process.pid)
        asyncio.run(not_told())
    finally:
        end(process)


def test_a_stopped_process_is_not_over(lifeline: Lifeline) -> None:
    process = start(ALONE, lifeline)
    try:
        process.send_signal(signal.SIGSTOP)
        assert not _core.wait_lifeline(lifeline.fd, SECOND_NS // 10)
        assert not runs_no_more(process.pid)
    finally:
        end(process)


def test_a_zombie_and_what_is_gone_run_no_more() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_until("it is a zombie", lambda: not is_alive(process.pid))
        assert runs_no_more(process.pid)
        process.wait()
        assert runs_no_more(process.pid)
    assert not runs_no_more(os.getpid())


def test_a_lifeline_that_nobody_watches_or_holds_is_closed_all_the_same() -> None:
    Lifeline().close()

    async def watched() -> None:
        lifeline = Lifeline()
        lifeline.watch(os.getpid(), lambda: pytest.fail("this process is not over"))
        await asyncio.sleep(0.05)
        lifeline.close()
        wait_until("nobody waits", lambda: not lifeline.is_watched)

    asyncio.run(watched())


def test_where_no_thread_can_be_had_the_pidfd_is_left_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def watched() -> int:
        lifeline = Lifeline()
        lifeline.watch(os.getpid(), lambda: pytest.fail("this process is not over"))
        assert not lifeline.is_watched
        lifeline.close()
        return lifeline.fd

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        fd = asyncio.run(watched())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_list_that_lacks_a_thread_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_until("it is a zombie", lambda: not is_alive(process.pid))
        assert runs_no_more(process.pid)
        monkeypatch.setattr(lifeline_module, "_thread_count", lambda _: 2)
        assert not runs_no_more(process.pid)

"""Time limits that a stop of this process does not use up for others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from daemon_process import environment, is_stopped, wait_until

from ipc_server import messages
from ipc_server.time_limit import time_limit

LIMIT_S = 3.0
# Waits for a message on one socket, and for the other end of another one to read what was sent.
WAITS = f"""
import asyncio, socket, sys
from ipc_server.link import Link
from ipc_server.time_limit import time_limit

async def hear(link):
    async with time_limit({LIMIT_S}):
        return await link.receive()

async def say(link):
    await link.flush({LIMIT_S})
    return link.backlog

async def both():
    first, second = (Link(socket.socket(fileno=int(fd))) for fd in sys.argv[1:])
    while not second.backlog:
        second.send({{"text": "x" * 60000}})
    print("waits", flush=True)
    print(*await asyncio.gather(hear(first), say(second), return_exceptions=True), flush=True)
    first.close(), second.close()

asyncio.run(both())
"""


async def wait(seconds: float | None, event: asyncio.Event) -> None:
    async with time_limit(seconds):
        await event.wait()


def test_who_waits_for_longer_is_told() -> None:
    async def wait_in_vain() -> None:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await wait(0.05, asyncio.Event())
        assert time.monotonic() - begun >= 0.05

    asyncio.run(wait_in_vain())


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_what_comes_in_time_ends_the_limit(seconds: float | None) -> None:
    async def wait_for_it() -> None:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, event.set)
        await wait(seconds, event)

    asyncio.run(wait_for_it())


def test_one_who_is_cancelled_is_not_told_of_time() -> None:
    async def cancel() -> None:
        waiting = asyncio.create_task(wait(60.0, asyncio.Event()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel())


def test_a_standstill_is_made_up_for_once() -> None:
    async def stand_still() -> float:
        begun = time.monotonic()
        waiting = asyncio.create_task(wait(0.2, asyncio.Event()))
        await asyncio.sleep(0)
        time.sleep(2.0)
        with pytest.raises(TimeoutError):
            await waiting
        return time.monotonic() - begun

    # No longer than the limit, and a machine that itself stands still.
    assert 2.2 <= asyncio.run(stand_still()) < 60.0


def test_what_came_while_this_process_was_stopped_came_in_time() -> None:
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        (hears, first), (says, second) = pairs
        for sock in (hears, first, says, second):
            stack.enter_context(sock)
        process = subprocess.Popen(
            [sys.executable, "-c", WAITS, str(hears.fileno()), str(says.fileno())],
            env=environment(),
            stdout=subprocess.PIPE,
            pass_fds=[hears.fileno(), says.fileno()],
        )
        stack.enter_context(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        os.kill(process.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        wait_until("it is stopped", lambda: is_stopped(process.pid))
        messages.send(first, {"text": "hello"})
        second.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while messages.receive(second):
                pass
        time.sleep(max(0.0, stopped + LIMIT_S + 0.5 - time.monotonic()))
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == b"{'text': 'hello'} 0\n"
        assert process.wait(60) == 0

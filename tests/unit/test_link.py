"""A control socket's end on the event loop, where the system refuses something."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Sequence

import pytest
from daemon_process import open_descriptors

from ipc_server import messages
from ipc_server.link import Link


def fill(link: Link) -> int:
    """Send until one message waits for the other end to read; how many."""
    sent = 0
    while not link.backlog:
        link.send({"text": "x" * 60000})
        sent += 1
    return sent


def test_descriptors_that_cannot_all_be_kept_for_later_are_not_kept_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dup = os.dup
    left = [2]

    def scarce(fd: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return dup(fd)

    async def fill_and_send() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = Link(ours)
        with theirs:
            for _ in range(100):
                link.send({"text": "x" * 60000})
            before = len(open_descriptors())
            monkeypatch.setattr(os, "dup", scarce)
            with pytest.raises(OSError, match="Too many open files"):
                link.send({}, [0, 1, 2])
            assert len(open_descriptors()) == before
            link.close()

    asyncio.run(fill_and_send())


def test_descriptors_that_the_system_does_not_pass_on_leave_the_link_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send_packed = messages.send_packed

    def refuse(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
        if fds:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        send_packed(sock, data, fds)

    async def send_both() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = Link(ours)
        with theirs:
            monkeypatch.setattr(messages, "send_packed", refuse)
            with pytest.raises(OSError, match="Too many references"):
                link.send({"text": "with"}, [0])
            link.send({"text": "without"})
            received = messages.receive(theirs)
            assert received is not None
            assert received.body == {"text": "without"}
            assert not link.ended
            link.close()

    asyncio.run(send_both())


def test_what_is_sent_in_the_turn_in_which_time_is_up_counts_as_sent() -> None:
    async def flush_beside_a_stop() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = Link(ours)
        with theirs:
            sent = fill(link)
            flushed = asyncio.create_task(link.flush(0.1))
            await asyncio.sleep(0)
            # The other end reads while this process stands still, which it does until the time is up.
            for _ in range(sent - 1):
                assert messages.receive(theirs) is not None
            time.sleep(0.2)
            await flushed
            assert not link.backlog
            assert not link.ended
            link.close()

    asyncio.run(flush_beside_a_stop())


def test_who_does_not_read_is_not_waited_for_longer() -> None:
    async def flush_in_vain() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = Link(ours)
        with theirs:
            fill(link)
            with pytest.raises(TimeoutError):
                await link.flush(0.01)
            assert link.backlog
            link.close()

    asyncio.run(flush_in_vain())

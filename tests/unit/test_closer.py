"""Descriptors of clients are closed where nobody waits, however long it takes."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from daemon_process import wait_until

from ipc_server import closer, segment
from ipc_server.abi import PAGE_BYTES
from ipc_server.channel import Channel
from ipc_server.closer import Closer


def test_everything_is_closed_in_the_end() -> None:
    read, write = os.pipe()
    Closer().close([os.dup(write) for _ in range(5)])
    os.close(write)
    # End of file: nobody holds a copy.
    assert os.read(read, 1) == b""
    os.close(read)


def test_a_close_that_takes_its_time_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    close, allowed, begun = os.close, threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        begun.set()
        allowed.wait(30)
        close(fd)

    read, write = os.pipe()
    with monkeypatch.context() as patched:
        patched.setattr(closer.os, "close", slow)
        Closer().close([write])
        assert begun.wait(30)
        allowed.set()
        assert os.read(read, 1) == b""
    os.close(read)


def test_a_connection_that_would_linger_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        taken, _ = server.accept()
        with taken:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
            sender.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    sender.send(bytes(65536))
            fd = sender.detach()
            ours = Closer()
            read, write = os.pipe()
            # An hour would pass between the two.
            ours.close([fd, write])
            assert os.read(read, 1) == b""
            os.close(read)


@pytest.mark.parametrize("sealed", [False, True])
def test_memory_is_given_back_though_somebody_holds_it(sealed: bool) -> None:
    fd = segment.create_segment(2**20, sealed=sealed)
    theirs = os.dup(fd)
    os.pwrite(theirs, b"something", 4096)
    Closer().give_back(fd)
    wait_until("its pages are gone", lambda: os.fstat(theirs).st_blocks == 0)
    assert os.pread(theirs, 9, 4096) == bytes(9)
    assert os.fstat(theirs).st_size == 2**20
    os.close(theirs)


def test_what_is_no_descriptor_any_more_does_not_end_it() -> None:
    read, write = os.pipe()
    ours = Closer()
    ours.close([999_999, write])
    assert os.read(read, 1) == b""
    os.close(read)
    wait_until("the queue is empty", ours._work.empty)


def test_memory_of_a_channel_does_not_wait_for_a_descriptor_that_a_client_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close, allowed = os.close, threading.Event()
    read, write = os.pipe()
    kept = segment.create_segment(PAGE_BYTES)
    os.pwrite(kept, b"x", 0)
    channel = Channel(1, "m", 1, SimpleNamespace(trusted=False), fds=[os.dup(kept)])  # type: ignore[arg-type]

    def slow(fd: int) -> None:
        if fd == write:
            allowed.wait(30)
        close(fd)

    with monkeypatch.context() as patched:
        patched.setattr(closer.os, "close", slow)
        closer.closer.close([write])
        channel.close()
        try:
            wait_until("its pages are given back", lambda: os.pread(kept, 1, 0) == b"\0")
        finally:
            allowed.set()
        assert os.read(read, 1) == b""
    close(read)
    close(kept)


def test_pages_that_a_worker_brings_back_are_given_back_when_it_has_let_go() -> None:
    kept = segment.create_segment(PAGE_BYTES)
    let_go: list[Callable[[], None]] = []
    instance = SimpleNamespace(leave=lambda channel, then: let_go.append(then))
    owner = SimpleNamespace(trusted=False)
    channel = Channel(1, "m", 1, owner, fds=[os.dup(kept)])  # type: ignore[arg-type]
    channel.instance = instance  # type: ignore[assignment]
    os.pwrite(kept, b"x", 0)
    channel.close()
    wait_until("its pages are given back", lambda: os.fstat(kept).st_blocks == 0)
    with mmap.mmap(kept, PAGE_BYTES) as seen:
        assert seen[0] == 0
        assert os.fstat(kept).st_blocks > 0
        let_go.pop()()
        wait_until("the page of that look is, too", lambda: os.fstat(kept).st_blocks == 0)
    os.close(kept)

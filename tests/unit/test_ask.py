"""Conversations with a daemon that goes away in the middle of them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipc_server import client, messages
from ipc_server.abi import ABI_VERSION, ErrorCode
from ipc_server.errors import SidecamlError

Step = Callable[[socket.socket], None]


def hear(sock: socket.socket) -> None:
    """Take a request in."""
    assert messages.receive(sock)


def greet(sock: socket.socket) -> None:
    """Answer hello."""
    hear(sock)
    messages.send(sock, {"id": 1, "ok": True, "abi": ABI_VERSION})


def ends_at_once(_sock: socket.socket) -> None:
    """Say nothing."""


def ends_asked(sock: socket.socket) -> None:
    """End when the question was heard."""
    greet(sock)
    hear(sock)


def shuts_down(sock: socket.socket) -> None:
    """Say so."""
    ends_asked(sock)
    messages.send(sock, {"id": 2, "ok": False, "code": int(ErrorCode.SHUTTING_DOWN), "message": "later"})


def talks_nonsense(sock: socket.socket) -> None:
    """Send what is no message."""
    ends_asked(sock)
    sock.send(b"nonsense")


def answers(sock: socket.socket) -> None:
    """Know no model."""
    ends_asked(sock)
    messages.send(sock, {"id": 2, "ok": True, "models": [], "more": False})


class Daemon:
    """Does so much on each connection; None: nobody listens for a while."""

    def __init__(self, path: Path, steps: tuple[Step | None, ...]) -> None:
        self.path = path
        self.served = 0
        self._steps = steps
        self._listener = self._listen()

    def _listen(self) -> socket.socket:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self.path))
        listener.listen(4)
        return listener

    def serve(self) -> None:
        """Go through the steps."""
        for step in self._steps:
            if step is None:
                self._listener.close()
                time.sleep(0.02)
                self._listener = self._listen()
                continue
            sock, _ = self._listener.accept()
            with sock:
                step(sock)
            self.served += 1
        self._listener.close()


@contextlib.contextmanager
def daemon(path: Path, *steps: Step | None) -> Iterator[str]:
    """Run one, whose steps must all have happened in the end."""
    made = Daemon(path / "socket", steps)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield str(made.path)
    thread.join()
    assert made.served == len([step for step in steps if step])


@pytest.mark.parametrize(
    "steps",
    [
        (answers,),
        (ends_at_once, answers),
        (greet, answers),
        (ends_asked, answers),
        (ends_at_once, greet, ends_asked, answers),
        (ends_asked, None, answers),
        (shuts_down, None, shuts_down, answers),
    ],
)
def test_a_daemon_that_goes_away_anywhere_is_asked_again(
    tmp_path: Path, steps: tuple[Step | None, ...]
) -> None:
    with daemon(tmp_path, *steps) as path:
        assert client.models(path) == []


def test_what_is_wrong_with_an_answer_is_not_asked_again(tmp_path: Path) -> None:
    with daemon(tmp_path, talks_nonsense) as path, pytest.raises(SidecamlError) as caught:
        client.models(path)
    assert caught.value.code is ErrorCode.PROTOCOL


def test_one_that_does_not_come_back_is_told_in_time(tmp_path: Path) -> None:
    with daemon(tmp_path, ends_asked) as path, pytest.raises(SidecamlError) as caught:
        client.open_model("any", socket=path, patience_s=3)
    assert caught.value.code is ErrorCode.CONNECT


def test_where_nobody_was_nobody_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(SidecamlError) as caught:
        client.open_model("any", socket=str(tmp_path / "socket"), patience_s=1e9)
    assert caught.value.code is ErrorCode.CONNECT


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(str(path))
        listener.listen(1)
        waiting = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filler = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                filler.setblocking(False)
                filler.connect(str(path))
                waiting += 1
        with pytest.raises(SidecamlError, match="queue is full") as caught:
            client.open_model("any", socket=str(path), patience_s=0.05)
        assert caught.value.code is ErrorCode.TIMEOUT

        def serve() -> None:
            time.sleep(0.02)
            for _ in range(waiting):
                listener.accept()[0].close()
            sock, _ = listener.accept()
            with sock:
                answers(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        assert client.models(str(path)) == []
        thread.join()

"""The daemon's socket: one daemon at a time, stale ones replaced, bystanders left alone."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from ipc_server import listener
from ipc_server.listener import Listener, ListenError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sidecaml.sock"


def test_it_listens_for_its_own_user_only_and_removes_the_socket_at_the_end(path: Path) -> None:
    taken = Listener.bind(path)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(path))
    taken.close()
    assert not path.exists()
    taken.close()


def test_it_has_the_mode_and_the_group_that_were_asked_for(path: Path) -> None:
    group = os.getegid() if os.geteuid() else 4321
    taken = Listener.bind(path, 0o660, group)
    status = path.lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, group)
    assert taken.admits(0o660, group)
    assert taken.admits(0o660, None)
    assert not taken.admits(0o600, group)
    assert not taken.admits(0o660, group + 1)
    taken.close()


def test_a_group_that_it_cannot_have_is_an_error_and_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ListenError, match=r"gid 77 .* must be one of its members"):
        Listener.bind(path, 0o660, 77)
    assert not path.exists()


def test_a_second_one_is_refused_with_the_first_one_s_pid(path: Path) -> None:
    taken = Listener.bind(path)
    with pytest.raises(ListenError, match=f"process {os.getpid()} serves this socket already"):
        Listener.bind(path)
    assert path.is_socket()
    taken.close()


def test_a_full_queue_is_a_living_daemon(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "BACKLOG", 0)
    taken = Listener.bind(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(path))
        with pytest.raises(ListenError, match="another process serves this socket"):
            Listener.bind(path)
    taken.close()


def test_a_stale_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    taken = Listener.bind(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(path))
    taken.close()


def test_a_socket_of_another_program_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ListenError, match="another process serves this socket"):
            Listener.bind(path)
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious", encoding="utf-8")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.parent)
    with pytest.raises(ListenError, match="is not a socket"):
        Listener.bind(path)
    assert os.path.lexists(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="its folder cannot be opened"):
        Listener.bind(tmp_path / "none" / "sidecaml.sock")


def test_somebody_else_s_socket_is_not_removed_at_the_end(path: Path) -> None:
    first = Listener.bind(path)
    path.unlink()
    second = Listener.bind(path)
    first.close()
    assert path.is_socket()
    second.close()
    assert not path.exists()


def test_a_folder_locked_for_good_is_an_error_and_no_hang(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_LOCK_PATIENCE_S", 0.05)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(ListenError, match="holds a lock on its folder"):
            Listener.bind(path)
    finally:
        os.close(folder)


def test_a_socket_that_cannot_be_removed_does_not_stop_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    listening = Listener.bind(path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        listening.close()
    assert listening.sock.fileno() < 0
    assert "could not be removed" in caplog.text

"""Where the daemon listens: on systemd's socket, on the one of its predecessor, or on one that it makes."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from ipc_server.access import Access
from ipc_server.listener import Listener
from ipc_server.systemd.store import Store

log = logging.getLogger(__name__)

_KEY = "l0"
_LETTER = "l"


def listener_for(path: Path, access: Access, store: Store) -> Listener:
    """Give the listening socket; path, mode and group hold where they are ours to say. Raises ListenError."""
    given = _given(store)
    kept = _kept(store)
    if given:
        if kept:
            _give_up(kept, store)
        return given
    if kept and kept.path == path and kept.is_reachable() and kept.admits(access.mode, access.group):
        return kept
    if kept:
        _give_up(kept, store)
    listener = Listener.bind(path, access.mode, access.group)
    store.keep(_KEY, {"path": str(path), "identity": listener.identity}, {_LETTER: listener.sock.fileno()})
    return listener


def stop_listening(listener: Listener, store: Store) -> None:
    """Close the socket for good: no successor has it either, but for systemd's own."""
    listener.close()
    store.forget(_KEY)


def _given(store: Store) -> Listener | None:
    """Find the socket that a unit of systemd made for us; what else it handed over is of no use."""
    found = None
    for name, fd in store.strangers.items():
        if found is None and _listens(fd):
            sock = socket.socket(fileno=fd)
            found = Listener(Path(os.fsdecode(sock.getsockname())), sock, None)
        else:
            log.warning("systemd handed over %s, which is not used: one SOCK_SEQPACKET socket is", name)
            os.close(fd)
    store.strangers.clear()
    return found


def _kept(store: Store) -> Listener | None:
    kept = store.take(_KEY)
    if not kept:
        return None
    if _LETTER not in kept.fds:
        store.forget(_KEY)
        return None
    device, inode = kept.record["identity"]
    return Listener(Path(kept.record["path"]), socket.socket(fileno=kept.fds[_LETTER]), (device, inode))


def _give_up(listener: Listener, store: Store) -> None:
    log.info("%s is not listened on any more", listener.path)
    stop_listening(listener, store)


def _listens(fd: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return (
                sock.family == socket.AF_UNIX
                and sock.type == socket.SOCK_SEQPACKET
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            )
    except OSError:
        return False

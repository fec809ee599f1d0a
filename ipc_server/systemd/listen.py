"""sd_listen_fds: the descriptors that systemd hands to a process, by the names that they were stored with."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, MutableMapping

from ipc_server.messages import close_all

log = logging.getLogger(__name__)

FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def take(environment: MutableMapping[str, str]) -> dict[str, int]:
    """Take over what was handed to this very process, close-on-exec; children are told nothing of it.

    Of several descriptors of one name the first counts, and the others are closed.
    """
    try:
        fds = _announced(environment)
    finally:
        for variable in _VARIABLES:
            environment.pop(variable, None)
    taken: dict[str, int] = {}
    for name, fd in fds:
        os.set_inheritable(fd, False)
        if taken.setdefault(name, fd) != fd:
            log.warning("systemd handed over more than one descriptor named %s: the first is used", name)
            close_all([fd])
    return taken


def _announced(environment: Mapping[str, str]) -> list[tuple[str, int]]:
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (int(count) - len(names))
    return list(zip(names, range(FIRST_FD, FIRST_FD + int(count)), strict=False))

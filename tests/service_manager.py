"""As much of systemd as a daemon sees of it: sd_notify, the descriptor store, restarts with LISTEN_FDS.

    with ServiceManager(folder, command) as manager:
        manager.start()
        manager.restart()       # SIGTERM, then again, with what was stored
        manager.kill()          # SIGKILL, then again

It runs in a process of its own, because the daemon must have the descriptors from number 3 on, and because it
must be the parent of the daemon's orphans, as systemd is.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
from daemon_process import PATIENCE_S, environment, wait_until

from ipc_server.systemd.statefile import PLACES, StateFile

_PR_SET_CHILD_SUBREAPER = 36
_MOST_FDS = 253


class ServiceManager:
    """The parent's side: starts the process that plays systemd, and tells it what to do."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        most: int = 512,
        env: Mapping[str, str] | None = None,
        restarts: bool = True,
    ) -> None:
        """Know what to run; its log is `daemon.log` in the folder, which is also its current one."""
        self.folder = folder
        self.log_path = folder / "daemon.log"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock = ours
        self._sock.settimeout(PATIENCE_S)
        plan = {"folder": str(folder), "command": list(command), "most": most, "restarts": restarts}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), json.dumps(plan)],
                env=environment(**(env or {})),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the daemon, flush the store, and end."""
        with contextlib.suppress(OSError, ValueError):  # of one that is gone: nothing to read
            self.ask("finish")
        self._sock.close()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, order: str, **fields: Any) -> Any:
        """Have something done, and give what it says about it."""
        self._sock.send(json.dumps({"order": order, **fields}).encode())
        return json.loads(self._sock.recv(1 << 20))

    def start(self, *, ready: bool = True) -> int:
        """Start the daemon; its process id."""
        pid = self.ask("start")["pid"]
        if ready:
            self.wait_ready()
        return int(pid)

    def send_signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal; when it ends of it, it is started again."""
        self.ask("signal", number=int(number))

    def restart(self, number: signal.Signals = signal.SIGTERM, *, ready: bool = True) -> int:
        """End the daemon by a signal and have it started again; its process id."""
        starts = self.state()["starts"]
        self.send_signal(number)
        wait_until("the daemon is started again", lambda: self.state()["starts"] > starts)
        if ready:
            self.wait_ready()
        return int(self.state()["pid"])

    def kill(self, *, ready: bool = True) -> int:
        """End the daemon by SIGKILL and have it started again; its process id."""
        return self.restart(signal.SIGKILL, ready=ready)

    def stop(self) -> None:
        """End the daemon by SIGTERM, for good, and flush the store."""
        self.ask("stop")
        wait_until("the daemon has ended", lambda: not self.state()["pid"])

    def drop(self, name: str) -> None:
        """Lose a descriptor, as happens to what exceeds the store."""
        self.ask("drop", name=name)

    def state(self) -> Any:
        """Tell pid (0: none runs), starts, code of the last end, stored names, and what was said since."""
        return self.ask("state")

    def names(self) -> list[str]:
        """List the names of stored descriptors."""
        return list(self.state()["names"])

    def wait_ready(self) -> None:
        """Wait until the daemon that runs now has said READY=1."""
        try:
            wait_until("READY=1", lambda: "READY=1" in self.state()["said"])
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def wait_logged(self, text: str, times: int = 1) -> None:
        """Wait until the log holds `text` that many times."""
        try:
            wait_until(f"{text!r} in the log", lambda: self.log().count(text) >= times)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def log(self) -> str:
        """Read what the daemon logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""


class Player:
    """The process that plays systemd."""

    def __init__(self, control: socket.socket, plan: Mapping[str, Any]) -> None:
        self._control = control
        self._plan = plan
        self._folder = Path(plan["folder"])
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._notify.bind(str(self._folder / "notify"))
        self._notify.setblocking(False)
        self._store: list[tuple[str, int]] = []
        self._said: list[str] = []
        self._pid = self._starts = self._code = 0
        self._stopping = False
        self._ended = False
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def run(self) -> None:
        """Play until told to end, or until nobody is there to tell anything."""
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ, self._hear)
        selector.register(self._notify, selectors.EVENT_READ, self._notified)
        while not self._ended:
            # As systemd does: what was said counts before an end.
            events = selector.select(0.01)
            for key, _ in sorted(events, key=lambda event: event[0].data == self._hear):
                key.data()
            self._reap()
        self._end()

    def _hear(self) -> None:
        data = self._control.recv(1 << 16)
        if not data:
            self._ended = True
            return
        order = json.loads(data)
        reply = getattr(self, "_" + order.pop("order"))(**order) or {}
        self._control.send(json.dumps(reply).encode())

    def _start(self) -> dict[str, Any]:
        self._starts += 1
        self._said.clear()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._become()
            finally:
                os._exit(127)
        return {"pid": self._pid}

    def _become(self) -> None:
        names = [name for name, _ in self._store]
        with (self._folder / "daemon.log").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        # First out of the way of those that come to lie at 3 and after, and below the limit on numbers.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 3 + len(names)) for _, fd in self._store]
        for place, fd in enumerate(high):
            os.dup2(fd, 3 + place)
            os.set_inheritable(3 + place, True)
        os.closerange(3 + len(names), os.sysconf("SC_OPEN_MAX"))
        values = {
            **os.environ,
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "FDSTORE": str(self._plan["most"]),
            **(
                {
                    "LISTEN_PID": str(os.getpid()),
                    "LISTEN_FDS": str(len(names)),
                    "LISTEN_FDNAMES": ":".join(names),
                }
                if names
                else {}
            ),
        }
        os.chdir(self._folder)
        os.execvpe(self._plan["command"][0], self._plan["command"], values)

    def _signal(self, number: int) -> None:
        if self._pid:
            os.kill(self._pid, number)
            os.kill(self._pid, signal.SIGCONT)

    def _stop(self) -> None:
        self._stopping = True
        self._signal(signal.SIGTERM)

    def _drop(self, name: str) -> None:
        self._remove(name)

    def _spoil(self) -> None:
        """Damage the state file."""
        fd = dict(self._store)["state"]
        os.pwrite(fd, os.urandom(64), PLACES[0])
        os.pwrite(fd, os.urandom(64), PLACES[1])

    def _age(self) -> None:
        """Have the state file be one of another ABI version."""
        file = StateFile(dict(self._store)["state"])
        unpacker = msgpack.Unpacker(raw=False)
        unpacker.feed(file.read() or b"")
        parts = list(unpacker)
        for _, record, _ in parts[1:]:
            if "made" in record:
                record["made"]["abi"] -= 1
        file.write(b"".join(map(msgpack.packb, parts)))

    def _state(self) -> dict[str, Any]:
        return {
            "pid": self._pid,
            "starts": self._starts,
            "code": self._code,
            "names": [name for name, _ in self._store],
            "said": list(self._said),
        }

    def _finish(self) -> None:
        self._ended = True

    def _notified(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._notify.recvmsg(
                    1 << 16, socket.CMSG_SPACE(_MOST_FDS * 4), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            fds = array.array("i")
            for _, _, part in ancillary:
                fds.frombytes(part)
            self._take(data.decode().split("\n"), list(fds))

    def _take(self, said: list[str], fds: list[int]) -> None:
        self._said += said
        fields = dict(line.split("=", 1) for line in said)
        name = fields.get("FDNAME", "stored")
        if "FDSTOREREMOVE" in fields:
            self._remove(name)
        if "FDSTORE" in fields:
            room = self._plan["most"] - len(self._store)
            self._store += [(name, fd) for fd in fds[:room]]
            fds = fds[max(room, 0) :]
        for fd in fds:
            os.close(fd)

    def _remove(self, name: str) -> None:
        for stored, fd in [entry for entry in self._store if entry[0] == name]:
            self._store.remove((stored, fd))
            os.close(fd)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._pid:
                    self._daemon_ended(os.waitstatus_to_exitcode(found[1]))

    def _daemon_ended(self, code: int) -> None:
        self._notified()
        self._pid, self._code = 0, code
        if self._stopping:
            self._flush()
        elif self._plan["restarts"]:
            self._start()

    def _flush(self) -> None:
        for _, fd in self._store:
            os.close(fd)
        self._store.clear()

    def _end(self) -> None:
        self._stopping = True
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_S / 2
        while self._pid and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        self._flush()
        # Orphans end by themselves, now that nobody holds the other ends of their sockets.
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline + PATIENCE_S:
                os.waitpid(-1, os.WNOHANG)
                time.sleep(0.01)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        os.set_inheritable(sock.fileno(), False)
        Player(sock, json.loads(sys.argv[2])).run()

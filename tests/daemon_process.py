"""A real daemon for the tests, started as an operator starts it: `from daemon_process import Daemon`."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipc_server import __version__, messages
from ipc_server.abi import ABI_VERSION

# Every process that a test starts inherits this, so that a leaked one is found whoever its parent is by then.
MARK = "SIDECAML_TEST_MARK"
REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0


def marked_processes() -> dict[int, str]:
    """Find the living processes of this test run other than this one: id to command line."""
    wanted = f"{MARK}={os.environ[MARK]}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                found[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return _state(pid) not in "ZX"


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal."""
    return _state(pid) == "T"


def _state(pid: int) -> str:
    """Give the letter for what a process does; X for one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]


def wait_until(what: str, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Poll until `condition()` is truthy and return it; fail saying `what` did not come."""
    end = time.monotonic() + patience_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience_s:g} s: {what}")
        time.sleep(0.01)


def environment(**changes: str) -> dict[str, str]:
    """Build the environment for a process under test: this one's, without settings of a daemon."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("SIDECAML_") or name == MARK
    }
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**kept, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": path, **changes}


class Daemon:
    """A running `sidecaml serve`; its log is collected in `log_path`."""

    def __init__(
        self,
        folder: Path,
        models: Mapping[str, Path],
        *args: str,
        ready: bool = True,
        env: Mapping[str, str] | None = None,
        standbys: int = 0,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start it with its socket in `folder` and, unless told otherwise, wait until it is ready.

        Few tests need standbys, and each of them takes a processor for a second.
        """
        self.socket = folder / "sidecaml.sock"
        self.log_path = folder / "daemon.log"
        named = [f"--model={name}={path}" for name, path in models.items()]
        serve = [sys.executable, "-m", "ipc_server.cli", "serve", f"--socket={self.socket}", *named, *args]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *serve],
                cwd=folder,
                env=environment(SIDECAML_STANDBYS=str(standbys), STATE_DIRECTORY=str(folder), **(env or {})),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if ready:
            self.wait_ready()

    def log(self) -> str:
        """Read what it logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> None:
        """Wait for the line that says that every model is announced."""
        self.wait_logged("ready: ")

    def wait_logged(self, text: str, times: int = 1) -> None:
        """Wait until the log holds `text` that many times."""

        def seen() -> bool:
            if self.log().count(text) >= times:
                return True
            if self.process.poll() is not None:
                raise AssertionError(
                    f"the daemon ended with {self.process.returncode} before {text!r}:\n{self.log()}"
                )
            return False

        try:
            wait_until(f"{text!r} in the log", seen)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def workers(self) -> list[int]:
        """List the worker processes, oldest first."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(
            encoding="ascii"
        )
        return [int(pid) for pid in children.split() if is_alive(int(pid))]

    def fds(self) -> dict[int, str]:
        """List the supervisor's open descriptors."""
        return open_descriptors(self.process.pid)

    def stop(self, patience_s: float = PATIENCE_S) -> int:
        """Ask it to stop, as an operator does, and return its exit code; kill it when it does not listen."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGCONT)
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"SIGTERM did not end the daemon:\n{self.log()}") from error

    def kill(self) -> None:
        """Kill it without a chance to clean up."""
        self.process.kill()
        self.process.wait()


def open_descriptors(pid: int | str = "self") -> dict[int, str]:
    """List a process's open descriptors and what they are."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue
    return found


class RawClient:
    """A client that says exactly what it is told to, for tests of the control socket."""

    def __init__(self, path: Path, *, hello: bool = True) -> None:
        """Connect, and say hello unless told otherwise."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE_S)
        self._next_id = 1
        try:
            self.sock.connect(str(path))
            if hello:
                self.ok("hello", abi=ABI_VERSION, client=f"tests {__version__}")
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> RawClient:
        """Use it in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def ask(self, op: str, **fields: Any) -> messages.Message:
        """Send a request and return the message that comes next."""
        request = {"id": self._next_id, "op": op, **fields}
        self._next_id += 1
        messages.send(self.sock, request)
        return self.next()

    def next(self) -> messages.Message:
        """Return the next message; fail at end-of-file."""
        message = messages.receive(self.sock)
        assert message is not None, "the daemon ended the connection"
        return message

    def at_end(self) -> bool:
        """Whether the daemon ended the connection: waits for the next message or the end."""
        message = messages.receive(self.sock)
        if message is not None:
            message.close_fds()
        return message is None

    def readable(self, patience_s: float = 0) -> bool:
        """Whether something can be read within the time."""
        return bool(select.select([self.sock], [], [], patience_s)[0])

    def ok(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask, expect success without descriptors, and return the reply."""
        message = self.ask(op, **fields)
        assert message.body.get("ok") is True, message.body
        assert not message.fds, message
        return message.body

    def refused(self, op: str, **fields: Any) -> tuple[str, str]:
        """Ask, expect a failure, and return the error's name and sentence."""
        message = self.ask(op, **fields)
        message.close_fds()
        assert message.body.get("ok") is False, message.body
        return message.body["error"], message.body["message"]

    def open(self, model: str, slots: int = 1, **fields: Any) -> messages.Message:
        """Open a channel; the caller closes the four descriptors."""
        message = self.ask("open", model=model, slots=slots, **fields)
        assert message.body.get("ok") is True, message.body
        assert len(message.fds) == 4, message
        return message

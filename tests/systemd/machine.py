"""What a scenario does in the machine: units, processes, load, files."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PYTHON = "/opt/sidecaml/bin/python"
FOLDER = Path(__file__).resolve().parent
CONFIG = Path("/etc/sidecaml/sidecaml.toml")
MODELS = Path("/srv/models")
SERVICE, SOCKET_UNIT = "sidecaml.service", "sidecaml.socket"
SOCKET = Path("/run/sidecaml/sidecaml.sock")
# A user in the group, and one outside.
MEMBER, OUTSIDER = "alice", "mallory"
PATIENCE_S = 60.0
OUTPUT = Path("/tmp/load.log")


def sh(*command: str, check: bool = True) -> str:
    """Run a command; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def show(what: str, unit: str = SERVICE) -> str:
    """Give a property of a unit."""
    return sh("systemctl", "show", "--property", what, "--value", unit)


def main_pid() -> int:
    """Give the supervisor's process."""
    return int(show("MainPID"))


def processes() -> dict[int, str]:
    """List what lives in the service's control group: id to command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if f"/{SERVICE}" in (entry / "cgroup").read_text():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def workers() -> list[int]:
    """List the worker processes."""
    return sorted(pid for pid, line in processes().items() if "ipc_server.worker" in line)


def serving() -> dict[str, int]:
    """Find the worker that serves the open channels of each model, as soon as each has one."""

    def found() -> dict[str, int]:
        pids = {row["model"]: row["worker_pid"] for row in ask("channels")["channels"]}
        return pids if all(pids.values()) else {}

    return dict(wait_until("every channel is served", found))


def ask(op: str) -> dict[str, Any]:
    """Ask the daemon over its control socket."""
    code = (
        "import json, sys; from pathlib import Path; from ipc_server.ask import Conversation\n"
        f"with Conversation(Path('{SOCKET}')) as daemon: print(json.dumps(daemon.ask('{op}')))"
    )
    return dict(json.loads(sh(PYTHON, "-c", code)))


def wait_until(what: str, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Poll until something holds, and give it."""
    end = time.monotonic() + patience_s
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience_s:g} s: {what}")
        time.sleep(0.02)
    return found


def journal(since: str = "", **fields: str) -> list[dict[str, Any]]:
    """Read the service's lines in the journal."""
    sh("journalctl", "--sync")
    matches = [f"{name}={value}" for name, value in fields.items()]
    cursor = ["--after-cursor", since] if since else []
    text = sh("journalctl", "--unit", SERVICE, "--output", "json", "--no-pager", *cursor, *matches)
    return [json.loads(line) for line in text.splitlines()]


class Load:
    """Clients of a member of the group that call and check until told to end."""

    def __init__(self, models: str = "triple,total", *, once: bool = False) -> None:
        """Begin, and wait until they are at it; with `once` nobody opens again after a failure."""
        begun = Path("/tmp/load-begun")
        begun.unlink(missing_ok=True)
        command = [PYTHON, str(FOLDER / "load.py"), models, "600", str(begun), *(["once"] if once else [])]
        self._process = subprocess.Popen(
            ["runuser", "-u", MEMBER, "--", *command], stdout=subprocess.PIPE, stderr=None, text=True
        )
        wait_until("the load begins", begun.exists)
        time.sleep(1.0)

    def end(self) -> dict[str, Any]:
        """End them; what they saw."""
        sh("pkill", "--signal", "TERM", "--parent", str(self._process.pid), check=False)
        output, _ = self._process.communicate(timeout=2 * PATIENCE_S)
        return dict(json.loads(output))

    def end_well(self) -> str:
        """End them; fail unless every answer came and was right. What they saw, in words."""
        seen = self.end()
        if seen["wrong"] or seen["failures"] or seen["calls"] < 20:
            raise AssertionError(f"the clients saw {seen}")
        return (
            f"{seen['calls']} calls, {seen['opens']} opens, none failed, slowest call "
            f"{seen['slowest_call_ms']} ms, slowest open {seen['slowest_open_ms']} ms"
        )

    def __enter__(self) -> Load:
        """Use it in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nobody behind."""
        if self._process.poll() is None:
            sh("pkill", "--signal", "KILL", "--parent", str(self._process.pid), check=False)
            self._process.wait()

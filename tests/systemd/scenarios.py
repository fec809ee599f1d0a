"""What must hold under a real systemd: run by root in the machine of scripts/systemd-machine.

scenarios.py [NAME...]      all of them, or those named; each says in one line what it saw
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from machine import (
    CONFIG,
    FOLDER,
    MEMBER,
    MODELS,
    OUTSIDER,
    PYTHON,
    SERVICE,
    SOCKET,
    SOCKET_UNIT,
    Load,
    ask,
    journal,
    main_pid,
    processes,
    serving,
    sh,
    show,
    wait_until,
    workers,
)

# How often the supervisor is killed, and restarted.
TIMES = int(os.environ.get("TIMES", "5"))

CONFIGURATION = """
[access]
groups = ["sidecaml"]

[limits]
worker_timeout_s = 2
max_attempts = 7

[models.triple]
path = "/srv/models/triple.onnx"

[models.total]
path = "/srv/models/total.onnx"
state = { next_sum = "sum" }
"""


def install() -> str:
    """Install as docs/operations.md says, and start."""
    sh("/machine/install")
    MODELS.mkdir(parents=True, exist_ok=True)
    for model in (FOLDER / "models").iterdir():
        sh("install", "-m", "644", str(model), str(MODELS))
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(CONFIGURATION)
    for user in (MEMBER, OUTSIDER):
        sh("useradd", "--create-home", user)
    sh("usermod", "--append", "--groups", "sidecaml", MEMBER)
    began = time.monotonic()
    sh("systemctl", "enable", "--now", SOCKET_UNIT, SERVICE)
    return f"started in {time.monotonic() - began:.1f} s: {show('StatusText')}"


def hardened() -> str:
    """The unit's exposure is at most 0.7, and systemd finds no fault with the units."""
    for unit in (SERVICE, SOCKET_UNIT):
        said = sh("systemd-analyze", "verify", f"/etc/systemd/system/{unit}")
        assert not said, said
    text = sh(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=7",
        "--no-pager",
        "/etc/systemd/system/" + SERVICE,
    )
    return text.splitlines()[-1].strip("→ ")


def other_users() -> str:
    """A member of the group is served, somebody else cannot connect."""
    with Load() as load:
        seen = load.end_well()
    code = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect('{SOCKET}')"
    refused = sh("runuser", "-u", OUTSIDER, "--", PYTHON, "-c", code + " or print('connected')", check=False)
    assert "connected" not in refused
    return f"{MEMBER}: {seen}; {OUTSIDER} cannot connect"


def worker_killed() -> str:
    """kill -9 of each worker that serves: a standby goes on."""
    with Load() as load:
        for _ in range(3):
            victims = set(serving().values())
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            # One that is still dying would pass for one that serves.
            wait_until("the workers are over", lambda over=victims: not over & set(workers()))
            wait_until("standbys are warm again", lambda: len(workers()) == 4)
            time.sleep(0.3)
        return load.end_well()


def worker_stopped() -> str:
    """A stopped worker is ended and replaced."""
    with Load() as load:
        victim = serving()["triple"]
        os.kill(victim, signal.SIGSTOP)
        wait_until("the stopped worker is gone", lambda: victim not in workers())
        time.sleep(0.5)
        return load.end_well()


def supervisor_killed() -> str:
    """kill -9 of the supervisor: the next one has the same workers and channels."""
    with Load() as load:
        before = serving()
        for _ in range(TIMES):
            pid = main_pid()
            os.kill(pid, signal.SIGKILL)
            wait_replaced(pid)
            time.sleep(0.2)
        assert serving() == before, f"{before} served before, {serving()} now"
        return load.end_well()


def supervisor_stopped() -> str:
    """A stopped supervisor is ended by the watchdog, and replaced."""
    with Load() as load:
        before, pid = serving(), main_pid()
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        wait_replaced(pid)
        took = time.monotonic() - began
        assert serving() == before
        return f"replaced after {took:.1f} s; {load.end_well()}"


def reload() -> str:
    """A reload adds, changes and removes models; a broken file changes nothing."""
    with Load() as load:
        pid, before = main_pid(), serving()
        reload_with(CONFIGURATION + '[models.fivefold]\npath = "/srv/models/fivefold.onnx"\n')
        assert models() == {"triple", "total", "fivefold"}
        assert serving() == before
        reload_with("[models.broken\n", well=False)
        assert models() == {"triple", "total", "fivefold"}
        reload_with(CONFIGURATION.replace("[models.triple]", "[models.triple]\nlongest_run_s = 50"))
        assert models() == {"triple", "total"}
        wait_until("channels of the new instance", lambda: serving()["triple"] != before["triple"])
        assert main_pid() == pid
        return load.end_well()


def restart() -> str:
    """A restart under load fails no call and no open; workers stay."""
    with Load() as load:
        before = serving()
        for _ in range(TIMES):
            sh("systemctl", "restart", SERVICE)
            time.sleep(0.2)
        assert serving() == before
        return load.end_well()


def placement() -> str:
    """Workers run where and how they are told; what the unit does not allow is refused, and says so."""
    pinned = 'cpus = "0"\nscheduling = "batch"\nnice = 15\n'
    text = CONFIGURATION.replace("[models.triple]", f"[models.triple]\n{pinned}")
    reload_with(text + '[models.fivefold]\npath = "/srv/models/fivefold.onnx"\nscheduling = "fifo 5"\n')
    with Load() as load:
        pid = serving()["triple"]
        for thread in [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]:
            try:
                how = (
                    os.sched_getaffinity(thread),
                    os.sched_getscheduler(thread),
                    os.getpriority(os.PRIO_PROCESS, thread),
                )
            except ProcessLookupError:
                continue
            assert how == ({0}, os.SCHED_BATCH, 15), how
        refused = problem("fivefold")
        assert "LimitRTPRIO=5 in the unit" in refused, refused
        seen = load.end_well()
    reload_with(CONFIGURATION)
    return f"{seen}; refused: {refused}"


def problem(name: str) -> str:
    """Why a model is not served, once that is known."""

    def known() -> dict[str, str]:
        found = {model["name"]: model for model in ask("describe")["models"]}
        return dict(found[name]) if found[name]["state"] != "loading" else {}

    return str(wait_until(f"{name} is served, or not", known)["problem"])


def stop() -> str:
    """A stop leaves nothing, and clients are told."""
    with Load(once=True) as load:
        sh("systemctl", "stop", SOCKET_UNIT, SERVICE)
        wait_until("no process is left", lambda: not processes())
        seen = load.end()
    assert not seen["wrong"], seen
    assert all("SERVER_GONE" in failure for failure in seen["failures"]), seen
    left = [str(entry) for entry in Path("/dev/shm").iterdir()]
    assert not left, left
    assert not SOCKET.exists()
    assert show("NFileDescriptorStore") == "0"
    assert show("ActiveState") == "inactive", show("ActiveState")
    start_again()
    with Load() as load:
        load.end_well()
    return f"nothing left; clients saw {list(seen['failures'])[:2]}"


def journal_priorities() -> str:
    """Our own lines are in the journal by their priorities, without prefixes, workers' own among them."""
    victim = workers()[0]
    os.kill(victim, signal.SIGKILL)
    # One that an earlier daemon had started only "ended".
    end = rf"(worker|standby) {victim} (was killed|ended)"
    wait_until("its end is told", lambda: own_lines(end))
    for pattern, wanted in ((end, 3), ("^ready: ", 6), ("^native lane: ONNX Runtime ", 6)):
        found = {int(line["PRIORITY"]) for line in own_lines(pattern)}
        assert found == {wanted}, f"lines with {pattern!r} have {found or 'nothing'} and not {wanted}"
    lines = own_lines()
    prefixed = [line["MESSAGE"] for line in lines if str(line["MESSAGE"]).startswith("<")]
    assert not prefixed, prefixed[:3]
    return f"{len(lines)} lines of our own, of priorities {sorted({int(line['PRIORITY']) for line in lines})}"


def own_lines(pattern: str = "") -> list[dict[str, Any]]:
    """Find lines of the service's processes: what systemd says of the service is not ours."""
    lines = journal(_SYSTEMD_UNIT=SERVICE, _TRANSPORT="stdout")
    return [line for line in lines if re.search(pattern, str(line["MESSAGE"]))]


def start_again() -> None:
    """Start the service after a stop.

    On a host with control groups of version 1, systemd 257 may look for the group that it has just removed,
    and fail the unit for good.
    """
    for _ in range(3):
        time.sleep(1.0)
        sh("systemctl", "reset-failed", SERVICE, check=False)
        sh("systemctl", "start", SERVICE, check=False)
        if ready():
            return
    raise AssertionError(f"the service does not start again: {show('Result')}")


def reload_with(text: str, *, well: bool = True) -> None:
    """Write a configuration, and have it read."""
    CONFIG.write_text(text)
    times = said("configuration")
    sh("systemctl", "reload", SERVICE)
    wait_until("it is read", lambda: said("configuration") > times and ready())
    assert bool(journal()[-1]) and well == ("stays as it was" not in last("configuration")), last(
        "configuration"
    )


def said(text: str) -> int:
    return sum(text in str(line.get("MESSAGE")) for line in journal())


def last(text: str) -> str:
    return [str(line["MESSAGE"]) for line in journal() if text in str(line.get("MESSAGE"))][-1]


def models() -> set[str]:
    return {model["name"] for model in ask("describe")["models"]}


def wait_replaced(pid: int) -> None:
    wait_until("another supervisor is ready", lambda: main_pid() not in (0, pid) and ready())


def ready() -> bool:
    return show("ActiveState") == "active" and show("SubState") == "running"


SCENARIOS = [
    install,
    hardened,
    other_users,
    worker_killed,
    worker_stopped,
    supervisor_killed,
    supervisor_stopped,
    reload,
    restart,
    placement,
    stop,
    journal_priorities,
]


def main() -> int:
    chosen = [scenario for scenario in SCENARIOS if scenario.__name__ in sys.argv[1:] or len(sys.argv) == 1]
    if install not in chosen:
        chosen.insert(0, install)
    failed = []
    for scenario in chosen:
        began = time.monotonic()
        try:
            outcome = f"ok: {scenario()}"
        except Exception:
            failed.append(scenario.__name__)
            outcome = f"FAILED\n{traceback.format_exc()}"
        print(f"{scenario.__name__} ({time.monotonic() - began:.1f} s): {outcome}", flush=True)
    if failed:
        print(sh("journalctl", "--no-pager", "--lines", "60", "--unit", SERVICE, check=False))
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

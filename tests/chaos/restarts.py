"""The supervisor is restarted, then killed, again and again under load: no call may fail.

Runs as root where sidecaml is a service of systemd and its wheel is installed: `make chaos-systemd` boots
such a machine. What it needs of the repository lies beside it: this package, the models, the OCaml client.
"""

from __future__ import annotations

import argparse
import bisect
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon_process import is_alive, open_descriptors, wait_until

from chaos import catalogue, fleet
from chaos.fleet import Call, Fleet, Life, wait_open
from chaos.recovery import percentile

UNIT = "sidecaml.service"
SETTINGS = Path("/etc/sidecaml/sidecaml.toml")
SOCKET = Path("/run/sidecaml/sidecaml.sock")
FOLDER = Path(__file__).resolve().parents[1]
EVERY_S = 1.0
WAYS = {"restarted": ["restart"], "killed": ["kill", "--kill-whom=main", "--signal=SIGKILL"]}
ROUNDS_OF_AN_OPENER = 5
# Whose tensors are copied by the daemon, and whose are used in place: root's.
STRANGERS = ("network", "trailing")
MEMBER, GROUP = "chaos", "sidecaml"
LINES = 5
# No call lasts longer: its client gives up.
LONGEST_NS = 60_000_000_000
PROGRESS = 25
# Workers load meanwhile, on a machine that may have little time for it.
AT_REST_S = SETTLE_S = 90.0
QUIET_S = 10.0


@dataclass
class Blow:
    """What was done to the supervisor, and how long it took to be back."""

    way: str
    at_ns: int
    back_ns: int


class Opener:
    """A client that opens, asks a little, and ends, over and over: somebody opens at every moment."""

    def __init__(self, clients: Fleet) -> None:
        """Know how to start it."""
        self._fleet = clients
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def lives(self) -> list[Life]:
        """Every life of it."""
        return self._fleet.lives

    def __enter__(self) -> Opener:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the last come to its end."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            life = self._fleet.start("doubled", rounds=ROUNDS_OF_AN_OPENER)
            life.process.wait()
            self._fleet.bury(life)


def systemctl(*words: str) -> str:
    """Ask systemd."""
    return subprocess.run(["systemctl", *words], check=True, capture_output=True, text=True).stdout.strip()


def shown(what: str) -> str:
    """Read one property of the service."""
    return systemctl("show", "--value", f"--property={what}", UNIT)


def is_served_by_another(than: str) -> bool:
    """Whether the service has a main process other than that one, and it said that it is ready."""
    return shown("ActiveState") == "active" and shown("MainPID") not in {than, "0"}


def workers() -> set[int]:
    """Find the workers, whoever started them."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"ipc_server.worker" in words and is_alive(int(entry.name)):
            found.add(int(entry.name))
    return found


def held() -> dict[str, int]:
    """Count what the service holds."""
    return {
        "workers": len(workers()),
        "descriptors of the supervisor": len(open_descriptors(int(shown("MainPID")))),
        "descriptors in the store": int(shown("NFileDescriptorStore")),
        "names in shared memory": len(list(Path("/dev/shm").glob("sidecaml*"))),
    }


def at_rest() -> dict[str, int]:
    """Wait until every standby is warm, and nothing changes any more; what the service holds then."""
    now, since = held(), time.monotonic()
    end = since + SETTLE_S
    while time.monotonic() < min(end, since + QUIET_S) or now["workers"] != 2 * len(catalogue.JOBS):
        if time.monotonic() > end:
            raise AssertionError(f"not at rest within {SETTLE_S} s: {now}")
        time.sleep(0.2)
        if (found := held()) != now:
            now, since = found, time.monotonic()
    return now


def leaks(base: dict[str, int]) -> list[str]:
    """Wait until the service holds no more than before, and as many workers; what is wrong after that.

    It may hold less: a supervisor has descriptors of its own for workers that it started itself.
    """
    end = time.monotonic() + AT_REST_S
    while (found := _more(base, held())) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _more(base: dict[str, int], now: dict[str, int]) -> list[str]:
    wrong = [
        what for what in base if now[what] > base[what] or (what == "workers" and now[what] < base[what])
    ]
    return [f"{what}: {base[what]} before, {now[what]} after" for what in wrong]


def survivors() -> set[int]:
    """Find workers that outlive the service by more than a moment."""
    end = time.monotonic() + AT_REST_S
    while (found := workers()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def strike(way: str, times: int, clients: Fleet) -> list[Blow]:
    """Do that to the supervisor so often, once a second where it is back by then."""
    blows = []
    for _ in range(times):
        main = shown("MainPID")
        at_ns = time.monotonic_ns()
        systemctl(*WAYS[way], UNIT)
        wait_until("the supervisor is back", lambda m=main: is_served_by_another(m))
        blows.append(Blow(way, at_ns, time.monotonic_ns()))
        while time.monotonic_ns() < at_ns + EVERY_S * 1e9:
            time.sleep(0.005)
        if len(blows) % PROGRESS == 0:
            print(f"{way}: {len(blows)} of {times}", flush=True)
        if clients.fallen():
            # Its last words are in the report.
            break
    return blows


def slowest(blow: Blow, calls: list[Call]) -> int:
    """Find the slowest call from a blow until the supervisor was back; they come as they ended."""
    met = []
    for call in calls[bisect.bisect_left(calls, blow.at_ns, key=lambda call: call.end_ns) :]:
        if call.end_ns > blow.back_ns + LONGEST_NS:
            break
        if call.start_ns <= blow.back_ns:
            met.append(call.end_ns - call.start_ns)
    return max(met, default=0)


def figures(way: str, blows: list[Blow], lives: list[Life]) -> dict[str, Any]:
    """Sum up what one way of ending the supervisor cost."""
    calls = sorted((call for life in lives for call in life.slow_calls()), key=lambda call: call.end_ns)
    costs = [max(slowest(blow, calls), fleet.SLOW_US * 1000) for blow in blows]
    away = [blow.back_ns - blow.at_ns for blow in blows]
    return {
        "way": way,
        "times": len(blows),
        **{f"slowest_call_{name}_ms": round(percentile(costs, share), 2) for name, share in SHARES.items()},
        **{f"away_{name}_ms": round(percentile(away, share), 1) for name, share in SHARES.items()},
    }


SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def failures(lives: list[Life]) -> list[str]:
    """Say what failed, opening included."""
    return [
        f"{life.files.name}: {life.words()[:500] or 'no word'}"
        for life in lives
        if life.process.returncode
        or life.counters.wrong
        or life.counters.crashed
        or life.counters.submitted != life.counters.answered
    ]


def hire(*fleets: Fleet) -> None:
    """Let half of the clients belong to a user of the group, whom the daemon does not trust."""
    subprocess.run(["useradd", MEMBER], check=True)
    for one in fleets:
        one.users = dict.fromkeys(STRANGERS, (MEMBER, GROUP))


def install(folder: Path) -> None:
    """Put the settings of the service in place and start it."""
    settings = catalogue.configuration(folder, {"max_attempts": 7}, standbys=1)
    SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    settings += f"[access]\ngroups = ['{GROUP}']\n"
    SETTINGS.write_text(settings, encoding="utf-8")
    systemctl("enable", "--now", "sidecaml.socket", UNIT)


def run(times: int, folder: Path, seed: int) -> dict[str, Any]:
    """Start the service and its clients, end its supervisor in both ways, and see what is left."""
    install(FOLDER)
    catalogue.write_table(FOLDER, folder / catalogue.TABLE)
    clients = Fleet(SOCKET, folder, random.Random(seed))
    opening = Fleet(SOCKET, folder, random.Random(seed), first_number=100_000)
    opener = Opener(opening)
    hire(clients, opening)
    for job in catalogue.JOBS:
        clients.start(job)
    wait_open(clients.lives, 60.0)
    base, crew = at_rest(), workers()
    with opener:
        blows = {way: strike(way, times, clients) for way in WAYS}
    left = leaks(base)
    kept = len(crew & workers())
    clients.end()
    everybody = [*clients.lives, *opener.lives]
    systemctl("stop", "sidecaml.socket", UNIT)
    left += [f"worker {pid}" for pid in survivors()]
    left += [f"{path} in shared memory" for path in Path("/dev/shm").glob("sidecaml*")]
    return {
        "seed": seed,
        "blows": [figures(way, ones, clients.lives) for way, ones in blows.items()],
        "requests": {life.job: life.counters.answered for life in clients.lives},
        "opens": len(opener.lives),
        "held": base,
        "workers_kept": f"{kept} of {len(crew)}",
        "failed": failures(everybody),
        "left": left,
    }


def text(found: dict[str, Any]) -> str:
    """Show the figures to people."""
    lines = [
        f"{'supervisor':<12}{'times':>6}   slowest call, ms: p50, p99, max      away, ms: p50, p99, max",
        *(
            f"{row['way']:<12}{row['times']:>6}   "
            + "".join(f"{row[f'slowest_call_{name}_ms']:>10.1f}" for name in SHARES)
            + "   "
            + "".join(f"{row[f'away_{name}_ms']:>10.0f}" for name in SHARES)
            for row in found["blows"]
        ),
        "answered requests: " + ", ".join(f"{job} {count:,}" for job, count in found["requests"].items()),
        f"channels opened, used and closed meanwhile: {found['opens']}; workers that lived through it: "
        f"{found['workers_kept']}; held as before: {found['held']}",
        f"failed: {len(found['failed'])}",
        *found["failed"][:LINES],
        f"left: {len(found['left'])}",
        *found["left"][:LINES],
    ]
    return "\n".join(lines)


def main() -> int:
    """Run; 1 when a call failed or something is left."""
    parser = argparse.ArgumentParser(prog="chaos.restarts", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="how often, each way (default: 100)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    chosen = parser.parse_args()
    fleet.environment_check()
    with tempfile.TemporaryDirectory(prefix="sidecaml-chaos-") as folder:
        # Clients of another user write there, too; nobody else is on the machine.
        Path(folder).chmod(0o777)
        found = run(chosen.times, Path(folder), chosen.seed)
    print(re.sub(r"(?m)^", "chaos: ", text(found)), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if found["failed"] or found["left"] else 0


if __name__ == "__main__":
    sys.exit(main())

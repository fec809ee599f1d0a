#!/usr/bin/env python3
"""Explores slot_life.pml: the model must hold, and each of its mistakes must be found. One line each."""

import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MODEL = Path(__file__).with_name("slot_life.pml")
LONGEST_S = 1800

# Small enough to be explored whole, each with another part of the story in full.
CONFIGURATIONS = {
    "deaths of workers": "WORKER_DEATHS=2 CLIENT_DEATHS=0 REQUESTS=3 GIVE_UP=0",
    "giving up, runs of two": "WORKER_DEATHS=1 CLIENT_DEATHS=0 REQUESTS=2 GIVE_UP=3 BATCH=2",
    "giving up while workers die": "WORKER_DEATHS=2 CLIENT_DEATHS=0 REQUESTS=2 GIVE_UP=1 SLOTS=1",
    "a client's death": "WORKER_DEATHS=1 CLIENT_DEATHS=1 REQUESTS=2 GIVE_UP=1 SLOTS=1",
    "two channels": "WORKER_DEATHS=0 CLIENT_DEATHS=0 REQUESTS=1 GIVE_UP=0 SLOTS=1 CHANNELS=2",
    "runs of two while workers die": "WORKER_DEATHS=2 CLIENT_DEATHS=0 REQUESTS=2 GIVE_UP=0 BATCH=2",
    "runs of two that fail": "WORKER_DEATHS=1 CLIENT_DEATHS=0 REQUESTS=2 GIVE_UP=0 BATCH=2 RUNS_FAIL=1",
    # Ticket 1: REFUSED is a set.
    "one refused of three": "WORKER_DEATHS=1 CLIENT_DEATHS=0 REQUESTS=3 GIVE_UP=0 SLOTS=3 BATCH=2 REFUSED=2",
    "the model is gone": "WORKER_DEATHS=1 CLIENT_DEATHS=0 REQUESTS=2 GIVE_UP=1 SLOTS=1 GONE=1",
}
# Each mistake, and where it is found soonest.
MISTAKES = {
    "COMMIT_AFTER_DONE": "deaths of workers",
    "NO_POST_AT_RESUME": "deaths of workers",
    "POSTS_ONLY_IF_WAITING": "deaths of workers",
    "SKIPS_RUNNING": "deaths of workers",
    "STARTED_AFTER_RUN": "deaths of workers",
    "STARTED_BEFORE_TAKE": "deaths of workers",
    "RUNS_COMMITTED_AGAIN": "deaths of workers",
    "STATE_IN_PLACE": "deaths of workers",
    "TAKES_OVER_FROM_THE_LIVING": "deaths of workers",
    "CLIENT_LOOKS_BEFORE_FLAG": "giving up, runs of two",
    "WORKER_LOOKS_BEFORE_FLAG": "giving up, runs of two",
    "DONE_BLINDLY": "giving up, runs of two",
    "ABANDONED_STAYS": "giving up while workers die",
    "FORGETS_THE_DEAD": "a client's death",
    "START_OF_BATCH_NOT_NOTED": "runs of two while workers die",
    "STARTED_WITH_THE_FIRST": "runs of two while workers die",
    "COMMITTED_WITH_THE_FIRST": "runs of two while workers die",
    "FINISHED_NOT_STEPPED_OVER": "runs of two while workers die",
    "SUSPECTS_TOGETHER": "runs of two while workers die",
    "WAKES_BEFORE_THE_LAST": "runs of two while workers die",
}


def explore(settings: str, mistake: str = "") -> tuple[str, str]:
    """Explore one variant; the error that was found ("" for none) and how much was looked at."""
    defines = [f"-D{setting}" for setting in settings.split()] + ([f"-DMUTANT_{mistake}"] if mistake else [])
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sidecaml-verify-") as folder:
        call(folder, "spin", "-a", *defines, str(MODEL))
        # A mistake is found long before a compiler has done its best.
        call(folder, "gcc", "-O0" if mistake else "-O2", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c")
        report = call(folder, "./pan", "-m100000")
        found = re.search(r"^pan:1: (.*)", report, re.MULTILINE)
        if "max search depth too small" in report or not re.search(r"errors: \d", report):
            raise SystemExit(f"the search did not come to its end:\n{report}")
        if found and not mistake:
            print(call(folder, "spin", "-t", "-p", *defines, str(MODEL)), file=sys.stderr)
    states = re.search(r"(\d+) states, stored", report)
    looked = f"{int(states[1]) if states else 0:,} states, {time.monotonic() - began:.1f} s"
    return found[1] if found else "", looked


def call(folder: str, *command: str) -> str:
    """Run a command to its end; what it printed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def check(name: str, settings: str, mistake: str = "") -> bool:
    """Explore one variant and print its line; whether it came out as it must."""
    error, looked = explore(settings, mistake)
    passed = bool(error) == bool(mistake)
    what = f'mistake "{name}"' if mistake else name
    outcome = f"found: {error}" if error else "nothing found" if mistake else "holds"
    print(f"{'ok' if passed else 'FAILED'} {what}: {outcome} ({looked})", flush=True)
    return passed


def main() -> int:
    """Check everything, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = [pool.submit(check, name, settings) for name, settings in CONFIGURATIONS.items()]
        for mistake, where in MISTAKES.items():
            name = mistake.replace("_", " ").lower()
            checks.append(pool.submit(check, name, CONFIGURATIONS[where], mistake))
        return 0 if all([one.result() for one in checks]) else 1


if __name__ == "__main__":
    sys.exit(main())

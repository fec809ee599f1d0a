"""What a run has shown, for people and as JSON."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from chaos import catalogue
from chaos.campaign import MOST_GROWTH, Run
from chaos.fleet import SLOW_US, Life
from chaos.recovery import Felt, felt, linked, overlaps, percentile
from chaos.strikes import ROLES, Strike

GOAL_MS = 50.0
WORST = 5


def problems(run: Run) -> dict[str, list[str]]:
    """Say what is wrong, by kind; nothing at all if the run was good."""
    lives = run.lives
    ended = [life for life in lives if not life.killed]
    return {
        "wrong answers": [_told(life) for life in lives if life.counters.wrong],
        "lost": [_told(life) for life in ended if _lost(life)]
        + [f"{_told(life)} (ended by itself)" for life in run.fallen if not _lost(life)],
        "no wake-up": run.stalls,
        "answered with an error": [_told(life) for life in lives if life.counters.crashed],
        "leaks": _leaks(run),
    }


def _lost(life: Life) -> int:
    counters = life.counters
    return counters.submitted - counters.answered - counters.crashed + counters.failed


def _told(life: Life) -> str:
    return f"{life.files.name}: {life.words()[:1000] or 'no word'}"


def _leaks(run: Run) -> list[str]:
    found = list(run.left)
    if run.base and run.after:
        found += run.after.leaks(run.base)
    elif not run.left:
        found.append("nobody looked")
    if run.late_bytes - run.early_bytes > MOST_GROWTH:
        found.append(f"the supervisor's memory: {run.early_bytes} bytes, then {run.late_bytes}")
    found += [
        f"worker {strike.pid} of {strike.model} was stopped and never found"
        for strike in run.strikes
        if strike.how == "stop" and strike.role != "client" and not strike.found_ns
    ]
    return found


def summary(run: Run) -> dict[str, Any]:
    """Give every figure."""
    found = recoveries(run)
    return {
        "seed": run.seed,
        "standbys": run.standbys,
        "seconds": round(run.seconds, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "strikes": len(run.strikes),
        "victims": {
            f"{role} {how}": _count(run.strikes, role, how) for role in ROLES for how in ("kill", "stop")
        },
        "clients": len(run.lives),
        "requests": {
            job: sum(life.counters.answered for life in run.lives if life.job == job)
            for job in catalogue.JOBS
        },
        "recovery_ms": {what: _figures(ones) for what, ones in found.items()},
        "worst": [
            {"ms": round(one.ns / 1e6, 1), "model": one.strike.model, "killed_at": _clock(one.strike.at_ns)}
            for one in sorted(found["worker, kill: a standby is warm"], key=lambda one: -one.ns)[:WORST]
        ],
        "stopped_worker_found_ms": _spread(
            [strike.found_ns - strike.at_ns for strike in run.strikes if strike.found_ns]
        ),
        "supervisor_bytes": [run.early_bytes, run.late_bytes],
        "base": asdict(run.base) if run.base else None,
        "problems": problems(run),
    }


def _clock(ns: int) -> str:
    """Give a time of CLOCK_MONOTONIC as the daemon's log has it."""
    moment = datetime.fromtimestamp((time.time_ns() - time.monotonic_ns() + ns) / 1e9)
    return moment.isoformat(" ", "milliseconds")


def _count(strikes: Sequence[Strike], role: str, how: str) -> int:
    return sum(strike.role == role and strike.how == how for strike in strikes)


def recoveries(run: Run) -> dict[str, list[Felt]]:
    """Sort what was felt of the strikes at workers by what they met."""
    calls = {id(life): life.slow_calls() for life in run.lives}
    found = [felt(strike, run.lives, calls) for strike in run.strikes if strike.role != "client"]
    active = [one for one in found if one.strike.role == "active"]
    ready = linked(active)
    sorted_ones: dict[str, list[Felt]] = {}
    for how in ("kill", "stop"):
        for has, words in ((True, "a standby is warm"), (False, "no standby is warm yet")):
            sorted_ones[f"worker, {how}: {words}"] = [
                one for i, one in enumerate(active) if one.strike.how == how and ready[i] is has
            ]
    sorted_ones["standby, kill or stop"] = [
        one for one in found if one.strike.role == "standby" and not overlaps(one, active)
    ]
    return sorted_ones


def _figures(ones: Sequence[Felt]) -> dict[str, Any]:
    heard = [one.ns for one in ones if not one.unheard]
    return {"strikes": len(ones), "unheard": len(ones) - len(heard), **_spread(heard)}


def _spread(values: Sequence[int]) -> dict[str, Any]:
    if not values:
        return {"count": 0}
    # A call without a line of its own was faster than this.
    shown = [max(value, SLOW_US * 1000) for value in values]
    return {
        "count": len(values),
        "p50": round(percentile(shown, 0.5), 2),
        "p99": round(percentile(shown, 0.99), 2),
        "max": round(max(shown) / 1e6, 2),
    }


def text(figures: dict[str, Any]) -> str:
    """Show the figures to people."""
    victims = figures["victims"]
    lines = [
        f"chaos: {figures['strikes']} killed or stopped in {figures['seconds']:.0f} s, "
        f"seed {figures['seed']}, {figures['standbys']} standby a model",
        "",
        f"{'victim':<10}{'killed':>8}{'stopped':>9}",
        *(f"{_NAMES[role]:<10}{victims[f'{role} kill']:>8}{victims[f'{role} stop']:>9}" for role in ROLES),
        "",
        f"{figures['clients']} client processes, answered requests: "
        + ", ".join(f"{job} {number:,}" for job, number in figures["requests"].items()),
        "",
        f"{'slowest call at a strike, ms':<42}{'strikes':>8}{'p50':>9}{'p99':>9}{'max':>9}",
    ]
    lines += [_row(what, row) for what, row in figures["recovery_ms"].items()]
    lines += [
        f"(calls under {SLOW_US / 1000} ms count as {SLOW_US / 1000}; strikes whose client was itself dead "
        "or stopped are left out)",
        "",
        _row("a stopped worker or standby is ended after", figures["stopped_worker_found_ms"]),
        "supervisor's memory: "
        + " -> ".join(f"{size / 2**20:.1f} MiB" for size in figures["supervisor_bytes"]),
        "",
    ]
    for what, ones in figures["problems"].items():
        lines += [f"{what}: {len(ones)}", *(f"    {one}" for one in ones[:5])]
    return "\n".join(lines)


_NAMES = {"active": "worker", "standby": "standby", "client": "client"}


def _row(what: str, row: dict[str, Any]) -> str:
    if not row["count"]:
        return f"{what:<42}{0:>8}"
    return f"{what:<42}{row['count']:>8}{row['p50']:>9.1f}{row['p99']:>9.1f}{row['max']:>9.1f}"


def goal_line(figures: dict[str, Any]) -> str:
    """Say whether the goal is met: it is reported, not asserted."""
    row = figures["recovery_ms"]["worker, kill: a standby is warm"]
    if not row["count"]:
        return "goal: no kill met a warm standby"
    met = "met" if row["p99"] < GOAL_MS else "MISSED"
    goal = f"p99 of the slowest call at a kill with a standby under {GOAL_MS:g} ms"
    return f"goal, {goal}: {met} ({row['p99']} ms)"

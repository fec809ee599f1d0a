"""What was measured: rows as in bench/results/latest.json, and a table of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc_server import messages
from ipc_server.abi import Policy
from ipc_server.bench.client import Result
from ipc_server.bench.cost import Cost
from ipc_server.bench.percentiles import PERCENTILES, summary
from ipc_server.bench.plan import Plan, Turn

Row = dict[str, Any]
Results = Sequence[tuple[Result, NDArray[np.uint64]]]

_RATIOS = ("ratio_to_ffi_locked_p50", "ratio_to_floor_p50")
_TITLES = (
    "offered/s",
    "answered/s",
    "p50 us",
    "p90 us",
    "p99 us",
    "p99.9 us",
    "max us",
    "answered",
    "failed",
)


def row_of(plan: Plan, rate: float, turn: Turn, results: Results, cost: Cost | None) -> Row:
    """Make a row of one load: all clients together, and each under `per_client`."""
    alone = [result for result, _ in results]
    outcomes: Counter[str] = Counter()
    for result in alone:
        outcomes.update(result.outcomes)
    percentiles = _summary(np.concatenate([samples for _, samples in results]))
    loop = f"open-{rate:g}" if rate else "closed"
    each = f"{plan.channels}x{plan.window}" if plan.channels > 1 else f"{plan.window}"
    row: Row = {"path": "load", "model": plan.model, "caller": f"{loop}-{plan.clients}x{each}"}
    row |= percentiles
    row |= {f"{name}{end}": None for name in _RATIOS for end in ("", "_min", "_max")}
    row |= {"runs": 1, "policy": plan.policy.name.lower()}
    row |= {"spinning": ["client"] if plan.policy is Policy.SPIN else [], "cores": plan.clients + 1}
    row |= {"per_run": [percentiles]}
    row |= _load(plan, rate)
    answered = outcomes["OK"]
    span_ns = max(max(result.ended_ns, result.answered_ns) for result in alone) - turn.measure_ns
    row |= {"answered_per_s": round(answered * 1e9 / span_ns, 1) if span_ns > 0 else 0.0}
    row |= {"outcomes": dict(sorted(outcomes.items())), "failed": outcomes.total() - answered}
    row |= {"unsent": sum(r.unsent for r in alone), "wrong": sum(r.wrong for r in alone)}
    row |= _deadlines(plan, results)
    row |= _costs(sum(result.cpu_ns for result in alone), cost, answered)
    row |= {"stopped": any(r.stopped for r in alone), "full": any(r.full for r in alone)}
    row |= {"gone": next((result.gone for result in alone if result.gone), None)}
    return row | {
        "per_client": [
            {**_summary(samples), "outcomes": r.outcomes, "unsent": r.unsent, "wrong": r.wrong}
            for r, samples in results
        ]
    }


def _summary(samples: NDArray[np.uint64]) -> dict[str, int | None]:
    return {**summary(samples)} if len(samples) else {"n": 0, **dict.fromkeys(PERCENTILES)}


def _deadlines(plan: Plan, results: Results) -> Row:
    """Count what was answered, but after its deadline, and tell whose doing that was; None without one."""
    if not plan.deadline_ns:
        return dict.fromkeys(("late", "late_by_worker", "read_late", "sent_late", "no_slot"))
    late = count_beyond([samples for _, samples in results], plan.deadline_ns)
    by_worker = sum(result.late_by_worker for result, _ in results)
    return {
        "late": late,
        "late_by_worker": by_worker,
        "read_late": late - by_worker,
        "sent_late": sum(result.sent_late for result, _ in results),
        "no_slot": sum(result.no_slot for result, _ in results),
    }


def count_beyond(samples: Sequence[NDArray[np.uint64]], bound_ns: int) -> int:
    """Count the requests that took longer."""
    return sum(int(np.count_nonzero(each > bound_ns)) for each in samples)


def _load(plan: Plan, rate: float) -> Row:
    return {
        "loop": "open" if rate else "closed",
        "clients": plan.clients,
        "channels": plan.channels,
        "window": plan.window,
        "burst": plan.burst,
        "priority": plan.priority,
        "seconds": plan.seconds,
        "warm_up_s": plan.warm_up,
        "seed": plan.seed,
        "dims": plan.dims,
        "deadline_ns": plan.deadline_ns or None,
        "checked": plan.check,
        "offered_per_s": rate or None,
    }


def _costs(clients_ns: int, cost: Cost | None, answered: int) -> Row:
    """Give what a request took of the processors, and how many were run together."""
    workers, daemon = (cost.workers_cpu_ns, cost.daemon_cpu_ns) if cost else (None, None)
    shares = (("client_cpu_ns", clients_ns), ("worker_cpu_ns", workers), ("daemon_cpu_ns", daemon))
    row: Row = {
        name: None if spent is None or not answered else round(spent / answered, 1) for name, spent in shares
    }
    counts = ("served", "batches", "batched", "refused")
    return row | {name: getattr(cost, name) if cost else None for name in counts}


def is_sustained(samples: Sequence[NDArray[np.uint64]], row: Row, bound_ns: int) -> bool:
    """Whether 99 of 100 requests were answered within the bound, counted from when they were to start.

    What failed, and what found no free slot until the end, was not. So the answers keep up with the rate.
    """
    lost = row["failed"] + row["unsent"]
    return bool((count_beyond(samples, bound_ns) + lost) * 100 <= row["n"] + lost)


# --- For people ---------------------------------------------------------------------------------------------


def title(plan: Plan) -> str:
    """Say what is run."""
    clients = f"{plan.clients} client{'s' if plan.clients > 1 else ''}"
    each = f" of {plan.channels} channels" if plan.channels > 1 else ""
    parts = [
        f"{plan.model}: {clients}{each}, {plan.window} in flight each",
        f"policy {plan.policy.name.lower()}",
    ]
    if plan.priority != messages.NORMAL:
        parts.append(f"priority {plan.priority}")
    if plan.dims:
        parts.append(", ".join(f"{name}={size}" for name, size in plan.dims.items()))
    if plan.deadline_ns:
        parts.append(f"deadline {plan.deadline_ns / 1e3:g} us")
    return ", ".join([*parts, f"{plan.seconds:g} s after {plan.warm_up:g} s of warm-up, seed {plan.seed}"])


def head() -> str:
    """Give the table's first line."""
    return _line(_TITLES)


def line(row: Row) -> str:
    """Give a row's line in the table."""
    times = ["-" if row[name] is None else f"{row[name] / 1e3:,.1f}" for name in PERCENTILES]
    offered = f"{row['offered_per_s']:,.0f}" if row["offered_per_s"] else "-"
    counts = [f"{row['n']:,}", f"{row['failed'] + row['unsent']:,}"]
    return _line([offered, f"{row['answered_per_s']:,.0f}", *times, *counts])


def _line(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:>11}" for cell in cells)


def remarks(row: Row) -> list[str]:
    """Say what the table has no place for: outcomes, wrong answers, costs, and why it ended early."""
    return [*_endings(row), *_failures(row), *_spent(row)]


def _endings(row: Row) -> list[str]:
    found = []
    if row["gone"] is not None:
        found.append(f"the channel ended: {row['gone']}")
    if row["stopped"]:
        found.append("interrupted: this is what was measured until then")
    if row["full"]:
        found.append("ended early: there is no room for more samples")
    return found


def _failures(row: Row) -> list[str]:
    found = [f"{name}: {count:,} requests" for name, count in row["outcomes"].items() if name != "OK"]
    found += _late(row)
    if row["unsent"]:
        found.append(f"not sent: {row['unsent']:,} requests found no free slot before the end")
    if row["wrong"]:
        found.append(f"WRONG: {row['wrong']:,} answers differ from those to the same inputs alone")
    elif row["checked"]:
        found.append("every answer was, bit for bit, that to the same inputs alone")
    return found


def _late(row: Row) -> list[str]:
    """Say what the server has to do with deadlines that were missed, and what the client."""
    says = (
        ("no_slot", "of TIMEOUT, {:,} found no free slot until their deadline"),
        ("sent_late", "sent late: {:,} requests, after their deadline: their client was not run in time"),
        ("late_by_worker", "late: {:,} requests were answered by the worker after their deadline"),
        ("read_late", "read late: {:,} answers were there in time, and their client was not run in time"),
    )
    return [text.format(row[name]) for name, text in says if row[name]]


def _spent(row: Row) -> list[str]:
    shares = (("client_cpu_ns", "clients"), ("worker_cpu_ns", "workers"), ("daemon_cpu_ns", "daemon"))
    spent = [f"{who} {row[name] / 1e3:,.2f} us" for name, who in shares if row[name] is not None]
    found = [f"processor time a request: {', '.join(spent)}"] if spent else []
    if row["batches"]:
        size = row["batched"] / row["batches"]
        share = row["batched"] / max(row["served"], 1)
        found.append(f"{row['batches']:,} batches of {size:.1f} requests, {share:.0%} of all requests")
    return found

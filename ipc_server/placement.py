"""Where a worker runs, and by which rules the kernel gives it a processor: checked, shown and applied.

It holds for every thread of the process: those that there are get it here, later ones inherit it.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipc_server import orders
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

# More than any kernel is built for.
MOST_CPUS = 8192
LOWEST_NICE, HIGHEST_NICE = 19, -20
_REAL_TIME = {"fifo": os.SCHED_FIFO, "rr": os.SCHED_RR}
_POLICIES = {"other": os.SCHED_OTHER, "batch": os.SCHED_BATCH, **_REAL_TIME}
_SCHEDULING = re.compile(r"other|batch|(?:fifo|rr) (?:[1-9][0-9]?)")
_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
# What RLIMIT_NICE counts from.
_NICE_LIMIT_BASE = 20


@dataclass(frozen=True)
class Placement:
    """What a model's configuration says; what it leaves out stays as the worker was started."""

    cpus: str = ""
    scheduling: str = ""
    nice: int | None = None

    def describe(self) -> dict[str, Any]:
        """Give what `placement_of` reads."""
        return {"cpus": self.cpus, "scheduling": self.scheduling, "nice": self.nice}

    def settle(self) -> None:
        """Have this process run where it should. SYSTEM when machine or service manager do not allow that.

        Nor will they allow the policy then, which is only tried here: a model that loads at a real-time
        priority would keep the worker that serves, on the same processor, from its requests.
        """
        if self.cpus:
            _pin(self.cpus)
        if self.nice is not None:
            _be_nice(self.nice)
        if self.scheduling:
            before = os.sched_getscheduler(0), os.sched_getparam(0)
            _schedule([0], self.scheduling)
            os.sched_setscheduler(0, *before)

    def begin(self) -> None:
        """Have it run by its policy, from now on when it serves. SYSTEM as above."""
        if self.scheduling:
            _schedule(_threads(), self.scheduling)


def placement_of(body: Mapping[str, Any]) -> Placement:
    """Read a placement out of a request; PROTOCOL when it is none."""
    try:
        return Placement(
            cpus_text(orders.field(body, "cpus", str)),
            scheduling_text(orders.field(body, "scheduling", str)),
            None if body.get("nice") is None else orders.field(body, "nice", int),
        )
    except ValueError as error:
        raise orders.bad(f"expected {error}") from None


def cpus_text(value: object) -> str:
    """Check a list of processors such as "2-3,5", and put it in order; empty means that none was given."""
    return "" if value == "" else _text_of(_cpus_in(value))


def scheduling_text(value: object) -> str:
    """Check a scheduling policy; empty means that none was given."""
    if value != "" and not (isinstance(value, str) and _SCHEDULING.fullmatch(value)):
        raise ValueError("'other', 'batch', 'fifo N' or 'rr N', where N is a priority from 1 to 99")
    return str(value)


def is_real_time(scheduling: str) -> bool:
    """Whether a policy comes before all that is not real-time, and knows no nice value."""
    return scheduling.partition(" ")[0] in _REAL_TIME


def _cpus_in(value: object) -> set[int]:
    expected = f"a list of processors such as '2-3,5', each from 0 to {MOST_CPUS - 1}"
    cpus: set[int] = set()
    for part in value.split(",") if isinstance(value, str) else [""]:
        matched = _RANGE.fullmatch(part.strip())
        first, last = (matched[1], matched[2] or matched[1]) if matched else (1, 0)
        if int(first) > int(last) or int(last) >= MOST_CPUS:
            raise ValueError(expected)
        cpus.update(range(int(first), int(last) + 1))
    return cpus


def _text_of(cpus: set[int]) -> str:
    texts = []
    for first in sorted(cpu for cpu in cpus if cpu - 1 not in cpus):
        last = first
        while last + 1 in cpus:
            last += 1
        texts.append(str(first) if first == last else f"{first}-{last}")
    return ",".join(texts)


def _pin(text: str) -> None:
    wanted = _cpus_in(text)
    # The kernel takes what it allows of a set and says nothing of the rest; of all, it allows what there is.
    os.sched_setaffinity(0, range(MOST_CPUS))
    allowed = os.sched_getaffinity(0)
    if not wanted <= allowed:
        raise _refused(
            f"cpus = {text}",
            f"the worker may use processors {_text_of(allowed)} only, by the machine and by the daemon's "
            "control group (AllowedCPUs= in the unit, cpuset.cpus)",
        )
    _each(_threads(), lambda thread: os.sched_setaffinity(thread, wanted))


def _be_nice(nice: int) -> None:
    try:
        _each(_threads(), lambda thread: os.setpriority(os.PRIO_PROCESS, thread, nice))
    except PermissionError:
        limit, _ = resource.getrlimit(resource.RLIMIT_NICE)
        now = os.getpriority(os.PRIO_PROCESS, 0)
        least = min(_NICE_LIMIT_BASE - limit, now)
        why = f"the daemon runs at {now}, and may go no lower than {least}: LimitNICE={nice} in the unit"
        raise _refused(f"nice = {nice}", why) from None


def _schedule(threads: Iterable[int], text: str) -> None:
    policy, _, priority = text.partition(" ")
    param = os.sched_param(int(priority or 0))
    try:
        _each(threads, lambda thread: os.sched_setscheduler(thread, _POLICIES[policy], param))
    except PermissionError:
        limit, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
        why = (
            f"the daemon's limit for real-time priorities is {limit}: LimitRTPRIO={priority} in the unit"
            if limit < int(priority or 0)
            else "RestrictRealtime=yes in the unit, or a control group without a real-time budget, forbids it"
        )
        raise _refused(f"scheduling = {text}", why) from None


def _threads() -> list[int]:
    return [int(task.name) for task in Path("/proc/self/task").iterdir()]


def _each(threads: Iterable[int], act: Callable[[int], None]) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):
            act(thread)


def _refused(setting: str, why: str) -> SidecamlError:
    return SidecamlError(ErrorCode.SYSTEM, f"{setting}: not possible: {why}")

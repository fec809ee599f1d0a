"""Where a worker runs and by which rules: what can be said, that it holds for every thread, or is refused."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from users import STRANGER, STRANGER_GROUP, Child, is_root

from ipc_server import placement as placements
from ipc_server.errors import SidecamlError
from ipc_server.placement import Placement, cpus_text, placement_of, scheduling_text

ALL = sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0", "0"),
        ("2-3,5", "2-3,5"),
        ("5, 3,2 ,2-3", "2-3,5"),
        ("0-3,2-7", "0-7"),
        ("8191", "8191"),
        ("", ""),
    ],
)
def test_processors_are_put_in_order(text: str, shown: str) -> None:
    assert cpus_text(text) == shown


@pytest.mark.parametrize(
    "text", ["-1", "3-2", "1,", ",", "a", "0-8192", "99999", "1 2", "0x1", 3, [0], None, True]
)
def test_what_names_no_processors_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="a list of processors such as '2-3,5', each from 0 to 8191"):
        cpus_text(text)


@pytest.mark.parametrize("text", ["other", "batch", "fifo 1", "rr 99", ""])
def test_scheduling_policies(text: str) -> None:
    assert scheduling_text(text) == text


@pytest.mark.parametrize(
    "text", ["fifo", "fifo 0", "fifo 100", "rr  1", "idle", "other 1", "FIFO 1", 1, None]
)
def test_what_is_no_scheduling_policy_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="'fifo N' or 'rr N', where N is a priority from 1 to 99"):
        scheduling_text(text)


def test_a_placement_travels_to_the_worker() -> None:
    for placement in (Placement(), Placement("0,2", "rr 3"), Placement("1", "batch", -4)):
        assert placement_of(placement.describe()) == placement
    for field, value in (("cpus", "x"), ("cpus", 1), ("scheduling", "x"), ("nice", "1")):
        with pytest.raises(SidecamlError, match="a request of the supervisor"):
            placement_of({**Placement().describe(), field: value})


def in_child(function: Callable[[], Any], **options: Any) -> Any:
    return Child(function, **options).result()


def threads() -> list[int]:
    return [int(task.name) for task in Path("/proc/self/task").iterdir()]


def with_two_threads(placement: Placement) -> list[tuple[set[int], int, int]]:
    """Where the threads are, their policies and their nice values; one of them started before, one after."""
    over = threading.Event()

    def another() -> threading.Thread:
        thread = threading.Thread(target=over.wait)
        thread.start()
        return thread

    first = another()
    placement.settle()
    placement.begin()
    second = another()
    found = [
        (os.sched_getaffinity(tid), os.sched_getscheduler(tid), os.getpriority(os.PRIO_PROCESS, tid))
        for tid in threads()
    ]
    over.set()
    for thread in (first, second):
        thread.join()
    return found


def test_processors_policy_and_nice_hold_for_every_thread() -> None:
    placement = Placement(str(ALL[-1]), "batch", 19)
    found = in_child(lambda: with_two_threads(placement))
    assert found == [({ALL[-1]}, os.SCHED_BATCH, 19)] * 3


def test_what_is_left_out_stays_as_it_is() -> None:
    def left() -> tuple[Any, Any]:
        os.sched_setaffinity(0, {ALL[0]})
        os.setpriority(os.PRIO_PROCESS, 0, 18)
        return with_two_threads(Placement())

    assert in_child(left) == [({ALL[0]}, os.SCHED_OTHER, 18)] * 3


def test_processors_beyond_those_of_the_process_can_be_asked_for() -> None:
    def pinned_before() -> set[int]:
        os.sched_setaffinity(0, {ALL[0]})
        Placement(",".join(map(str, ALL))).settle()
        return os.sched_getaffinity(0)

    assert in_child(pinned_before) == set(ALL)


def refusal(placement: Placement, limits: dict[int, int]) -> str:
    """What a user without rights is told."""

    def refused() -> str:
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))
        if is_root():
            os.setresgid(STRANGER_GROUP, STRANGER_GROUP, STRANGER_GROUP)
            os.setresuid(STRANGER, STRANGER, STRANGER)
        try:
            placement.settle()
        except SidecamlError as error:
            return f"{error.name}: {error}"
        return "it was not refused"

    return str(in_child(refused))


def test_processors_that_are_not_there_are_refused() -> None:
    told = refusal(Placement(f"{ALL[0]},8000-8001"), {})
    assert told.startswith(f"SYSTEM: cpus = {ALL[0]},8000-8001: not possible: the worker may use processors ")
    assert "AllowedCPUs=" in told


def test_a_nice_value_beyond_the_limit_is_refused() -> None:
    told = refusal(Placement(nice=-5), {resource.RLIMIT_NICE: 0})
    now = os.getpriority(os.PRIO_PROCESS, 0)
    assert told == (
        f"SYSTEM: nice = -5: not possible: the daemon runs at {now}, and may go no lower than {now}: "
        "LimitNICE=-5 in the unit"
    )


def test_a_priority_beyond_the_limit_is_refused_before_the_model_loads() -> None:
    told = refusal(Placement(scheduling="fifo 50"), {resource.RLIMIT_RTPRIO: 0})
    assert told == (
        "SYSTEM: scheduling = fifo 50: not possible: the daemon's limit for real-time priorities is 0: "
        "LimitRTPRIO=50 in the unit"
    )


def test_a_policy_that_the_limit_allows_and_the_system_does_not_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    with pytest.raises(SidecamlError, match="RestrictRealtime=yes in the unit"):
        Placement(scheduling="batch").settle()


def test_a_policy_is_only_tried_until_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def note(thread: int, policy: int, param: os.sched_param) -> None:
        asked.append((policy, param.sched_priority))

    monkeypatch.setattr(os, "sched_setscheduler", note)
    placement = Placement(scheduling="rr 4")
    placement.settle()
    assert asked == [(os.SCHED_RR, 4), (os.SCHED_OTHER, 0)]
    found = threads()
    monkeypatch.setattr(placements, "_threads", lambda: found)
    placement.begin()
    assert set(asked[2:]) == {(os.SCHED_RR, 4)}
    assert len(asked) - 2 == len(found)

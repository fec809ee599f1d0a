"""Which channels move between instances: as few as even the loads out, and never back and forth."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ipc_server.balance import (
    DRIFT,
    LEAST_GAIN,
    LOOKS,
    MOST_AT_ONCE,
    SATURATED,
    Load,
    Move,
    Persistence,
    drifted,
    plan,
)


def anyone(_number: int) -> bool:
    return True


def test_equal_loads_stay() -> None:
    loads = [Load(0.5, {1: 10}), Load(0.4, {2: 3, 3: 900})]
    assert not drifted([load.busy for load in loads])
    assert plan(loads, anyone) == []


def test_one_of_two_equal_channels_moves_to_an_idle_instance() -> None:
    assert plan([Load(1.0, {1: 50, 2: 50}), Load(0.0, {})], anyone) == [Move(1, 0, 1)]


def test_the_one_channel_that_makes_the_load_stays() -> None:
    assert plan([Load(1.0, {1: 1000}), Load(0.0, {2: 0})], anyone) == []
    assert plan([Load(1.0, {1: 1000}), Load(0.0, {})], anyone) == []


def test_idle_neighbours_of_a_busy_channel_are_not_worth_a_move() -> None:
    assert plan([Load(1.0, {1: 1000, 2: 1, 3: 0}), Load(0.0, {})], anyone) == []


def test_many_light_channels_move_together() -> None:
    light = {number: 10 for number in range(64)}
    moves = plan([Load(0.9, light), Load(0.1, {})], anyone)
    assert {(move.source, move.target) for move in moves} == {(0, 1)}
    assert 20 <= len(moves) <= MOST_AT_ONCE


def test_the_load_goes_where_there_is_least() -> None:
    loads = [Load(0.9, {1: 10, 2: 10, 3: 10}), Load(0.5, {4: 1}), Load(0.0, {5: 0})]
    assert [(move.source, move.target) for move in plan(loads, anyone)] == [(0, 2)]


def test_what_has_just_moved_stays_and_still_counts() -> None:
    loads = [Load(0.9, {1: 10, 2: 10}), Load(0.0, {})]
    assert plan(loads, lambda number: number != 1) == [Move(2, 0, 1)]
    assert plan(loads, lambda _: False) == []


def test_instances_without_any_time_left_get_as_many_channels_each() -> None:
    loads = [Load(1.0, {1: 5, 2: 5, 3: 5, 4: 0}), Load(0.95, {5: 1000})]
    assert drifted([load.busy for load in loads])
    assert plan(loads, anyone) == [Move(3, 0, 1)]
    assert plan([Load(1.0, {1: 5, 2: 5, 4: 0}), Load(0.95, {5: 1000})], anyone) == []


def test_many_light_channels_want_something_too_where_all_are_full() -> None:
    light, heavy = {number: 10 for number in range(100)}, {number: 10 for number in range(100, 110)}
    moves = plan([Load(0.95, light), Load(1.0, heavy)], anyone)
    assert len(moves) == MOST_AT_ONCE
    assert {(move.source, move.target) for move in moves} == {(0, 1)}


def test_a_channel_that_stays_hinders_no_other_where_all_are_full() -> None:
    loads = [Load(1.0, {1: 5, 2: 5, 3: 5}), Load(1.0, {5: 1000})]
    assert plan(loads, lambda number: number != 3) == [Move(2, 0, 1)]


def test_nothing_was_started_though_something_runs() -> None:
    # A run of minutes.
    assert plan([Load(1.0, {1: 0, 2: 0}), Load(0.0, {3: 0})], anyone) == []


def test_only_what_lasts_counts() -> None:
    lasting = Persistence()
    found = [True] * (LOOKS - 1) + [False] + [True] * (2 * LOOKS)
    assert [lasting.let(one) for one in found].count(True) == 2


busy = st.floats(0, 1)
channels = st.lists(st.integers(0, 1000), max_size=12)


@st.composite
def some_loads(draw: st.DrawFn) -> list[Load]:
    loads, number = [], 0
    for share in draw(st.lists(busy, min_size=1, max_size=5)):
        started = draw(channels)
        loads.append(Load(share, dict(enumerate(started, number))))
        number += len(started)
    return loads


def moved(loads: Sequence[Load], moves: Sequence[Move]) -> list[tuple[float, dict[int, float]]]:
    """What each instance has after moves, if channels ask as much as before: its load, and their parts."""
    shares = [load.shares() for load in loads]
    rest = [load.busy - sum(share.values()) for load, share in zip(loads, shares, strict=True)]
    for move in moves:
        shares[move.target][move.channel] = shares[move.source].pop(move.channel)
    return [(spare + sum(share.values()), share) for spare, share in zip(rest, shares, strict=True)]


@given(some_loads())
def test_a_plan_moves_each_channel_once_and_no_plan_follows_it(loads: list[Load]) -> None:
    moves = plan(loads, anyone)
    assert len({move.channel for move in moves}) == len(moves)
    assert all(move.source != move.target for move in moves)
    assert all(move.channel in loads[move.source].started for move in moves)
    if not moves:
        return
    assert drifted([load.busy for load in loads])
    after = moved(loads, moves)
    if min(load.busy for load in loads) < SATURATED:
        assert max(one for one, _ in after) <= max(load.busy for load in loads) - LEAST_GAIN + 1e-9
    if len(moves) < MOST_AT_ONCE and max(one for one, _ in after) < SATURATED:
        # A look that finds what the plan foresaw.
        scale = 10**9
        again = [Load(one, {n: round(part * scale) for n, part in parts.items()}) for one, parts in after]
        spread = max(one for one, _ in after) - min(one for one, _ in after)
        assert spread < DRIFT or len(plan(again, anyone)) == 0

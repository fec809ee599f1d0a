"""Limits of one user: counted from what is there, refilled by the clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.quotas import (
    BURST_S,
    POISON_TIME_S,
    POISONED_CHANNELS,
    SHARED_DEATHS,
    Deaths,
    Poisoned,
    Quotas,
)


@dataclass
class Channel:
    uid: int
    held_bytes: int = 4096


@dataclass
class Limits:
    max_channels_per_user: int = 3
    max_bytes_per_user: int = 10_000
    max_opens_per_second: int = 5


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_user_opens_as_many_channels_as_it_may_and_others_do_not_count() -> None:
    quotas, held = Quotas(), [Channel(7), Channel(8), Channel(7), Channel(8), Channel(8)]
    quotas.check_open(7, held, Limits())
    with pytest.raises(SidecamlError) as caught:
        quotas.check_open(8, held, Limits())
    assert caught.value.code is ErrorCode.LIMIT
    assert str(caught.value) == (
        "the user with uid 8 has 3 channels open and max_channels_per_user is 3: close one, or raise it"
    )
    held.pop()
    quotas.check_open(8, held, Limits())


def test_a_user_takes_as_many_bytes_as_it_may_and_others_do_not_count() -> None:
    quotas, held = Quotas(), [Channel(7, 6000), Channel(8, 9_999_999), Channel(7, 4000)]
    quotas.check_bytes(7, held, Limits())
    held.append(Channel(7, 1))
    with pytest.raises(
        SidecamlError, match="would take 10001 bytes and max_bytes_per_user is 10000"
    ) as caught:
        quotas.check_bytes(7, held, Limits())
    assert caught.value.code is ErrorCode.LIMIT


def test_opens_come_in_a_burst_and_then_at_their_pace() -> None:
    clock = Clock()
    quotas = Quotas(clock)

    def opens(uid: int) -> int:
        for count in range(1000):
            try:
                quotas.check_open(uid, [], Limits())
            except SidecamlError as error:
                assert error.code is ErrorCode.LIMIT
                assert "faster than max_opens_per_second, which is 5" in str(error)
                return count
        raise AssertionError("without end")

    assert opens(7) == 5 * BURST_S
    assert opens(8) == 5 * BURST_S
    clock.now += 0.5
    assert opens(7) == 2
    # What was left over is kept, what a refused open asked for is not taken.
    clock.now += 0.2
    assert opens(7) == 1
    clock.now += 1000
    assert opens(7) == 5 * BURST_S


def test_who_is_not_seen_for_long_is_forgotten() -> None:
    clock = Clock()
    quotas = Quotas(clock)
    for uid in range(50):
        quotas.check_open(uid, [], Limits())
    clock.now += BURST_S + 1
    quotas.check_open(50, [], Limits())
    assert len(quotas._opens) == 1


def test_a_user_has_so_many_requests_that_kill_of_one_model_and_others_do_not_count() -> None:
    clock = Clock()
    poisoned = Poisoned(clock)
    for _ in range(POISONED_CHANNELS * 2 - 1):
        assert not poisoned.note(7, "m", 2)
        clock.now += 1
    poisoned.check_open(7, "m", 2)
    assert poisoned.note(7, "m", 2)
    with pytest.raises(SidecamlError, match="6 requests of the user with uid 7") as caught:
        poisoned.check_open(7, "m", 2)
    assert caught.value.code is ErrorCode.LIMIT
    poisoned.check_open(7, "other", 2)
    poisoned.check_open(8, "m", 2)
    # The oldest is long past.
    clock.now += POISON_TIME_S - 5
    poisoned.check_open(7, "m", 2)
    assert poisoned.note(7, "m", 2)
    clock.now += POISON_TIME_S
    poisoned.check_open(7, "m", 2)
    assert poisoned._recent._times == {}


def test_workers_that_died_of_one_users_requests_alone_are_held_against_it() -> None:
    clock = Clock()
    deaths = Deaths(clock)
    for _ in range(3):
        assert deaths.note({7}, "m") == 7
        assert deaths.note({8}, "other") == 8
        # Nobody is to blame.
        assert deaths.note(set(), "m") is deaths.note({None}, "m") is None
        clock.now += 1
    deaths.check_open(7, "m", 3)
    assert not deaths.are_too_many(7, "m", 3)
    deaths.note({7}, "m")
    assert deaths.are_too_many(7, "m", 3)
    with pytest.raises(
        SidecamlError, match=r"4 workers of model 'm' died .* uid 7 .* is 3, for 600 s"
    ) as caught:
        deaths.check_open(7, "m", 3)
    assert caught.value.code is ErrorCode.LIMIT
    deaths.check_open(7, "other", 3)
    deaths.check_open(8, "m", 3)
    clock.now += POISON_TIME_S - 3
    deaths.check_open(7, "m", 3)
    clock.now += POISON_TIME_S
    deaths.check_open(7, "m", 3)
    assert (7, "m") not in deaths._of_one._times


def test_workers_that_died_of_requests_of_several_only_keep_these_apart() -> None:
    clock = Clock()
    deaths = Deaths(clock)
    for _ in range(SHARED_DEATHS):
        assert not deaths.keeps_apart(7, "m")
        assert deaths.note({7, 8, None}, "m") is None
    assert deaths.keeps_apart(7, "m")
    assert deaths.keeps_apart(8, "m")
    assert not deaths.keeps_apart(7, "other")
    deaths.check_open(7, "m", 0)
    clock.now += POISON_TIME_S
    assert not deaths.keeps_apart(7, "m")

"""What `make chaos` makes of the times of strikes and calls: every figure in its report comes from here."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.fleet import Call, Counters, Life
from chaos.recovery import Felt, felt, linked, percentile
from chaos.strikes import Attack, Strike

MS = 1_000_000


class Recorded(Life):
    """A life whose counters are given, not read."""

    heard_ns = 0

    @property
    def counters(self) -> Counters:
        return Counters(opened_ns=self.began_ns, heard_ns=self.heard_ns)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Recorded]:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        yield Recorded("network", "block", process, tmp_path / "files", began_ns=10 * MS)


def strike(at_ms: int, ready: int = 1, model: str = "network") -> Strike:
    return Strike("active", "kill", model, 1, at_ms * MS, ready)


def call(start_ms: int, end_ms: int) -> Call:
    return Call(start_ms * MS, end_ms * MS)


def found(life: Recorded, at_ms: int, *calls: Call) -> Felt:
    return felt(strike(at_ms), [life], {id(life): list(calls)})


def test_the_slowest_call_under_way_counts(life: Recorded) -> None:
    assert found(life, 100, call(20, 90), call(99, 105), call(95, 130), call(140, 300)).ns == 35 * MS


def test_a_call_that_began_just_after_the_strike_counts(life: Recorded) -> None:
    assert found(life, 100, call(101, 120)).ns == 19 * MS


def test_without_a_slow_call_the_strike_was_not_felt(life: Recorded) -> None:
    one = found(life, 100, call(20, 90))
    assert (one.ns, one.unheard) == (0, "")


def test_a_client_that_was_not_there_hears_nothing(life: Recorded) -> None:
    assert found(life, 5).unheard
    life.ended_ns = 90 * MS
    assert found(life, 100).unheard


def test_a_client_that_ended_before_its_next_answer_heard_nothing(life: Recorded) -> None:
    life.ended_ns, life.heard_ns = 200 * MS, 99 * MS
    assert found(life, 100).unheard
    life.heard_ns = 150 * MS
    assert not found(life, 100).unheard


def test_a_call_in_which_the_client_was_stopped_says_nothing(life: Recorded) -> None:
    life.stops.append((110 * MS, 180 * MS))
    assert found(life, 100, call(99, 190)).unheard
    assert not found(life, 100, call(99, 105)).unheard
    assert found(life, 150, call(149, 300)).unheard


def test_another_models_client_does_not_count(life: Recorded) -> None:
    other = felt(strike(100, model="rows"), [life], {id(life): [call(99, 500)]})
    assert other.unheard


def test_strikes_within_one_slow_call_share_their_luck() -> None:
    first, second, later = (
        Felt(strike(100, 0), 80 * MS),
        Felt(strike(150), 30 * MS),
        Felt(strike(400), 5 * MS),
    )
    assert linked([first, second, later]) == {0: False, 1: False, 2: True}


def test_strikes_at_other_models_are_apart() -> None:
    assert linked([Felt(strike(100, 0, "rows"), 80 * MS), Felt(strike(150), 30 * MS)]) == {0: False, 1: True}


def test_percentiles_are_of_nearest_rank() -> None:
    values = [n * MS for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([7 * MS], 0.99) == 7


class Imagined(Attack):
    """An attack of which every third victim is only stopped, and that nobody suffers."""

    def _pass(self, seconds: float) -> None:
        """Let no time go by."""

    def _strike(self) -> None:
        number = len(self.strikes)
        self.strikes.append(Strike("active", "kill" if number % 3 else "stop", "network", number, 0, 1))


def test_so_many_are_killed_and_the_stopped_come_besides() -> None:
    attack, told = Imagined(None, None, random.Random(1)), []  # type: ignore[arg-type]
    attack.run(4, told.append)
    assert [strike.how for strike in attack.strikes] == ["stop", "kill", "kill", "stop", "kill", "kill"]
    assert told == [1, 2, 3, 4]

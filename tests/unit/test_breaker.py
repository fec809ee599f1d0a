"""The circuit breaker."""

from __future__ import annotations

import pickle

import pytest

from ipc_server.abi import ErrorCode
from ipc_server.breaker import Breaker, CircuitOpen
from ipc_server.errors import SidecamlError

GONE = SidecamlError(ErrorCode.SERVER_GONE, "gone")


def fail(breaker: Breaker, now: float) -> None:
    """Have a call fail."""
    breaker.admit(now)
    breaker.failed(now, GONE)


def refused(breaker: Breaker, now: float) -> CircuitOpen:
    """Ask in vain."""
    with pytest.raises(CircuitOpen) as caught:
        breaker.admit(now)
    return caught.value


def test_so_many_failures_in_a_row_open_it() -> None:
    breaker = Breaker(failures=3, cool_down_s=2)
    for _ in range(5):
        fail(breaker, 1)
        fail(breaker, 1)
        breaker.succeeded()
    fail(breaker, 10)
    fail(breaker, 11)
    assert breaker.state(11) == "closed"
    fail(breaker, 12)
    assert breaker.state(12) == "open"
    error = refused(breaker, 13.9)
    assert (error.since, error.until, error.failures, error.last) == (12, 14, 3, GONE)
    assert error.code is ErrorCode.CIRCUIT_OPEN
    assert "3 calls in a row failed" in str(error)
    assert "SERVER_GONE: gone" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_after_the_cool_down_one_call_decides() -> None:
    breaker = Breaker(failures=1, cool_down_s=2)
    fail(breaker, 0)
    assert breaker.state(2) == "half-open"
    breaker.admit(2)
    assert refused(breaker, 3).until == 4
    assert breaker.state(3) == "half-open"
    breaker.failed(3, GONE)
    assert (refused(breaker, 4).since, refused(breaker, 4).until) == (0, 5)
    breaker.admit(5)
    breaker.succeeded()
    assert breaker.state(5) == "closed"
    breaker.admit(5)
    breaker.admit(5)


def test_a_call_that_says_nothing_leaves_the_next_one_to_decide() -> None:
    breaker = Breaker(failures=1, cool_down_s=2)
    fail(breaker, 0)
    breaker.admit(2)
    breaker.withdrawn(2.5)
    breaker.admit(2.5)
    assert refused(breaker, 2.6).since == 0


def test_a_call_that_never_ends_is_given_up_as_lost() -> None:
    breaker = Breaker(failures=1, cool_down_s=2)
    fail(breaker, 0)
    breaker.admit(2)
    refused(breaker, 3.9)
    breaker.admit(4)


def test_late_failures_change_nothing() -> None:
    breaker = Breaker(failures=1, cool_down_s=2)
    fail(breaker, 0)
    breaker.failed(1.5, GONE)
    assert refused(breaker, 1.9).until == 2


def test_senseless_settings_are_refused() -> None:
    for settings in ({"failures": 0}, {"cool_down_s": -1}):
        with pytest.raises(SidecamlError) as caught:
            Breaker(**settings)
        assert caught.value.code is ErrorCode.INVALID

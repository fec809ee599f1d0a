"""Several requests of the Python client at once: any of them, a window over many items, turns, priorities."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import models
import numpy as np
import pytest
from channels import products_of
from conftest import StartDaemon
from daemon_process import Daemon, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc_server import client
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError

MUCH = 20_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("daemon")
    running = Daemon(
        folder,
        {
            "scalar": models.scalar(folder / "scalar.onnx"),
            "picky": models.fails_inside(folder / "picky.onnx"),
            "slow": models.slow(folder / "slow.onnx"),
        },
    )
    yield running
    assert running.stop() == 0


def opened(served: Daemon, model: str = "scalar", slots: int = 4, **how: str) -> client.Channel:
    return client.open_model(model, socket=str(served.socket), slots=slots, **how)  # type: ignore[arg-type]


def submit(channel: client.Channel, value: float, timeout: float | None = None) -> int:
    slot = channel.claim()
    name = channel.model.signature.inputs[0].name
    channel.input(name, slot)[...] = value
    assert channel.submit(timeout) == slot
    return slot


def refused(code: ErrorCode, call: object, *args: object, **named: object) -> str:
    with pytest.raises(SidecamlError) as caught:
        call(*args, **named)  # type: ignore[operator]
    assert caught.value.code is code
    return str(caught.value)


# --- Any of several ---------------------------------------------------------------------------------------


def test_any_tells_of_each_request_once_the_oldest_first(served: Daemon) -> None:
    with opened(served) as channel:
        assert "submit one" in refused(ErrorCode.INVALID, channel.await_any)
        slots = [submit(channel, float(value)) for value in range(4)]
        assert [channel.await_any() for _ in slots] == slots
        refused(ErrorCode.INVALID, channel.await_any)
        for slot in slots:
            channel.await_(slot)
            channel.await_(slot)  # once more: it is still there
            assert channel.output("y", slot) == 2 * slot
            channel.release(slot)
            refused(ErrorCode.INVALID, channel.await_, slot)


def test_any_ends_with_a_request_s_own_timeout_and_its_own_gives_nothing_up(served: Daemon) -> None:
    with opened(served, "slow", 3) as channel:
        long = submit(channel, products_of(channel._core, 4.0))
        refused(ErrorCode.TIMEOUT, channel.await_any, 0.0)
        late = submit(channel, 0, timeout=0.001)
        assert channel.await_any() == late
        assert "deadline" in refused(ErrorCode.TIMEOUT, channel.await_, late)
        assert channel.await_any() == long
        channel.await_(long)


def test_a_timeout_that_makes_no_sense_is_refused(served: Daemon) -> None:
    with opened(served) as channel:
        for timeout in (-1.0, float("nan"), 1e300):
            for call in (channel.await_any, channel.claim_wait, channel.submit):
                assert "seconds" in refused(ErrorCode.INVALID, call, timeout)
            refused(ErrorCode.INVALID, channel.map, None, None, [], timeout=timeout)


def test_a_request_that_is_past_its_deadline_is_answered_or_refused_and_the_channel_serves_on(
    served: Daemon,
) -> None:
    with opened(served, "slow", 2) as channel:
        for _ in range(5):
            slot = submit(channel, 0, timeout=0.0)
            try:
                channel.await_(slot)
                channel.release(slot)
            except SidecamlError as error:
                assert error.code in (ErrorCode.TIMEOUT, ErrorCode.DEADLINE)
            assert channel.claim_wait() != slot
            slot = submit(channel, 0)
            channel.await_(slot)
            channel.release(slot)
            channel.claim_wait()


def test_a_request_for_which_there_is_no_time_is_refused_before_it_runs(served: Daemon) -> None:
    with opened(served, "slow", 2) as channel:
        work = products_of(channel._core, 1.5)
        # Runs of requests with deadlines are measured, each of them.
        took_s = math.inf
        for _ in range(3):
            begun = time.monotonic()
            channel.release(awaited(channel, submit(channel, work, timeout=60.0)))
            took_s = min(took_s, time.monotonic() - begun)

        def is_refused() -> bool:
            """Whether it was, before its time was over for one whose worker was not run."""
            slot = submit(channel, work, timeout=took_s / 2)
            with pytest.raises(SidecamlError) as caught:
                channel.await_(slot)
            if caught.value.code is ErrorCode.TIMEOUT:
                channel.claim_wait()
                return False
            assert caught.value.code is ErrorCode.DEADLINE
            assert "could not have been answered by its deadline, so it was not run" in str(caught.value)
            return True

        wait_until("it is refused", is_refused)
        # It holds its slot no more, and what has the time is run.
        channel.claim_wait()
        channel.release(awaited(channel, submit(channel, 0, timeout=60 * took_s)))


def awaited(channel: client.Channel, slot: int) -> int:
    channel.await_(slot)
    return slot


def test_who_only_polls_hears_that_the_time_is_over(served: Daemon) -> None:
    with opened(served, "slow", 2) as channel:
        slot = submit(channel, products_of(channel._core, 3), timeout=0.01)
        with pytest.raises(SidecamlError) as caught:
            while not channel.poll(slot):
                pass
        assert caught.value.code in (ErrorCode.TIMEOUT, ErrorCode.DEADLINE)


def test_a_slot_that_was_not_claimed_is_not_submitted(served: Daemon) -> None:
    with opened(served, "scalar", 3) as channel:
        told = refused(ErrorCode.INVALID, channel.submit)
        assert told == (
            "submitted 1 of the slots of model 'scalar', of which 0 were claimed before: "
            "claim a slot, fill it, and then submit it"
        )
        assert channel.claim_run(2) == 2
        refused(ErrorCode.INVALID, channel.submit_run, 3)
        assert channel.submit_run(2) == 0
        refused(ErrorCode.INVALID, channel.submit)
        channel.release(awaited(channel, submit(channel, 1.0)))
    with opened(served, "scalar", 1) as channel:
        channel.input("x")[...] = 2.0
        channel.release(awaited(channel, channel.submit()))


def is_busy_after_giving_up(channel: client.Channel, products: int) -> bool:
    """Submit and give up: a request that runs by then goes on running, one that does not never will."""
    channel._core.abandon(submit(channel, products))
    try:
        channel.claim()
    except SidecamlError as error:
        return error.code is ErrorCode.BUSY
    return False


def test_a_turn_is_waited_for_only_when_it_comes_by_itself(served: Daemon) -> None:
    with opened(served, "slow", 1) as channel:
        long = products_of(channel._core, 4.0)
        wait_until("one that runs is given up", lambda: is_busy_after_giving_up(channel, long))
        refused(ErrorCode.TIMEOUT, channel.claim_wait, 0.0)
        assert channel.claim_wait() == 0
        submit(channel, 0)
        refused(ErrorCode.FULL, channel.claim_wait)


def test_requests_that_nobody_awaits_end_with_the_channel(served: Daemon) -> None:
    channel = opened(served, "slow", 3)
    for _ in range(3):
        submit(channel, MUCH)
    refused(ErrorCode.FULL, channel.claim)
    channel.close()
    assert "is closed" in refused(ErrorCode.INVALID, channel.await_any)
    refused(ErrorCode.INVALID, channel.claim_wait)
    with opened(served, "slow") as another:
        slot = submit(another, 0)
        another.await_(slot)


def test_a_run_is_submitted_whole_or_not_at_all(served: Daemon) -> None:
    with opened(served) as channel:
        assert channel.claim_run(9) == 4
        for slot in range(3):
            channel.input("x", slot)[...] = slot
        assert channel.submit_run(3) == 0
        assert "of which 1 were claimed" in refused(ErrorCode.INVALID, channel.submit_run, 2)
        for slot in range(3):
            channel.await_(slot)
            assert channel.output("y", slot) == 2 * slot
        assert channel.claim_run(4) == 1


# --- A window ---------------------------------------------------------------------------------------------


def doubled(channel: client.Channel, items: object, **how: object) -> list[object]:
    def fill(slot: int, item: float) -> None:
        channel.input("x", slot)[...] = item

    return list(channel.map(fill, lambda slot, _: float(channel.output("y", slot)), items, **how))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 7).flatmap(
        lambda slots: st.tuples(st.just(slots), st.integers(1, slots), st.integers(0, 40))
    )
)
def test_every_item_has_its_answer_in_order(served: Daemon, sizes: tuple[int, int, int]) -> None:
    slots, window, count = sizes
    with opened(served, slots=slots) as channel:
        for _ in range(2):
            assert doubled(channel, range(count), window=window) == [2.0 * item for item in range(count)]


def test_items_are_asked_for_as_there_is_room(served: Daemon) -> None:
    asked = []
    with opened(served) as channel:

        def items() -> Iterator[int]:
            for item in range(30):
                asked.append(item)
                yield item

        def fill(slot: int, item: int) -> None:
            channel.input("x", slot)[...] = item

        for read, _ in enumerate(channel.map(fill, lambda *_: None, items(), window=2)):
            assert len(asked) <= read + 3
    assert len(asked) == 30


def test_a_failed_item_fails_alone(served: Daemon) -> None:
    shapes = [(2, 3), (9, 9), (3, 2), (9, 9), (6, 1)]
    with opened(served, "picky") as channel:

        def fill(slot: int, shape: tuple[int, int]) -> None:
            channel.input("x", slot)[:] = 1.0
            channel.input("shape", slot)[:] = shape

        def read(slot: int, shape: tuple[int, int]) -> tuple[int, int]:
            assert np.all(channel.output("y", slot) == 7.0)
            return shape

        results = list(channel.map(fill, read, shapes, return_exceptions=True))
        assert [isinstance(result, SidecamlError) for result in results] == [
            shape == (9, 9) for shape in shapes
        ]
        refused(ErrorCode.ENGINE, lambda: list(channel.map(fill, read, shapes)))
        assert list(channel.map(fill, read, shapes[:1])) == shapes[:1]


def test_a_window_beyond_the_slots_is_refused(served: Daemon) -> None:
    with opened(served) as channel:
        for window in (0, -1, 5):
            sentence = refused(ErrorCode.INVALID, doubled, channel, [], window=window)
            assert sentence == f"a window of {window}: the channel has 4 slots, so it is 1 to 4"


def test_what_ends_a_map_early_leaves_nothing_under_way(served: Daemon) -> None:
    with opened(served) as channel:

        def fill(slot: int, item: int) -> None:
            channel.input("x", slot)[...] = 1 / (item - 7)

        with pytest.raises(ZeroDivisionError):
            list(channel.map(fill, lambda *_: None, range(20)))
        results = channel.map(lambda *_: None, lambda *_: None, range(20))
        next(results)
        results.close()  # type: ignore[attr-defined]
        while channel.claim_run(4) < 4:
            slot = submit(channel, 1.0)
            channel.await_(slot)
            channel.release(slot)
        assert doubled(channel, range(9)) == [2.0 * item for item in range(9)]


def test_a_slot_of_the_program_s_own_stops_a_map_at_its_turn(served: Daemon) -> None:
    with opened(served) as channel:
        own = submit(channel, 1.0)
        assert doubled(channel, range(3)) == [0.0, 2.0, 4.0]
        refused(ErrorCode.FULL, doubled, channel, range(3))
        channel.await_(own)
        channel.release(own)
        assert doubled(channel, range(3)) == [0.0, 2.0, 4.0]


def test_a_map_over_a_closed_channel_says_so(served: Daemon) -> None:
    channel = opened(served)
    results = channel.map(lambda *_: None, lambda *_: None, range(20))
    next(results)
    channel.close()
    assert "is closed" in refused(ErrorCode.INVALID, list, results)


def test_a_map_ends_with_its_daemon(daemon: StartDaemon, tmp_path: object) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "scalar.onnx")})  # type: ignore[operator]
    with opened(running) as channel:
        results = channel.map(lambda *_: None, lambda *_: None, iter(int, 1))
        next(results)
        running.stop()
        refused(ErrorCode.SERVER_GONE, list, results)


# --- Priority ---------------------------------------------------------------------------------------------


def test_a_priority_is_normal_or_high(served: Daemon) -> None:
    with opened(served, priority="high") as channel:
        assert doubled(channel, range(9)) == [2.0 * item for item in range(9)]
    sentence = refused(ErrorCode.INVALID, opened, served, priority="urgent")
    assert sentence == "a priority is one of normal, high: got 'urgent'"

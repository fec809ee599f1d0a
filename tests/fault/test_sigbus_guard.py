"""Clients that take pages of their segment away: it costs them their channel, and nobody else anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import models
import numpy as np
import pytest
from channels import double, open_channel
from conftest import StartDaemon
from daemon_process import RawClient, wait_until
from one_worker import Attached, OneWorker, function, one_worker

from ipc_server.abi import ErrorCode
from ipc_server.settings import Settings

LANES = ("native", "python")
# What is left of the segment: nothing, its first page, half of it.
LEFT = {"nothing": lambda size: 0, "a page": lambda size: 4096, "half": lambda size: size // 2}
LONG_N, LONG_S = 1500, 0.9

Start = Callable[..., OneWorker]


@pytest.fixture
def start(nothing_left: None, tmp_path: Path) -> Iterator[Start]:
    """Start a worker of a model; at the end it must still be alive."""
    with ExitStack() as stack:

        def starts(chosen: Settings, policy: str = "block") -> OneWorker:
            return stack.enter_context(one_worker(chosen, tmp_path / "worker.log", policy))

        yield starts


def powers(tmp_path: Path, lane: str) -> Settings:
    return Settings("model", models.rereads(tmp_path / "rereads.onnx"), lane=lane, threads=2)


def answer(channel: Attached, steps: float) -> bytes:
    """Run the model on its inputs, which are always the same; the output's bits."""
    client = channel.client
    slot = client.claim()
    fill(channel, slot, steps)
    client.submit()
    client.await_(slot)
    bits: bytes = client.output("y", slot).tobytes()
    client.release(slot)
    return bits


def fill(channel: Attached, slot: int, steps: float) -> None:
    first, x = (tensor.name for tensor in channel.client.model.signature.inputs)
    channel.client.input(first, slot)[...] = steps
    place = channel.client.input(x, slot)
    place[...] = (
        np.random.default_rng(3)
        .permutation(np.eye(256, dtype=np.float32))
        .reshape(-1)[: place.size]
        .reshape(place.shape)
    )


def cut_while_it_runs(channel: Attached, steps: float, left: int) -> None:
    submitted = -1

    def runs() -> bool:
        nonlocal submitted
        if submitted < 0:
            slot = channel.client.claim()
            fill(channel, slot, steps)
            submitted = channel.client.submit()
        if channel.is_running(submitted):
            return True
        # It was over before anybody looked.
        if channel.client.poll(submitted):
            channel.client.release(submitted)
            submitted = -1
        return False

    wait_until("the request runs", runs)
    channel.cut(left)


def costs_its_channel_only(worker: OneWorker, short: float, long: float, left: Callable[[int], int]) -> None:
    bystander, victim = worker.attach(), worker.attach()
    expected = answer(bystander, short)
    assert answer(victim, short) == expected
    cut_while_it_runs(victim, long, left(victim.bytes))
    assert answer(bystander, short) == expected
    is_told(worker, victim)
    assert answer(bystander, short) == expected
    worker.ask("detach", channel=victim.number)
    assert answer(worker.attach(), short) == expected
    assert not worker.events


def is_told(worker: OneWorker, victim: Attached) -> None:
    event = worker.event()
    assert (event["event"], event["channel"]) == ("broken", victim.number)
    for part in ("pages of its memory were taken away", "made shorter", "Open the model again"):
        assert part in event["why"]
    assert len(event["why"]) <= 400


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("lane", LANES)
def test_pages_that_go_while_onnx_runtime_reads_them(
    start: Start, tmp_path: Path, lane: str, staged: bool, left: str
) -> None:
    worker = start(powers(tmp_path, lane))
    attach = worker.attach
    worker.attach = lambda: attach(staged=staged)  # type: ignore[method-assign]
    costs_its_channel_only(worker, 2, LONG_N, LEFT[left])


@pytest.mark.parametrize("left", LEFT)
def test_pages_that_go_while_a_function_reads_them(start: Start, left: str) -> None:
    costs_its_channel_only(start(function("hostile:rereads")), 0, LONG_S, LEFT[left])


@pytest.mark.parametrize(
    "name",
    ["hostile_import:rereads", "hostile:rereads_with_faulthandler", "hostile:rereads_with_a_handler"],
)
def test_handlers_of_user_code_do_not_come_between(start: Start, name: str) -> None:
    costs_its_channel_only(start(function(name)), 0, LONG_S, LEFT["nothing"])


@pytest.mark.parametrize("policy", ["block", "adaptive", "spin"])
@pytest.mark.parametrize("lane", LANES)
def test_pages_that_go_while_nobody_runs(start: Start, tmp_path: Path, lane: str, policy: str) -> None:
    worker = start(powers(tmp_path, lane), policy)
    bystander, victim = worker.attach(), worker.attach()
    expected = answer(bystander, 3)
    victim.cut(0)
    assert answer(bystander, 3) == expected
    is_told(worker, victim)
    victim.cut(victim.bytes)  # too late
    os.eventfd_write(victim.made.request, 1)
    assert answer(bystander, 3) == expected
    assert not worker.events


def test_a_client_that_does_it_again_and_again(start: Start, tmp_path: Path) -> None:
    worker = start(powers(tmp_path, "native"))
    bystander = worker.attach()
    expected = answer(bystander, 2)
    for _ in range(5):
        victim = worker.attach()
        cut_while_it_runs(victim, 200, 0)
        assert answer(bystander, 2) == expected
        is_told(worker, victim)
        worker.ask("detach", channel=victim.number)
    assert answer(bystander, 2) == expected


@pytest.mark.parametrize("lane", LANES)
def test_the_client_is_told_and_the_daemon_goes_on(daemon: StartDaemon, tmp_path: Path, lane: str) -> None:
    running = daemon({"scalar": models.scalar(tmp_path / "scalar.onnx")}, lane=lane)
    workers = running.workers()
    with open_channel(running.socket, "scalar") as bystander:
        assert double(bystander, 2.0) == 4.0
        # It maps nothing, so that it may cut what it was given.
        hostile = RawClient(running.socket)
        opened = hostile.open("scalar", 1)
        os.ftruncate(opened.fds[0], 0)
        assert double(bystander, 3.0) == 6.0
        event = hostile.next().body
        assert (event["event"], event["channel"]) == ("gone", opened.body["channel"])
        assert event["code"] == ErrorCode.CORRUPT
        assert "pages of its memory were taken away" in event["message"]
        assert "sidecaml-" not in event["message"]
        opened.close_fds()
        hostile.close()
        assert double(bystander, 4.0) == 8.0
        with open_channel(running.socket, "scalar") as again:
            assert double(again, 5.0) == 10.0
    assert set(workers) <= set(running.workers())

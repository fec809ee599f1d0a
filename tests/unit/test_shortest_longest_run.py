"""How often the supervisor looks for runs that are too long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ipc_server import longest_run


@pytest.mark.parametrize(
    ("longest_s", "pause_s"),
    [(1e-300, longest_run.SOONEST_LOOK_S), (0.4, 0.1), (300.0, longest_run.RAREST_LOOK_S)],
)
def test_looks_are_apart_however_short_the_longest_run(
    monkeypatch: pytest.MonkeyPatch, longest_s: float, pause_s: float
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    killed: list[str] = []
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(longest_run, "running_since_ns", lambda _: 1)
    worker: Any = SimpleNamespace(status_fd=0, kill=killed.append)
    asyncio.run(longest_run.enforce(worker, longest_s))
    assert slept == [pause_s]
    assert len(killed) == 1

"""How long a model waits before it tries another worker, and when it does not."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up_workers import PATIENCE_S, SIGNATURE

from ipc_server import config, crew
from ipc_server.abi import ErrorCode
from ipc_server.batching import Batching
from ipc_server.crew import FIRST_PAUSE_S, LOAD_ATTEMPTS, LONGEST_PAUSE_S, Crew, pause_after
from ipc_server.errors import SidecamlError

DIED = SidecamlError(ErrorCode.WORKER_CRASHED, "it died")
REFUSED = SidecamlError(ErrorCode.MODEL_FAILED, "no model")
SHORT = SidecamlError(ErrorCode.NO_MEMORY, "no room")
KILLED = "killed"
# Loads, and dies at once.
YOUNG = "young"


def test_pauses_grow_to_the_longest_and_stay_there() -> None:
    pauses = [pause_after(deaths) for deaths in range(20)]
    assert pauses[:4] == [FIRST_PAUSE_S, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert all(earlier <= later for earlier, later in itertools.pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_model_whose_workers_die_for_days_is_still_tried() -> None:
    assert pause_after(10**6) == LONGEST_PAUSE_S


class Loading:
    """A worker that comes to a certain end."""

    def __init__(self, end: object) -> None:
        self.pid = 2**22 + 1
        self.ending = "ended as the test says"
        self.was_killed_from_outside = end is KILLED
        self.signature, self.batching, self.loaded = SIGNATURE, Batching(), False
        self.started_at = time.monotonic()
        self.is_over = True
        self._end = end

    async def request(self, _op: str, **_: Any) -> dict[str, Any]:
        if isinstance(self._end, SidecamlError):
            raise self._end
        if self._end is KILLED:
            raise DIED
        return {**SIGNATURE.describe(), "batching": Batching().record()}

    def watch_closely(self) -> None: ...

    def kill(self) -> None: ...

    async def wait_exited(self) -> None: ...

    async def close(self) -> None: ...


class Told:
    """An employer of one that was served before: what it was told, in order."""

    batching = Batching()
    is_served = False

    def __init__(self) -> None:
        self.heard: list[str] = []

    def prepare(self) -> None: ...

    def loading(self) -> None: ...

    def loaded(self, _worker: object, _seconds: float) -> None:
        self.heard.append("loaded")

    def load_failed(self, _problem: str, *, for_good: bool) -> bool:
        self.heard.append("hopeless" if for_good else "failed")
        return False

    def short(self, _problem: str) -> None:
        self.heard.append("short")

    def lost(self, _worker: object) -> bool:
        return False

    def page_of(self, _worker: object) -> None:
        return None


def heard(monkeypatch: pytest.MonkeyPatch, folder: Path, ends: Sequence[object]) -> list[str]:
    """What an employer is told of workers that come to these ends, one after the other."""
    file = folder / "m.toml"
    file.write_text('[models.m]\npath = "m.onnx"\nstandbys = 0\n')
    chosen = config.load(file, environment={})
    employer = Told()
    monkeypatch.setattr(crew, "FIRST_PAUSE_S", 0)

    async def main() -> None:
        made = Crew(chosen.models["m"], chosen, employer)  # type: ignore[arg-type]
        left = iter(ends)

        def spawn(*_: object) -> Loading:
            end = next(left, None)
            if end is None:
                made.stop()
                end = REFUSED
            return Loading(end)

        monkeypatch.setattr(crew.WorkerProcess, "spawn", spawn)
        async with asyncio.timeout(PATIENCE_S):
            await made.run()

    asyncio.run(main())
    return employer.heard[: len(ends)]


def test_workers_that_die_by_themselves_as_they_load_are_hopeless_in_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = ["failed"] * (LOAD_ATTEMPTS - 1) + ["hopeless"]
    assert heard(monkeypatch, tmp_path, [DIED] * LOAD_ATTEMPTS) == expected


def test_a_model_that_is_refused_is_hopeless_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert heard(monkeypatch, tmp_path, [REFUSED]) == ["hopeless"]


def test_a_refusal_that_only_sounds_like_a_shortage_is_hopeless_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    locked = SidecamlError(ErrorCode.MODEL_FAILED, "[Errno 11] Resource temporarily unavailable")
    assert heard(monkeypatch, tmp_path, [locked]) == ["hopeless"]


def test_a_shortage_never_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert heard(monkeypatch, tmp_path, [SHORT] * 10) == ["short"] * 10
    few = LOAD_ATTEMPTS - 1
    assert heard(monkeypatch, tmp_path, [KILLED] * 10) == ["failed"] * few + ["short"] * (10 - few)


def test_deaths_of_workers_that_had_loaded_are_no_reason_to_give_a_model_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends = [YOUNG, YOUNG, YOUNG, DIED, DIED, YOUNG, DIED, DIED]
    expected = ["loaded"] * 3 + ["failed"] * 2 + ["loaded"] + ["failed"] * 2
    assert heard(monkeypatch, tmp_path, ends) == expected

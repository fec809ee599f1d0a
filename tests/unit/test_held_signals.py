"""What a signal's handler raises waits until what is being made can be undone again."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc_server.export import command
from ipc_server.export.held_signals import held_signals


@pytest.fixture(autouse=True)
def ends_it() -> Iterator[None]:
    """As `sidecaml export` hears the signal."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    yield
    signal.signal(signal.SIGTERM, before)


def send() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_comes_at_the_end_of_the_block() -> None:
    steps = []
    with pytest.raises(SystemExit) as ended, held_signals():
        send()
        steps.append("done all the same")
    assert ended.value.code == 128 + signal.SIGTERM
    assert steps == ["done all the same"]


def test_it_comes_at_once_after_the_block() -> None:
    with held_signals():
        pass
    with pytest.raises(SystemExit):
        send()


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with held_signals():
        send()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_an_export_ended_while_it_makes_its_folder_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = tempfile.mkdtemp

    def interrupted(*args: object, **kwargs: object) -> str:
        made: str = making(*args, **kwargs)  # type: ignore[call-overload]
        send()
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    with pytest.raises(SystemExit), command._beside(tmp_path / "m.onnx"):
        pytest.fail("it goes on")
    assert not any(tmp_path.iterdir())

"""A daemon that serves many cases."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from daemon_process import Daemon, wait_until

from conformance.suite import Case

# A worker process each: with more, the memory grows and the processors only take turns.
MODELS = 48
PATIENCE_S = 600.0


def batches(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    """Divide the cases into what one daemon serves at a time."""
    for start in range(0, len(cases), MODELS):
        yield cases[start : start + MODELS]


@contextlib.contextmanager
def serve(cases: Sequence[Case], lane: str) -> Iterator[tuple[Daemon, Mapping[Case, str]]]:
    """Serve the cases on a generated configuration, each by a name."""
    names = {case: f"{number}-{case.name}"[:63] for number, case in enumerate(cases)}
    with tempfile.TemporaryDirectory(prefix="sidecaml-") as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        config = folder / "sidecaml.toml"
        config.write_text(
            "".join(f'[models."{names[case]}"]\npath = "{case.path}"\nlane = "{lane}"\n' for case in cases)
        )
        daemon = Daemon(folder, {}, f"--config={config}", ready=False)
        stack.callback(daemon.stop)
        wait_until("every model is loaded", lambda: _is_ready(daemon), PATIENCE_S)
        yield daemon, names


def _is_ready(daemon: Daemon) -> bool:
    log = daemon.log()
    assert daemon.process.poll() is None, f"the daemon ended:\n{log}"
    return "ready: " in log

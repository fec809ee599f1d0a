"""The benchmark's daemon: all variants of a model, on the server's core, frozen while others are measured."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from daemon_process import wait_until

from bench import cast as cast_module
from bench import pauses
from bench.cast import cast
from bench.cores import Cores
from bench.daemon import Daemon
from bench.errors import BenchError
from bench.models import MODELS, write
from bench.paths import PathSpec
from bench.throughput import loads
from bench.throughput.serving import pinned, serving
from ipc_server import client
from ipc_server.abi import Policy
from ipc_server.bench.clients import Clients
from ipc_server.bench.report import Row

FAKE = Path(__file__).resolve().parent.parent / "fake_driver.py"
CORE = max(os.sched_getaffinity(0))
CORES = Cores(CORE, CORE, siblings=False)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_workers_are_pinned_with_all_their_threads(tmp_path: Path) -> None:
    daemon = Daemon("id16", write("id16", tmp_path), ["native-spin", "python-block"], tmp_path, CORE)
    try:
        assert set(daemon.workers) == {"id16--native-spin", "id16--python-block"}
        for pid in daemon.workers.values():
            threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
            assert all(os.sched_getaffinity(thread) == {CORE} for thread in threads)
        daemon.stop()
    finally:
        daemon.kill()


def test_a_worker_is_awake_only_while_its_path_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spin = PathSpec("ipc-native-spin", FAKE, "make it", "spin", ("client", "server"), 2, "native-spin")
    block = PathSpec("ipc-native-block", FAKE, "make it", "block", (), 2, "native-block")
    monkeypatch.setattr(cast_module, "PATHS", {spec.name: spec for spec in (spin, block)})
    with cast("id16", write("id16", tmp_path), [spin.name, block.name], CORES, tmp_path) as paths:
        (spinning,), (blocking,) = paths._helpers[spin.name], paths._helpers[block.name]
        assert (state_of(spinning), state_of(blocking)) == ("T", "T")
        with paths._awake(block.name):
            assert state_of(spinning) == "T" and state_of(blocking) != "T"
        assert state_of(blocking) == "T"


def test_a_model_that_does_not_load_ends_the_benchmark_with_the_daemons_words(tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"no model")
    with pytest.raises(BenchError, match=r"(?s)the daemon ended with code 1: .*broken\.onnx"):
        Daemon("broken", file, ["native-block"], tmp_path, CORE)


def test_every_model_loads_with_fixed_shapes(tmp_path: Path) -> None:
    small = [name for name in MODELS if name != "id16m"]
    for name in small:
        folder = tmp_path / name
        folder.mkdir()
        daemon = Daemon(name, write(name, folder), ["native-block"], folder, CORE)
        try:
            (model,) = client.models(str(folder / "bench.sock"))
            tensors = [*model.signature.inputs, *model.signature.outputs]
            assert not any(tensor.dynamic for tensor in tensors), model
            daemon.stop()
        finally:
            daemon.kill()


FAKE_PAUSES = """#!{python}
import sys
import numpy
*words, file = sys.argv[1:]
options = dict(zip(words[::2], words[1::2]))
served = options.get("--name", "") and options["--socket"]
numpy.full(int(options["--count"]), len(served) + 1, dtype="<u8").tofile(file)
print("done", options["--count"])
"""


def test_pauses_are_measured_beside_a_daemon_in_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pauses"
    program.write_text(FAKE_PAUSES.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(pauses, "PROGRAM", program)
    found = pauses.measure(2)
    assert list(found) == list(pauses.SCENARIOS)
    rows = {row["path"]: row for row in pauses.rows_of(found)}
    assert all(row["n"] == 2 * pauses.COUNT and len(row["per_run"]) == 2 for row in rows.values())
    served = {name for name, row in rows.items() if row["p50_ns"] > 1}
    assert served == {"ipc-released", "ipc-block"}


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_client_and_a_worker_are_where_a_part_wants_them(tmp_path: Path) -> None:
    with serving(tmp_path, ["small"], f"{pinned(CORE)}\nmax_slots = 256") as running:
        assert {CORE} in [os.sched_getaffinity(pid) for pid in children_of(running.pid)]
        mine = os.sched_getaffinity(0)
        plan = running.plan("small", window=256, policy=Policy.ADAPTIVE, seconds=0.1, cpus=[min(mine)])
        with Clients(plan) as clients:
            assert [os.sched_getaffinity(pid) for pid in clients.pids] == [{min(mine)}]

        def nobody_misses() -> Row | None:
            """The load's row, but None where a client was not run for the last of it."""
            [row] = running.load(replace(plan, deadline_ns=60 * 10**9), [500.0])
            return row if row["n"] > 0 and loads.missed(row) == 0 else None

        row = wait_until("all are in time", nobody_misses)
        assert "answered late by the worker" in loads.split(row)
        assert os.sched_getaffinity(0) == mine

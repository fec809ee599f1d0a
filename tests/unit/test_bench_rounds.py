"""What the benchmark measures, in which order, and where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench import cores, rounds
from bench.cores import Cores
from bench.daemon import configuration, workers_of
from bench.driver import Samples
from bench.errors import BenchError
from bench.paths import PATHS
from bench.rounds import Cell, rotated
from bench.settings import PARTIAL_RESULTS, QUICK_RESULTS, RESULTS, Choice, Settings, settle
from ipc_server import config
from ipc_server.config_models import POLICIES
from ipc_server.settings import LANES

CHOICE = Choice(models=["id16"], callers=["tight", "touch-1m"], paths=["pyml", "floor"], runs=2, rounds=2)


class Recorder:
    """Stands for the paths of a model: every call takes as many nanoseconds as calls came before."""

    def __init__(self, outputs: dict[str, bytes]) -> None:
        self.calls: list[tuple[str, int]] = []
        self._outputs = outputs

    def call(self, path: str, touch: int, count: int, budget_ns: int) -> Samples:
        self.calls.append((path, touch))
        return np.array([len(self.calls)], dtype="<u8")

    def outputs(self, path: str, seeds: int) -> bytes:
        return self._outputs[path]

    def change_sides(self) -> None:
        self.calls.append(("sides", 0))

    @contextlib.contextmanager
    def open(
        self, model: str, file: Path, paths: Sequence[str], cores: Cores, folder: Path
    ) -> Iterator[Recorder]:
        assert file.is_file() and folder.is_dir()
        yield self


def test_each_round_begins_with_another_path() -> None:
    paths = ["a", "b", "c"]
    assert [rotated(paths, by) for by in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_paths_are_interleaved_round_by_round_and_runs_kept_apart() -> None:
    settings = settle(CHOICE)
    recorder = Recorder({"floor": b"same", "pyml": b"same"})
    told: list[str] = []
    measured = rounds.measure(settings, Cores(0, 1, siblings=False), recorder.open, told.append)
    mib = 1024 * 1024
    one_way = [("floor", 0), ("pyml", 0), ("floor", mib), ("pyml", mib)]
    other_way = [("pyml", 0), ("floor", 0), ("pyml", mib), ("floor", mib)]
    change = ("sides", 0)
    assert recorder.calls == 2 * [*one_way, change, *other_way, change]
    assert [run.tolist() for run in measured[Cell("id16", "tight", "floor")]] == [[1, 7], [11, 17]]
    assert len(measured) == 4
    assert told == ["run 1 of 2: id16", "run 2 of 2: id16"]


def test_a_different_output_fails_the_benchmark_before_anything_is_measured() -> None:
    recorder = Recorder({"floor": b"same", "pyml": b"sane"})
    with pytest.raises(BenchError, match="model id16: the output of path pyml differs from that of floor"):
        rounds.measure(settle(CHOICE), Cores(0, 1, siblings=False), recorder.open, lambda _: None)
    assert not recorder.calls


def test_only_the_full_benchmark_writes_the_results_that_are_kept() -> None:
    assert settle(Choice()).results == RESULTS
    assert settle(Choice(quick=True)).results == QUICK_RESULTS
    for choice in (Choice(models=["small"]), Choice(paths=["floor"]), Choice(runs=7), Choice(rounds=1)):
        assert (settle(choice).kind, settle(choice).results) == ("partial", PARTIAL_RESULTS)
    elsewhere = Path("elsewhere")
    assert settle(Choice(quick=True, results=elsewhere)).results == elsewhere


def test_a_quick_benchmark_has_all_paths_and_three_runs() -> None:
    quick = settle(Choice(quick=True))
    assert quick.paths == tuple(PATHS) and quick.models == ("id16", "small") and quick.runs == 3
    assert settle(Choice(quick=True, models=["tiny"])).models == ("tiny",)


def test_the_full_benchmark_has_five_runs() -> None:
    full: Settings = settle(Choice())
    assert (full.runs, full.rounds, full.calls, full.budget_ns) == (5, 10, 250, 15_000_000)
    assert (full.rounds_of("small"), full.rounds_of("id16m")) == (10, 2)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (Choice(paths=["flor"]), "no such path: flor; there are floor, "),
        (Choice(models=["small", "big"]), "no such model: big; there are id16, "),
        (Choice(callers=["touch"]), "no such caller: touch; there are tight, "),
        (Choice(runs=0), "--runs: expected a whole number from 1, got 0"),
        (Choice(rounds=-1), "--rounds: expected a whole number from 1, got -1"),
    ],
)
def test_what_cannot_be_measured_is_refused(choice: Choice, text: str) -> None:
    with pytest.raises(BenchError, match=text):
        settle(choice)


def test_a_machine_with_one_processor_is_refused() -> None:
    with pytest.raises(BenchError, match="needs two processors, and this process may use 1"):
        cores.choose([3])


def test_the_sides_are_on_different_physical_cores_where_there_are() -> None:
    def siblings(core: int) -> set[int]:
        return {core, core ^ 1}

    assert cores.choose([0, 1, 2, 3], siblings) == Cores(3, 1, siblings=False)
    assert cores.choose([2, 3], siblings) == Cores(3, 2, siblings=True)
    assert cores.choose([0, 5], siblings) == Cores(5, 0, siblings=False)


def test_lists_of_processors_are_read_as_the_kernel_writes_them() -> None:
    assert cores.parse_list("0-2,5\n") == {0, 1, 2, 5}
    assert cores.parse_list("7") == {7}
    assert cores.parse_list("") == set()


def test_the_daemon_accepts_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "daemon.toml"
    text = configuration("small", tmp_path / "small.onnx", ["native-spin", "python-block"], tmp_path / "s")
    file.write_text(text, encoding="utf-8")
    models = config.load(file, environment={}).models
    assert {(name, model.lane, model.policy) for name, model in models.items()} == {
        ("small--native-spin", "native", "spin"),
        ("small--python-block", "python", "block"),
    }


def test_workers_are_found_in_the_daemons_log() -> None:
    log = (
        "INFO ipc_server.model: model small--native-spin: ready in 0.12 s, worker 41, small.onnx\n"
        "INFO ipc_server.model: model small--python-spin: ready in 1.50 s, worker 42, small.onnx\n"
    )
    assert workers_of(log) == {"small--native-spin": 41, "small--python-spin": 42}


def test_every_served_path_names_a_lane_and_a_policy() -> None:
    for spec in PATHS.values():
        if spec.served:
            lane, _, policy = spec.served.partition("-")
            assert lane in LANES and policy in POLICIES
            assert spec.policy == policy or spec.name == "pyclient"

"""The benchmark's plots, from results made up here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import pauses, plots, results
from bench.errors import BenchError
from bench.paths import PATHS
from bench.plotting import LINES, moved_apart
from bench.rounds import Cell


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    random = np.random.default_rng(1)
    samples = [random.integers(1000, 9000, 500).astype("<u8") for _ in range(2)]
    measured = {
        Cell(model, caller, path): samples
        for model in ("id16", "id1m", "small")
        for caller in ("tight", "touch-1m")
        for path in PATHS
    }
    results.save(made, results.LATEST, results.rows_of(measured))
    results.save(made, results.DISTRIBUTIONS, results.distributions_of(measured, ["small"]))
    there = {"processors": 2}
    results.save(made, results.PAUSES, pauses.content(dict.fromkeys(pauses.SCENARIOS, samples), there))
    # matplotlib keeps the fonts that it used open, so it uses them before descriptors are counted.
    plots.write(made, made / "warm")
    return made


def test_equal_results_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    first, second = (plots.write(folder, tmp_path / name) for name in ("first", "second"))
    assert [file.name for file in first] == [
        "bench-tight.svg",
        "bench-touch-1m.svg",
        "bench-size.svg",
        "bench-pauses.svg",
    ]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_what_was_not_measured_is_not_plotted(folder: Path, tmp_path: Path) -> None:
    distributions = [row for row in results.load(folder, results.DISTRIBUTIONS) if row["caller"] == "tight"]
    results.save(tmp_path, results.LATEST, [])
    results.save(tmp_path, results.DISTRIBUTIONS, distributions)
    assert [file.name for file in plots.write(tmp_path, tmp_path)] == ["bench-tight.svg"]


def test_without_results_there_is_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no results: measure first"):
        plots.write(tmp_path, tmp_path)


def test_every_path_has_a_line_of_its_own() -> None:
    assert LINES.keys() == PATHS.keys()
    assert len(set(LINES.values())) == len(LINES)


def test_labels_stay_where_they_are_when_there_is_room() -> None:
    places = {"a": 0.1, "b": 0.5, "c": 0.9}
    assert moved_apart(places, 0.1) == pytest.approx(places)


def test_labels_in_a_crowd_keep_their_order_their_gap_and_their_middle() -> None:
    moved = moved_apart({"a": 0.5, "b": 0.51, "c": 0.52, "far": 0.0}, 0.1)
    assert moved == pytest.approx({"a": 0.41, "b": 0.51, "c": 0.61, "far": 0.0})


def test_a_crowd_that_grows_into_its_neighbour_takes_it_in() -> None:
    moved = moved_apart({"a": 0.5, "b": 0.5, "c": 0.58}, 0.1)
    heights = sorted(moved.values())
    assert np.diff(heights) == pytest.approx([0.1, 0.1])
    assert sum(heights) == pytest.approx(1.58)

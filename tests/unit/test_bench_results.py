"""Percentiles, ratios, goals and the report of the benchmark, from samples made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import goals, machine, pauses, report, results, ring, stats
from bench.cores import Cores
from bench.driver import Samples
from bench.errors import BenchError
from bench.goals import Goal, outcomes
from bench.results import index, rows_of
from bench.rounds import Cell
from bench.settings import Choice, settle


def runs(*medians: int, calls: int = 101) -> list[Samples]:
    """Make runs whose samples lie around a median, 1 ns apart."""
    spread = np.arange(calls) - calls // 2
    return [(spread + median).astype("<u8") for median in medians]


def cell(path: str, model: str = "small", caller: str = "tight") -> Cell:
    return Cell(model, caller, path)


def test_ratios_are_taken_within_each_run() -> None:
    mine = stats.summary_of_runs(runs(1000, 2000, 3000))
    other = stats.summary_of_runs(runs(500, 2000, 1000))
    assert stats.ratios(mine, [other], "p50_ns") == [2.0, 1.0, 3.0]
    assert stats.differences(mine, [other], "p50_ns") == [500, 0, 2000]


def test_the_better_of_others_is_chosen_run_by_run() -> None:
    mine = stats.summary_of_runs(runs(1000, 1000))
    others = [stats.summary_of_runs(runs(500, 4000)), stats.summary_of_runs(runs(2000, 2000))]
    assert stats.ratios(mine, others, "p50_ns") == [2.0, 0.5]


def test_thinning_keeps_first_and_last_and_no_more_than_asked() -> None:
    samples = np.arange(1000, dtype="<u8")
    thinned = stats.thinned(samples, 10)
    assert (len(thinned), thinned[0], thinned[-1]) == (10, 0, 999)
    assert stats.thinned(samples, 1000) is samples


def test_a_row_has_what_the_results_promise() -> None:
    measured = {
        cell("floor"): runs(1000, 1000, 1000),
        cell("ffi-locked"): runs(2000, 1000, 4000),
        cell("ipc-native-spin"): runs(1000, 1100, 3000),
    }
    row = index(rows_of(measured))[cell("ipc-native-spin")]
    assert (row["n"], row["p50_ns"], row["runs"]) == (303, 1100, 3)
    assert row["ratio_to_ffi_locked_p50"] == 0.75
    assert (row["ratio_to_ffi_locked_p50_min"], row["ratio_to_ffi_locked_p50_max"]) == (0.5, 1.1)
    assert row["ratio_to_floor_p50"] == 1.1
    assert (row["policy"], row["spinning"], row["cores"]) == ("spin", ["client", "server"], 2)
    assert json.loads(json.dumps(row)) == row


def test_a_ratio_to_a_path_that_was_not_measured_is_null() -> None:
    (row,) = rows_of({cell("pyml"): runs(1000)})
    assert row["ratio_to_floor_p50"] is None and row["ratio_to_ffi_locked_p50_min"] is None


def test_a_distribution_goes_no_further_than_its_samples() -> None:
    found = results.distribution(np.arange(1, 101, dtype="<u8"))
    assert found["fraction"][0] == 0 and max(found["fraction"]) <= 0.99
    assert found["ns"] == sorted(found["ns"])
    assert max(results.distribution(np.arange(1, 20001, dtype="<u8"))["fraction"]) == pytest.approx(0.9999)


def test_goals_are_held_against_medians_over_runs() -> None:
    rows = index(rows_of({cell("pyml"): runs(900, 1100, 1000), cell("floor"): runs(1000, 1000, 1000)}))
    at_most = Goal("pyml", ("floor",), (("small", "tight"),), 1.0)
    (found,) = outcomes(rows, [at_most])
    assert found.measured == (1.0, 0.9, 1.1) and found.reached is True
    (found,) = outcomes(rows, [Goal("pyml", ("floor",), (("small", "tight"),), 0.99)])
    assert found.reached is False
    (found,) = outcomes(rows, [Goal("pyml", ("floor",), (("small", "tight"),), 1.01, "at least")])
    assert found.reached is False
    (found,) = outcomes(rows, [Goal("floor", ("pyml",), (("small", "tight"),), 0.1, difference_us=True)])
    assert found.measured == pytest.approx((0.0, -0.1, 0.1)) and found.reached is True


def test_a_goal_is_open_when_a_part_of_it_was_not_measured() -> None:
    rows = index(rows_of({cell("pyml"): runs(1000)}))
    (found,) = outcomes(rows, [Goal("pyml", ("pyml", "floor"), (("small", "tight"),), 1.0)])
    assert found.measured is None and found.reached is None


def test_goals_at_p99_look_at_p99() -> None:
    slow_tail = np.concatenate([np.full(95, 1000), np.full(5, 3000)]).astype("<u8")
    even = np.full(100, 1000, dtype="<u8")
    rows = index(rows_of({cell("pyml"): [slow_tail], cell("floor"): [even]}))
    places = (("small", "tight"),)
    found = outcomes(
        rows, [Goal("pyml", ("floor",), places, 1.15), Goal("pyml", ("floor",), places, 1.15, field="p99_ns")]
    )
    assert [outcome.reached for outcome in found] == [True, False]


def test_every_goal_is_about_paths_and_places_that_are_measured() -> None:
    known = settle(Choice())
    for goal in goals.GOALS:
        for model, caller in goal.places:
            if (model, caller) == goals.PAUSES:
                assert {goal.path, *goal.against} <= set(pauses.SCENARIOS)
            elif model == ring.EMPTY:
                assert {ring.Check(path, caller) for path in (goal.path, *goal.against)} <= set(ring.CHECKS)
            else:
                assert model in known.models and caller in known.callers
                assert {goal.path, *goal.against} <= set(known.paths)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    measured = {
        cell(path, model, caller): runs(*(base + step for step in (0, 10, 20)))
        for path, base in (("floor", 9000), ("ffi-locked", 9500), ("ipc-native-spin", 9100))
        for model in ("id16", "small")
        for caller in ("tight", "touch-1m")
    }
    results.save(tmp_path, results.LATEST, rows_of(measured))
    recorded = machine.record(Cores(1, 0, siblings=False), settle(Choice(quick=True)))
    results.save(tmp_path, results.MACHINE, {**recorded, "busy_before": 0.01})
    return tmp_path


def test_the_report_shows_goals_tables_and_what_is_missing(folder: Path) -> None:
    text = report.write(folder).read_text(encoding="utf-8")
    assert "Quick, for a first impression" in text
    goal = "| ipc-native-spin over floor, p50 | small, tight | at most 1.05 | 1.011 | 1.011 to 1.011 | yes |"
    assert goal in text
    assert "Not measured here" in text and "make bench-debian13" in text
    assert text.index("### id16, tight") < text.index("### small, tight") < text.index("### small, touch-1m")
    small = text[text.index("### small, tight") :]
    assert small.index("| floor |") < small.index("| ipc-native-spin |") < small.index("| ffi-locked |")
    assert "| ipc-native-spin | client and server | 2 | 303 | 9.11 |" in text
    assert "What waking costs" not in text and "was busy" not in text


def test_the_report_keeps_pauses_of_another_machine(folder: Path) -> None:
    found = {name: runs(50_000, 60_000) for name in pauses.SCENARIOS}
    found["ffi-locked"] = runs(400_000, 420_000)
    there: dict[str, Any] = {"ocaml": "5.3.0", "processors": 2, "date": "2025-01-01", "commit": "abc"}
    results.save(folder, results.PAUSES, pauses.content(found, there))
    text = report.write(folder).read_text(encoding="utf-8")
    assert "OCaml 5.3.0, 2 processors, 2025-01-01, commit abc" in text
    assert "| ipc-released | 3, of which 2 have a core | 202 |" in text
    assert "at least 4 | 7.500 | 7.000 to 8.000 | yes |" in text


def test_a_busy_machine_is_reported(folder: Path) -> None:
    recorded = results.load(folder, results.MACHINE)
    results.save(folder, results.MACHINE, {**recorded, "busy_before": 0.3})
    assert "The machine was busy" in report.write(folder).read_text(encoding="utf-8")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"holds no latest\.json and machine\.json: measure first"):
        report.write(tmp_path)


def test_a_broken_results_file_is_named(folder: Path) -> None:
    (folder / results.WAKE).write_text("[\n", encoding="utf-8")
    with pytest.raises(BenchError, match=r"wake\.json: not JSON"):
        report.write(folder)


def test_times_are_shown_to_about_three_digits() -> None:
    shown = [report.microseconds(ns) for ns in (0, 999, 8_456, 12_345, 123_456, 12_345_678)]
    assert shown == ["0.00", "1.00", "8.46", "12.3", "123", "12,346"]


def test_a_table_aligns_numbers() -> None:
    assert report.table(("path", "n"), [["floor", "10"], ["pyml", ""]]) == (
        "| path | n |\n| --- | ---: |\n| floor | 10 |\n| pyml |  |"
    )


def test_domains_are_there_from_ocaml_5() -> None:
    assert machine.has_domains("5.3.0") and machine.has_domains("10.0")
    assert not machine.has_domains("4.14.1") and not machine.has_domains("unknown")


def test_what_the_kernel_marks_is_found() -> None:
    assert machine.chosen_word("always [madvise] never") == "madvise"
    assert machine.chosen_word("") == "unknown"
    assert machine.megahertz("cpu MHz\t\t: 2450.5\ncpu MHz\t\t: 2400.0\n") == [2450.5, 2400.0]
    assert machine.cpu_model("processor : 0\nmodel name\t: A CPU\n") == "A CPU"

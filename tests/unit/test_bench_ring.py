"""The benchmark's rows on checks and staging, from samples made up here."""

from __future__ import annotations

import numpy as np

from bench import goals, report, results
from bench.goals import outcomes
from bench.ring import CALLS_A_SAMPLE, CHECKS, STAGES, Check, Stage, rows_of_checks, rows_of_stages


def samples(*ns_a_call: float) -> list[np.ndarray]:
    return [np.array([ns * CALLS_A_SAMPLE], "<u8") for ns in ns_a_call]


def checked() -> list[results.Row]:
    found = {check: samples(100, 110, 90) for check in CHECKS}
    found[Check("ring-checked", "one thread")] = samples(110, 112.5, 104)
    return rows_of_checks(found)


def test_checks_are_told_a_call_and_subtracted_within_each_run() -> None:
    rows = checked()
    mine, other = rows[0], rows[1]
    assert (mine["path"], other["path"]) == ("ring-checked", "ring-unchecked")
    assert (mine["n"], other["n"]) == (3 * CALLS_A_SAMPLE,) * 2
    assert [mine[f"added_p50_ns{end}"] for end in ("", "_min", "_max")] == [10.0, 2.5, 14.0]
    assert "added_p50_ns" not in other
    assert "| 10.0 (2.5 to 14.0) |" in report.checks_section(rows)
    assert report.checks_section(None) == ""


def test_the_goal_is_thirty_nanoseconds() -> None:
    found = [o for o in outcomes(results.index(checked())) if o.goal.path == "ring-checked"]
    assert [outcome.reached for outcome in found] == [True, True]
    assert found[0].goal.limit == 30 / goals.MICROSECOND_NS


def test_staging_is_compared_with_the_same_size_in_place() -> None:
    found = {stage: [np.array([stage.bytes], "<u8")] for stage in STAGES}
    found[Stage("staged", 4096)] = [np.array([6144], "<u8")]
    rows = rows_of_stages(found)
    assert [row["bytes"] for row in rows] == [stage.bytes for stage in STAGES]
    assert (rows[1]["ratio_p50"], rows[1]["added_p50_ns"]) == (1.5, 2048)
    assert "| 4,096 | staged | 1 |" in report.staging_section(rows)
    assert report.staging_section(None) == ""

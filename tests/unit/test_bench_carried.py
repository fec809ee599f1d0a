"""The benchmark's rows on carried state, from samples made up here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench import carried, report
from bench.daemon import configuration
from ipc_server import config


def test_the_ratio_is_that_of_the_path_that_copies_within_each_run() -> None:
    runs = {
        "ipc-carried": [np.array([10], "<u8"), np.array([30], "<u8"), np.array([40], "<u8")],
        "ipc-copied": [np.array([20], "<u8"), np.array([20], "<u8"), np.array([50], "<u8")],
    }
    mine, other = carried.rows_of(runs)
    assert (mine["path"], other["path"]) == ("ipc-carried", "ipc-copied")
    assert [mine[f"ratio_to_copied_p50{end}"] for end in ("", "_min", "_max")] == [0.8, 0.5, 1.5]
    assert "ratio_to_copied_p50" not in other
    assert "| 0.80 (0.50 to 1.50) |" in report.carried_section([mine, other])
    assert report.carried_section(None) == ""


def test_a_variant_whose_state_is_carried_says_so_to_the_daemon(tmp_path: Path) -> None:
    file = tmp_path / "daemon.toml"
    text = configuration("vad", tmp_path / "m.onnx", sorted(carried.VARIANTS.values()), tmp_path / "s")
    file.write_text(text, encoding="utf-8")
    models = config.load(file, environment={}).models
    assert {name: dict(model.state) for name, model in models.items()} == {
        "vad--native-spin": {},
        "vad--native-spin-carried": {"stateN": "state"},
    }

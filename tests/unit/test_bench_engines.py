"""The benchmark's rows on engines, from samples made up here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from bench import engines, report
from bench.daemon import configuration
from bench.engine_forms import Numpy, write_weights
from bench.errors import BenchError
from bench.models import write
from ipc_server import config


def test_every_engine_is_compared_with_the_native_lane_of_the_same_run() -> None:
    runs = {
        engines.REFERENCE: [np.array([10], "<u8"), np.array([20], "<u8"), np.array([40], "<u8")],
        "python, numpy": [np.array([20], "<u8"), np.array([30], "<u8"), np.array([40], "<u8")],
    }
    reference, mine = engines.rows_of(runs)
    assert (reference["ratio_to_native_p50"], mine["ratio_to_native_p50"]) == (1, 1.5)
    shown = report.engines_section([reference, mine])
    assert "| 1.50 (1.00 to 2.00) |" in shown
    assert report.engines_section(None) == ""


def test_the_daemon_is_told_of_every_engine(tmp_path: Path) -> None:
    file = tmp_path / "daemon.toml"
    text = configuration("small", tmp_path / "small.onnx", engines.VARIANTS.values(), tmp_path / "s")
    file.write_text(text, encoding="utf-8")
    models = config.load(file, environment={}).models
    assert {name.removeprefix("small--"): (model.engine, model.lane) for name, model in models.items()} == {
        "native-spin": ("onnx", "native"),
        "python-spin": ("onnx", "python"),
        "numpy-spin": ("python", "auto"),
        "torchscript-spin": ("torch", "auto"),
        "pt2-spin": ("torch", "auto"),
    }


def test_numpy_computes_what_the_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("small", tmp_path)
    write_weights(file, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    x, y = np.full((1, 64), 0.25, np.float32), np.zeros((1, 10), np.float32)
    Numpy()(x, y)
    (expected,) = onnxruntime.InferenceSession(file).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, 1e-4, 1e-5)


def test_an_engine_that_computes_something_else_ends_the_benchmark() -> None:
    ours = np.ones(4, "<f4").tobytes()
    engines.check_close({engines.REFERENCE: ours, "python, numpy": ours})
    with pytest.raises(BenchError, match="the engine python, numpy gives other outputs"):
        engines.check_close({engines.REFERENCE: ours, "python, numpy": np.zeros(4, "<f4").tobytes()})

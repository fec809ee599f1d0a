"""The documentation names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import models
import numpy as np
from onnx import helper
from served import served

from ipc_server import config
from ipc_server.abi import ERROR_TEXT

DOCS = Path(__file__).resolve().parents[2] / "docs"


def lines_of(folder: Path, text: str) -> list[str]:
    file = folder / "sidecaml.toml"
    file.write_text(f"[models.NAME]\n{text}\n")
    return config.load(file, environment={}).lines()


def test_the_configuration_page_has_every_setting_with_its_default(tmp_path: Path) -> None:
    examples = [
        'path = "m.onnx"',
        'engine = "python"\ncallable = "m:f"',
        'engine = "torch"\npath = "m.pt"',
        'engine = "pipeline"\nsteps = [{ path = "m.onnx" }]',
    ]
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]*) \|", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    documented = {key: default.strip().strip("`") for key, default in rows}
    settings = [line for example in examples for line in lines_of(tmp_path, example)]
    actual = {key: value for key, value in (line.partition("  #")[0].split(" = ") for line in settings)}
    assert documented.keys() == {re.sub(r"steps\.1\..*", "steps", key) for key in actual}
    numbers = {key: value for key, value in actual.items() if key.startswith("limits.")}
    assert {key: float(documented[key]) for key in numbers} == {
        key: float(value) for key, value in numbers.items()
    }


def test_the_configuration_page_has_an_example_that_is_taken(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    file = tmp_path / "sidecaml.toml"
    file.write_text(example)
    assert config.load(file, environment={}).models["vad"].policy == "spin"


def test_the_errors_page_has_every_error() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(int(code), code.name) for code in ERROR_TEXT]


def test_the_engines_page_has_configurations_that_are_taken(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (DOCS / "engines.md").read_text(), re.DOTALL)
    whole = [example for example in examples if "[models" in example]
    engines = set()
    for example in whole:
        file = tmp_path / "sidecaml.toml"
        file.write_text(example)
        engines |= {model.engine for model in config.load(file, environment={}).models.values()}
    assert engines == {"python", "torch", "pipeline"}


def test_the_engines_page_s_pipeline_is_served(tmp_path: Path) -> None:
    page = (DOCS / "engines.md").read_text()
    (example,) = (text for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "pipeline" in text)
    (hooks,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "normalise" in text)
    (tmp_path / "digit_hooks.py").write_text(hooks)
    (tmp_path / "sidecaml.toml").write_text(example)
    weights = np.eye(784, 10, dtype=np.float32)
    models.save(
        tmp_path / "digits.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [models.value("x", "float32", ["N", 784])],
        [models.value("y", "float32", ["N", 10])],
        {"w": weights},
    )
    settings = config.load(tmp_path / "sidecaml.toml", environment={}).models["digits"]
    pixels = np.zeros((2, 784), np.uint8)
    pixels[0, 7] = pixels[1, 3] = 200
    with served(settings, {"N": 2}) as model:
        assert model.run({"pixels": pixels})["label"].tolist() == [7, 3]

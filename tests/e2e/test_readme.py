"""The README's program is the one that is compiled, and it does what the README says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import models
import numpy as np
from conftest import StartDaemon
from daemon_process import REPOSITORY, environment
from onnx import helper

PROGRAM = REPOSITORY / "ocaml_lib" / "examples" / "readme.ml"
BUILT = REPOSITORY / "_build" / "default" / "ocaml_lib" / "examples" / "readme.exe"


def digits(path: Path) -> Path:
    """`scores` float32[1,10] = `image` float32[1,784] times ones: each is the sum of the image."""
    node = helper.make_node("MatMul", ["image", "w"], ["scores"])
    inputs, outputs = models.value("image", "float32", [1, 784]), models.value("scores", "float32", [1, 10])
    return models.save(path, [node], [inputs], [outputs], {"w": np.ones((784, 10), np.float32)})


def test_the_readme_shows_the_program_that_is_compiled() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"```ocaml\n(.*?)```", readme, re.DOTALL)
    assert PROGRAM.read_text(encoding="utf-8").strip() in [block.strip() for block in shown]


def test_the_readme_program_prints_the_models_answer(daemon: StartDaemon, tmp_path: Path) -> None:
    running = daemon({"digits": digits(tmp_path / "digits.onnx")})
    assert BUILT.exists(), f"{BUILT} is missing: run `dune build`"
    ran = subprocess.run(
        [BUILT],
        check=True,
        capture_output=True,
        text=True,
        env=environment(SIDECAML_SOCKET=str(running.socket)),
    )
    assert ran.stdout == "392.000000\n"


def test_the_readme_program_says_what_to_do_without_a_daemon(tmp_path: Path) -> None:
    absent = environment(SIDECAML_SOCKET=str(tmp_path / "absent"))
    ran = subprocess.run([BUILT], check=False, capture_output=True, text=True, env=absent)
    assert ran.returncode == 2
    assert "sidecaml serve" in ran.stderr

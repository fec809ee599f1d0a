"""The README's program is the one that is compiled, and it does what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from conftest import StartDaemon
from daemon_process import REPOSITORY, environment

PROGRAM = REPOSITORY / "ocaml_lib" / "examples" / "readme.ml"
MAKE_MODEL = REPOSITORY / "ocaml_lib" / "examples" / "digits.py"
BUILT = REPOSITORY / "_build" / "default" / "ocaml_lib" / "examples" / "readme.exe"


def test_the_readme_shows_the_program_that_is_compiled() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"```ocaml\n(.*?)```", readme, re.DOTALL)
    assert PROGRAM.read_text(encoding="utf-8").strip() in [block.strip() for block in shown]


def test_the_readme_program_prints_the_models_answer(daemon: StartDaemon, tmp_path: Path) -> None:
    model = tmp_path / "digits.onnx"
    subprocess.run([sys.executable, str(MAKE_MODEL), str(model)], check=True)
    running = daemon({"digits": model})
    assert BUILT.exists(), f"{BUILT} is missing: run `dune build`"
    env = environment(SIDECAML_SOCKET=str(running.socket))
    ran = subprocess.run([BUILT], check=True, capture_output=True, text=True, env=env)
    image = np.full((1, 784), 0.5, np.float32)
    (scores,) = onnxruntime.InferenceSession(model).run(None, {"image": image})
    assert ran.stdout == f"{scores[0, 0]:f}\n"


def test_the_readme_program_says_what_to_do_without_a_daemon(tmp_path: Path) -> None:
    absent = environment(SIDECAML_SOCKET=str(tmp_path / "absent"))
    ran = subprocess.run([BUILT], check=False, capture_output=True, text=True, env=absent)
    assert ran.returncode == 2
    assert "sidecaml serve" in ran.stderr

"""The way from PyTorch to OCaml, as its page says it: the page's own commands are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from daemon_process import REPOSITORY
from test_examples import run_page

PAGE = "docs/from-pytorch-to-ocaml.md"


@pytest.mark.timeout(900)
def test_every_command_of_the_page_works(tmp_path: Path) -> None:
    said = run_page(PAGE, tmp_path)
    assert said.count("export: ok") == 2
    assert "images  float32[N,64]" in said
    assert "memory  float32[1,10], from kept" in said
    assert "digits int64[8]" in said
    accuracies = [float(share) for share in re.findall(r"digits are right, ([\d.]+) %", said)]
    # From the daemon, in process from OCaml and C, and the five ways: the same digits each time.
    assert len(accuracies) == 8
    assert len(set(accuracies)) == 1
    assert accuracies[0] > 85
    *ways, last = said.splitlines()[-6:]
    assert [way[:18].strip() for way in ways] == [
        "ONNX",
        "TorchScript",
        "exported program",
        "Python callable",
        "in process",
    ]
    largest = re.fullmatch(
        r"five ways: the largest difference is (\S+); the daemon's ONNX and in process: same bits", last
    )
    assert largest is not None, last
    assert float(largest[1]) < 1e-4


def test_the_page_shows_the_program_that_is_compiled() -> None:
    page = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    program = (REPOSITORY / "examples" / "digits" / "program.ml").read_text(encoding="utf-8")
    blocks = re.findall(r"```ocaml\n(.*?)```", page, re.DOTALL)
    assert blocks
    assert all(block in program for block in blocks)

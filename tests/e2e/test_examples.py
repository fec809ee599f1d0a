"""The examples do what their pages say: the pages' own commands are run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from daemon_process import REPOSITORY, environment


def run_page(page: str, folder: Path) -> str:
    """Run a page's commands with their files in a folder of the test's; what they said."""
    done = subprocess.run(
        [REPOSITORY / "examples" / "run-page", REPOSITORY / page],
        env=environment(D=str(folder)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_the_faces_in_the_picture_are_found(tmp_path: Path) -> None:
    said = run_page("examples/faces/README.md", tmp_path).splitlines()
    assert said[-1] == "faces: 4"
    assert any("has grown" in line for line in said)
    # The astronaut's face is at the same place in each quarter of 512 by 512 pixels.
    for top, left in ((0, 0), (0, 512), (512, 0), (512, 512)):
        inside = [line for line in said if line.startswith("face ") and _covers(line, top + 118, left + 225)]
        assert len(inside) == 1, said
    assert (tmp_path / "framed.ppm").stat().st_size == (tmp_path / "picture.ppm").stat().st_size
    assert (tmp_path / "framed.ppm").read_bytes() != (tmp_path / "picture.ppm").read_bytes()


def _covers(line: str, row: int, column: int) -> bool:
    _, _, top, _, bottom, _, left, _, right, *_ = line.replace(",", "").split()
    return int(top) <= row <= int(bottom) and int(left) <= column <= int(right)


def test_a_page_ends_with_its_first_failure(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\ntrue\nfalse\n```\ntext\n```sh\necho never\n```\n")
    done = subprocess.run(
        [REPOSITORY / "examples" / "run-page", page], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")

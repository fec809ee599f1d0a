"""docs/reliability.md has a matrix whose cells name tests by labels: every label and every test exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FOLDERS = ("tests", "c_shim", "ocaml_lib/test")
# A line such as: - **K1** `test_kill.py::test_some_property`, words
NAMED = re.compile(r"^- \*\*([A-Z]+\d+)\*\* `([\w./-]+)(?:::([^`]+))?`", re.MULTILINE)
LABEL = re.compile(r"\b[A-Z]+\d+\b")
# What a cell says where there is nothing to test.
NOTHING = "n/a"


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def named_tests() -> dict[str, tuple[str, str]]:
    """Give the labels: file and test."""
    found = NAMED.findall(page())
    assert len({label for label, _, _ in found}) == len(found), "a label stands for two tests"
    return {label: (file, test) for label, file, test in found}


def matrix() -> list[list[str]]:
    """Give the rows of the matrix, its head first."""
    text = page().partition("\n## The matrix\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def has(path: Path, test: str) -> bool:
    """Whether a file has a test of that name."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return re.search(rf"^def {re.escape(test)}\(", source, re.MULTILINE) is not None
    return re.search(rf"(?<![\w ]){re.escape(test)}\b", source) is not None or f'"{test}' in source


@pytest.mark.parametrize("label", named_tests())
def test_a_test_that_the_page_names_exists(label: str) -> None:
    file, test = named_tests()[label]
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob(file) if "_build" not in path.parts]
    assert len(found) == 1, f"{file}: {found}"
    assert not test or has(found[0], test), f"{file} has no {test}"


def test_every_cell_of_the_matrix_names_a_test() -> None:
    head, *rows = matrix()
    assert rows
    for row in rows:
        assert len(row) == len(head), row
        for when, cell in zip(head[1:], row[1:], strict=True):
            assert LABEL.search(cell) or cell == NOTHING, f"{row[0]}, {when}: {cell!r}"


def test_every_label_in_the_matrix_stands_for_a_test_and_every_test_is_in_it() -> None:
    used = {label for row in matrix() for label in LABEL.findall(" ".join(row[1:]))}
    assert used == set(named_tests())


def test_a_name_that_is_not_there_is_found_out(tmp_path: Path) -> None:
    python, c, ocaml = tmp_path / "test.py", tmp_path / "test.c", tmp_path / "test.ml"
    python.write_text("def test_one() -> None:\n", encoding="utf-8")
    c.write_text("{TEST(one)},\n", encoding="utf-8")
    ocaml.write_text('case "of one" f\n', encoding="utf-8")
    assert has(python, "test_one") and has(c, "one") and has(ocaml, "of one")
    assert not has(python, "test_on") and not has(c, "two") and not has(ocaml, "of two")

"""docs/conformance.md is made from what a run found."""

from __future__ import annotations

from pathlib import Path

from conformance.page import Row, page, summary, table
from conformance.suite import Case
from conformance.verdict import Kind, Verdict


def case(name: str, suite: str = "node") -> Case:
    return Case(suite, name, Path("/somewhere") / name, 1e-3, 1e-7)


LACKS = "Could not find an implementation for Pow(15) node with name"
NOT_LOADED = "Load model from /somewhere/model.onnx failed:"
FOUND = {
    case("test_add"): Verdict(Kind.SAME, ""),
    case("test_dft"): Verdict(Kind.SAME, "Not equal to tolerance"),
    case("test_dropout"): Verdict(Kind.RANDOM, "the suite's check passes"),
    case("test_seq"): Verdict(Kind.CONTAINER, "input 'x' is a seq"),
    case("test_pow"): Verdict(Kind.REFUSED, f"{LACKS} ''"),
    case("test_power"): Verdict(Kind.REFUSED, f"{LACKS} 'p'"),
    case("test_adam", "simple"): Verdict(
        Kind.REFUSED,
        f"{NOT_LOADED} a:Adam(-1) is not a registered function/op",
    ),
    case("test_odd", "simple"): Verdict(Kind.REFUSED, f"{NOT_LOADED} it is odd"),
}


def test_every_kind_has_its_section() -> None:
    written = page([Row("Python client", FOUND)])
    assert "ONNX Runtime runs 3 cases whose inputs and outputs are tensors, 2 of them" in written
    assert "2 of 2 have these bits" in written
    assert "(2 cases): Pow(15) 2" in written
    assert "**the operator is unknown** (1 cases): a:Adam 1" in written
    assert "- Load model from the model failed: it is odd: `test_odd`" in written
    assert "- input of type seq (1 cases): `test_seq`" in written
    assert "- `test_dropout`: the suite's check passes" in written
    assert "- `test_dft`" in written
    assert "Wrong" not in written
    assert "/somewhere" not in written


def test_what_is_wrong_is_named_for_each_way() -> None:
    bad = {**FOUND, case("test_add"): Verdict(Kind.WRONG, "output 0: byte 1 of 4 is 1 instead of 0")}
    written = page([Row("Python client", FOUND), Row("OCaml client", bad)])
    assert "## Wrong: OCaml client\n\n- `node` `test_add`: output 0: byte 1 of 4" in written
    assert "## Wrong: Python client" not in written


def test_the_summary_counts_every_way() -> None:
    header, ruler, row = summary([Row("OCaml client", FOUND)])
    assert [cell.strip() for cell in header.split("|")[1:4]] == ["way", "cases", Kind.SAME.value]
    assert set(ruler) == set("|-:")
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["OCaml client", "8", "2", "1", "1", "4", "0"]


def test_columns_of_numbers_are_to_the_right() -> None:
    assert table(["a", "number"], [["text", 7]]) == [
        "| a    | number |",
        "|------|-------:|",
        "| text |      7 |",
    ]

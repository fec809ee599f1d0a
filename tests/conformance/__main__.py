"""Run the suite, print what came of it, write the page: `make conformance`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import uuid
from pathlib import Path

from conformance import reference, suite, verdict, ways
from conformance.page import Row, page, summary
from conformance.verdict import Kind


def tell(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)


def run(folder: Path, lanes: list[str], only: re.Pattern[str]) -> list[Row]:
    """Run the cases in every lane and way; what runs in a process of OCaml has no lane."""
    cases = [case for case in suite.write_suite(folder / "suite") if only.search(case.name)]
    tell(f"{len(cases)} cases")
    references = reference.judge(cases, folder / "references")
    tell(f"ONNX Runtime alone passes {sum(one.passed for one in references.values())}")
    rows = []
    for lane in lanes:
        chosen = ways.ALL if lane == "native" else {"Python client": ways.python_client}
        found = verdict.verdicts(cases, references, lane, chosen, tell)
        rows += [Row(f"{name}, {lane} lane" if "client" in name else name, found[name]) for name in chosen]
    return rows


def main() -> int:
    """Run; 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--lanes", nargs="+", default=["native", "python"], choices=["native", "python"])
    parser.add_argument(
        "--only", type=re.compile, default=re.compile(""), help="cases whose names this expression finds"
    )
    parser.add_argument("--page", type=Path, help="where to write the page")
    chosen = parser.parse_args()
    os.environ.setdefault("SIDECAML_TEST_MARK", uuid.uuid4().hex)
    with tempfile.TemporaryDirectory(prefix="sidecaml-conformance-") as folder:
        rows = run(Path(folder), chosen.lanes, chosen.only)
    print("\n".join(summary(rows)))
    wrong = [
        (row.way, case, found.why)
        for row in rows
        for case, found in row.verdicts.items()
        if found.kind is Kind.WRONG
    ]
    for way, case, why in wrong:
        print(f"{way}: {case.suite} {case.name}: {why}")
    if chosen.page:
        chosen.page.write_text(page(rows), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

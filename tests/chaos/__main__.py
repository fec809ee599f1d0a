"""Attack a daemon and its clients, print what came of it, write it as JSON: `make chaos`."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
import uuid
from pathlib import Path

# Before anything loads ONNX Runtime, and before anything of ours is started.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("SIDECAML_TEST_MARK", uuid.uuid4().hex)

from chaos import campaign, fleet, report


def tell(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument(
        "--kills",
        type=int,
        default=1000,
        help="how many are killed; some are stopped besides (default: 1000)",
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="default: a new one, printed"
    )
    parser.add_argument("--standbys", type=int, default=1, help="warm standbys a model (default: 1)")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    parser.add_argument("--keep", type=Path, help="a folder for all files of the run, which stays")
    return parser.parse_args()


def main() -> int:
    """Run; 1 when anything was wrong, lost or left. An answer that came twice is a wrong one."""
    chosen = parsed()
    fleet.environment_check()
    tell(f"seed {chosen.seed}: {chosen.kills} are killed")
    with tempfile.TemporaryDirectory(prefix="sidecaml-chaos-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = campaign.run(folder.resolve(), chosen.seed, chosen.kills, chosen.standbys, tell)
        figures = report.summary(run)
    print(report.text(figures))
    print(report.goal_line(figures))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 1 if any(figures["problems"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())

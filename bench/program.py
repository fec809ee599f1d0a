"""Programs that measure one thing into a file and end: `done N`, or `error TEXT`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.driver import Samples
from bench.process import LineProcess


def measured_by(
    what: str, command: Sequence[str], folder: Path, patience_s: float, core: int | None = None
) -> Samples:
    """Run a program whose last argument will be the file of its samples, and give them."""
    file = folder / "program.samples"
    file.unlink(missing_ok=True)
    process = LineProcess(what, [*command, str(file)], core=core, log=folder / "program.log")
    try:
        line = process.line(patience_s, "answer 'done'")
        word, _, rest = line.partition(" ")
        if word != "done":
            raise process.failure(rest if word == "error" else f"expected 'done N', got {line!r}")
        process.end()
        samples = np.fromfile(file, dtype="<u8")
        if rest != str(len(samples)) or not len(samples):
            raise process.failure(f"said {rest} samples, and wrote {len(samples)}")
    except BaseException:
        process.kill()
        raise
    return samples

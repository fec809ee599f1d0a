"""1797 handwritten digits of 8 by 8 pixels, of the UCI repository, in the file that scikit-learn brings."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Images, a row each, and which digit each shows.
Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]

TESTED = 450


def load() -> Labelled:
    """Give the images, a row of 64 values from 0 to 1 each, and which digit each shows."""
    # Found without being imported: that would want SciPy.
    spec = importlib.util.find_spec("sklearn")
    if not spec or not spec.submodule_search_locations:
        sys.exit("the package scikit-learn, which has the digits, is not installed: run `make setup`")
    path = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")
    return (table[:, :64] / 16).astype(np.float32), table[:, 64].astype(np.int64)


def split() -> tuple[Labelled, Labelled]:
    """Give what to train with, and what to test with: the last of the file."""
    images, digits = load()
    return (images[:-TESTED], digits[:-TESTED]), (images[-TESTED:], digits[-TESTED:])

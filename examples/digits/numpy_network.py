"""The same network in numpy, for the engine `python`: nothing but numpy in the worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Beside the configuration that names this module: the worker's python_path has that folder.
WEIGHTS = "digits.npz"


def load(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Read the weights that train.py wrote."""
    with np.load(folder / WEIGHTS) as file:
        return dict(file)


class Scores:
    """Made once, when the model is loaded; called for each request."""

    def __init__(self) -> None:
        """Find the weights."""
        self.weights = load(Path.cwd())

    def __call__(self, images: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
        """Write the scores of the images."""
        weights = self.weights
        hidden = np.maximum(images @ weights["hidden.weight"].T + weights["hidden.bias"], 0)
        np.matmul(hidden, weights["output.weight"].T, out=scores)
        scores += weights["output.bias"]

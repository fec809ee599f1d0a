"""What stands around the network in the pipeline: from pixels to its input, from scores to a digit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def greys(pixels: NDArray[np.uint8], images: NDArray[np.float32]) -> None:
    """Turn grey values from 0 to 16 into numbers from 0 to 1."""
    np.divide(pixels, 16, out=images, casting="unsafe")


def best(scores: NDArray[np.float32], digits: NDArray[np.int64]) -> None:
    """Choose the digit with the highest score."""
    np.argmax(scores, axis=1, out=digits)

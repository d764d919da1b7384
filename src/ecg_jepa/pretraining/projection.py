"""Small networks behind an encoder, which objectives that compare views learn through and then leave behind."""

from itertools import pairwise

import torch
from torch import nn

from .objective import mean_over_processes


class BatchNorm(nn.Module):
    """
    Batch normalisation over the rows of all processes, so that their number changes nothing (PyTorch's own knows one process, or
    CUDA alone). Always with the statistics of the batch: nobody uses these networks for anything but losses.

    Args:
        width: channels.
    """

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, width) -> the same shape, float32."""
        rows = rows.float()
        rows = rows - mean_over_processes(rows.mean(dim=0))
        variance = mean_over_processes(rows.square().mean(dim=0))
        return rows * (variance + self.eps).rsqrt() * self.weight + self.bias


def projection(widths: list[int], batch_norm: bool) -> nn.Sequential:
    """
    Linear layers from the first of `widths` to the last, with GELU between them, and before it batch normalisation if asked for.
    """
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        is_last = number == len(widths) - 2
        normalized = batch_norm and not is_last
        layers.append(nn.Linear(before, after, bias=not normalized))
        if normalized:
            layers.append(BatchNorm(after))
        if not is_last:
            layers.append(nn.GELU())
    return nn.Sequential(*layers)

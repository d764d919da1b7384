"""Projectors: small networks behind the encoder, through which losses on views are computed; they are not exported."""

from itertools import pairwise

import torch
from torch import nn

from .objective import mean_over_processes


class BatchNorm(nn.Module):
    """
    Batch normalisation over the rows of all processes (PyTorch's own knows one process, or CUDA alone).

    Always with the statistics of the batch: projectors are used for losses only.
    """

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalise (rows, width); returns float32."""
        rows = rows.float()
        rows = rows - mean_over_processes(rows.mean(dim=0))
        variance = mean_over_processes(rows.square().mean(dim=0))
        return rows * (variance + self.eps).rsqrt() * self.weight + self.bias


def projector(widths: list[int], batch_norm: bool) -> nn.Sequential:
    """Return linear layers from the first of `widths` to the last; between them GELU, after batch normalisation if asked for."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=not batch_norm), *([BatchNorm(after)] if batch_norm else []), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

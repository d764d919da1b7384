"""Small networks behind an encoder, which objectives that compare views learn through and then leave behind."""

from itertools import pairwise

import torch
from torch import nn

from .objective import mean_over_processes


class BatchNorm(nn.Module):
    """
    Batch normalisation over the rows of all processes, so that their number changes nothing (PyTorch's own knows one process, or
    CUDA alone). In evaluation, with averages of what was seen in training.

    Args:
        width: channels.
        momentum: of the averages.
        affine: with a learned factor and summand per channel.
    """

    def __init__(self, width: int, momentum: float = 0.1, affine: bool = True, eps: float = 1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self.running_mean: torch.Tensor
        self.running_variance: torch.Tensor
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, width) -> the same shape, float32."""
        rows = rows.float()
        if self.training:
            mean = mean_over_processes(rows.mean(dim=0))
            variance = mean_over_processes((rows - mean).square().mean(dim=0))
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_variance.lerp_(variance, self.momentum)
        else:
            mean, variance = self.running_mean, self.running_variance
        rows = (rows - mean) * (variance + self.eps).rsqrt()
        return rows if self.weight is None or self.bias is None else rows * self.weight + self.bias


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

"""What keeps representations apart."""

import torch
from torch.nn.functional import relu

from .objective import in_full_precision, mean_over_processes


def spread_losses(rows: torch.Tensor, floor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Two guards against collapse, of VICReg (Bardes et al. 2022) as C-JEPA (Mo & Tong 2024) sets them beside a JEPA's loss, over
    the rows of all processes, of which this one has (rows, width), in float32 whatever the precision of the run:

    - how far the standard deviation of each channel falls below `floor`, averaged over channels;
    - the sum of squared covariances of different channels, divided by the number of channels.

    Variances are means over the rows, and 1e-6 is added to them before the root; VICReg's authors divide by one row less, and
    add 1e-4.
    """
    with in_full_precision(rows):
        rows = rows.float()
        centred = rows - mean_over_processes(rows.mean(dim=0))
        covariance = mean_over_processes(centred.T @ centred / len(rows))
        variance = covariance.diagonal()
        shared = covariance.square().sum() - variance.square().sum()
        return relu(floor - (variance + 1e-6).sqrt()).mean(), shared / len(variance)

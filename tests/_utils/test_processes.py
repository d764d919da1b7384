"""What processes keep alike."""

import torch
from torch import nn

from ecg_jepa._utils.processes import send_no_constants


def test_constants_stay_where_they_are_and_running_statistics_are_sent():
    network = nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4))
    network[1].register_buffer("positions", torch.zeros(4), persistent=False)
    send_no_constants(network)
    assert network._ddp_params_and_buffers_to_ignore == ["1.positions"]

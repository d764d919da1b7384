"""Objectives on a tiny encoder."""

import pytest
import torch

from ecg_jepa import EcgJepaConfig
from ecg_jepa.pretraining import objectives


@pytest.fixture
def make_objective(tiny_config):
    """An objective of that name on records of 5 s at 100 Hz, in patches of 100 ms."""

    def make(name, **settings):
        torch.manual_seed(0)
        config = EcgJepaConfig(**{**tiny_config.to_dict(), "signal_length": 500, "patch_size": 10, "sampling_rate": 100})
        values = {"objective": name, "crop_duration": 5.0, "batch_size": 8, "patch_size": 10, **settings}
        if name in ("simclr", "byol", "vicreg"):
            values = {"view_duration": 2.5, "projection_size": 16, **values}
        return objectives.make_objective(config, objectives.recipe_class(values)(**values))

    return make

"""What is asked of launchers and networks where weights are shared out; tests/training/test_fsdp.py trains so."""

import re
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState

from ecg_jepa._utils.fsdp import shard
from ecg_jepa._utils.processes import start_accelerator


@pytest.fixture
def fresh_state():
    """Of Accelerate, before and after."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize(
    ("may_shard", "version", "message"),
    [(True, 2, "trains without it"), (True, 1, "fsdp_version: 1 is not supported"), (False, 2, "Only pre-training")],
)
def test_sharding_that_would_not_be_done_is_an_error(monkeypatch, fresh_state, may_shard, version, message):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", str(version))
    with pytest.raises(ValueError, match=message):
        start_accelerator(may_shard=may_shard)


def test_versions_in_which_it_was_not_tried_are_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setattr("torch.__version__", "2.12.1")
    with pytest.raises(ValueError, match=re.escape("FSDP needs torch 2.13 or newer, but this is 2.12.1")):
        start_accelerator(may_shard=True)


class Network(torch.nn.Module):
    """Returns whether it is in autocast, and notes how it is resharded."""

    resharding = None

    def forward(self):
        return torch.is_autocast_enabled("cpu")

    def set_reshard_after_forward(self, value, recurse):
        self.resharding = (value, recurse)


def test_precision_is_autocasts_and_no_gathered_weight_outlives_its_use():
    plugin = SimpleNamespace(mixed_precision_policy="of FSDP, which casts norms and losses, too")
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        prepare=lambda *prepared: prepared,
    )
    network, _ = shard(accelerator, Network(), None, [])
    assert plugin.mixed_precision_policy is None
    assert network() is True
    assert network.resharding == (True, False)
    assert not torch.is_autocast_enabled("cpu")

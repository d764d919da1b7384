"""How processes connect, share weights and constants, and stop; tests/training/test_fsdp.py trains with shared weights."""

import os
import re
import signal
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from ecg_jepa._utils.processes import StopSignals, send_no_constants, shard, start_accelerator


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


def test_constants_stay_where_they_are_and_running_statistics_are_sent():
    network = nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4))
    network[1].register_buffer("positions", torch.zeros(4), persistent=False)
    send_no_constants(network)
    assert network._ddp_params_and_buffers_to_ignore == ["1.positions"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_noted_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with StopSignals(Accelerator(cpu=True)) as signals:
        assert signals.agreed() == 0
        os.kill(os.getpid(), number)
        assert signals.agreed() == number
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_at_once():
    with StopSignals(Accelerator(cpu=True)) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.agreed() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

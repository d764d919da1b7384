"""Losses that look at all records of a batch do so across processes: the same loss and gradients as one process has."""

from datetime import timedelta

import pytest
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from ecg_jepa._utils.processes import send_no_constants
from ecg_jepa.pretraining.objective import BatchKey, count_flops


def step(objective, signal, drawn):
    output = objective(signal, **drawn)
    output.loss.backward()
    return output.loss.item()


def meet(rank, folder):
    """Be one of two processes."""
    torch.set_num_threads(1)
    meeting = {"init_method": f"file://{folder}/meeting", "rank": rank, "world_size": 2}
    torch.distributed.init_process_group("gloo", **meeting, timeout=timedelta(minutes=2))


def share(rank, folder, objective, signal, drawn):
    """One of two processes, which has half of the records; gradients are averaged as in training."""
    meet(rank, folder)
    assert count_flops(objective) > 0  # counting asks no other process
    own = slice(4 * rank, 4 * rank + 4)
    loss = step(DistributedDataParallel(objective), signal[own], {name: rows[own] for name, rows in drawn.items()})
    gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    torch.save((loss, gradients), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", "byol", "vicreg"])
def test_two_processes_are_one(make_objective, tmp_path, name):
    # In float64, where what is left of rounding does not depend on the CPU.
    signal = torch.randn(8, 12, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = make_objective(name).double()
    drawn = objective.draw(BatchKey(0, 0), 8)
    spawn(share, (str(tmp_path), objective, signal, drawn), nprocs=2)
    expected = step(objective, signal, drawn)
    losses, gradients = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)), strict=True)
    # SimCLR's is of all records in every process, others average theirs.
    assert sum(losses) / 2 == pytest.approx(expected, abs=1e-5)
    if name == "simclr":
        assert losses[0] == losses[1]
    for parameter, gradient in gradients[0].items():
        alone = objective.get_parameter(parameter).grad
        # Of VICReg they are 10 to 60, of the last bias, which batch statistics cancel, nothing.
        assert (gradient - alone).abs().max() < 1e-4 * alone.abs().max().clamp(min=1.0), parameter


def listen(rank, folder, objective, signal, drawn):
    """What one of two processes sends in the third step: names of the calls, and how many gradients."""
    meet(rank, folder)
    send_no_constants(objective)
    network = DistributedDataParallel(objective)
    sizes = []

    def count(state, bucket):
        sizes.append(bucket.buffer().numel())
        return allreduce_hook(None, bucket)

    network.register_comm_hook(None, count)
    for _ in range(2):  # the processes agree on the order of gradients after the first
        step(network, signal, drawn)
    sizes.clear()
    with profile(activities=[ProfilerActivity.CPU]) as listening:
        step(network, signal, drawn)
    calls = {event.key for event in listening.key_averages() if event.key.startswith("c10d::")}
    torch.save((calls, sum(sizes)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_gradients_of_what_is_trained_are_all_that_is_sent(make_objective, tmp_path):
    """Neither the target encoder, whose average each process makes by itself, nor positions."""
    objective = make_objective("jepa")
    trained = [p.numel() for p in objective.parameters() if p.requires_grad]
    assert sum(trained) < sum(p.numel() for p in objective.parameters())
    assert list(objective.buffers())
    spawn(listen, (str(tmp_path), objective, torch.randn(4, 12, 500), objective.draw(BatchKey(0, 0), 4)), nprocs=2)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt") == ({"c10d::allreduce_"}, sum(trained))

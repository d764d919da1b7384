"""Which precision is the faster one, and that memory is kept."""

import resource

import pytest
import torch
from accelerate import Accelerator

from ecg_jepa._utils import hardware
from ecg_jepa._utils.hardware import fastest_precision, keep_memory, set_up_cpu, warn_of_slow_precision


@pytest.mark.parametrize(("half", "single", "expected"), [(1.0, 2.0, "bf16"), (1.0, 1.05, "no"), (2.0, 1.0, "no")])
def test_the_faster_precision_by_a_margin(monkeypatch, half, single, expected):
    monkeypatch.setattr(hardware, "_seconds_of_a_layer", {torch.bfloat16: half, torch.float32: single}.get)
    assert fastest_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize(("half", "precision", "told"), [(9.0, "bf16", True), (1.05, "bf16", False), (9.0, "no", False)])
def test_who_asks_for_a_slow_precision_is_told(monkeypatch, caplog, half, precision, told):
    monkeypatch.setattr(hardware, "_seconds_of_a_layer", {torch.bfloat16: half, torch.float32: 1.0}.get)
    warn_of_slow_precision(torch.device("cpu"), precision)
    assert ("bfloat16 takes 9.0 times as long as float32 on this CPU" in caplog.text) == told


def test_this_machine_is_measured(monkeypatch):
    asked = []
    measure = hardware._seconds_of_a_layer
    monkeypatch.setattr(hardware, "_seconds_of_a_layer", lambda dtype: asked.append(dtype) or measure(dtype))
    assert fastest_precision(torch.device("cpu")) in ("bf16", "no")
    assert asked == [torch.bfloat16, torch.float32] * 5


def test_float32_is_measured_as_training_computes_it(monkeypatch):
    order = []
    monkeypatch.setattr(hardware, "use_faster_products", lambda: order.append("products"))
    monkeypatch.setattr(hardware, "_seconds_of_a_layer", lambda dtype: order.append("measured") or 1.0)
    fastest_precision(torch.device("cpu"))
    assert order[:2] == ["products", "measured"]
    order.clear()
    set_up_cpu(Accelerator(cpu=True))
    assert order == ["products"]


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16"), (False, "no")])
def test_gpus_say_it(monkeypatch, has, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert fastest_precision(torch.device("cuda")) == expected
    assert fastest_precision(torch.device("mps")) == "no"


def test_large_tensors_are_not_fetched_from_the_system_each_time():
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(16 << 20)  # 64 MB, 16,384 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_memory(Accelerator(cpu=True))
    faults()
    assert faults() < 16_384

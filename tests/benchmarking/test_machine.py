import torch
from accelerate import Accelerator

from ecg_jepa.benchmarking.machine import describe_machine, matmul_rates, peak_memory


def test_the_machine_is_described_in_plain_values():
    described = describe_machine(Accelerator(cpu=True))
    assert described["device"] == "cpu"
    assert described["threads"] == torch.get_num_threads()
    assert described["cpu"]
    assert described["date"].endswith("+00:00")


def test_the_peak_is_measured_in_each_size_and_precision():
    for precision in ("no", "bf16"):
        rates = matmul_rates(torch.device("cpu"), precision, [16, 32])
        assert list(rates) == [16, 32]
        assert min(rates.values()) > 0


def test_memory_is_counted_in_bytes():
    before = peak_memory(torch.device("cpu"))
    block = torch.ones(256 << 20, dtype=torch.uint8)
    assert peak_memory(torch.device("cpu")) >= before
    assert peak_memory(torch.device("cpu")) > len(block)

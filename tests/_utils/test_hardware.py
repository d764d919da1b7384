"""Threads, memory, matrix products and attention on CPUs, and the choice of precision."""

import resource
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from ecg_jepa import EcgJepaForSequenceClassification
from ecg_jepa._utils import hardware
from ecg_jepa._utils.hardware import (
    fastest_precision,
    keep_memory,
    matmul_is_exact,
    onednn_is_faster,
    set_threads,
    set_up_cpu,
    use_faster_attention,
    use_faster_matmul,
    warn_of_slow_precision,
)

MATMUL = torch.backends.mkldnn.matmul
AMD = {"avx512_f": True, "amx_tile": False, "amx_bf16": False, "cpu_name": "AMD EPYC 9655"}
LAUNCHED = {"LOCAL_WORLD_SIZE": "1"}


@pytest.fixture
def environment(monkeypatch):
    """Three cores, and variables of the environment."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)

    def declare(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return declare


@pytest.mark.parametrize(
    ("variables", "threads", "warning"),
    [
        ({}, 3, ""),
        (LAUNCHED, 3, ""),
        ({"LOCAL_WORLD_SIZE": "2"}, 1, ""),
        ({"LOCAL_WORLD_SIZE": "8"}, 1, "asks for 1 threads in each of 8 processes, more than the 3 cores"),
        ({"OMP_NUM_THREADS": "2"}, 2, ""),
        ({"OMP_NUM_THREADS": "2,1"}, 2, ""),
        ({"OMP_NUM_THREADS": "16"}, 16, "asks for 16 threads, more than the 3 cores"),
        ({"OMP_NUM_THREADS": "1"}, 1, ""),
        ({"OMP_NUM_THREADS": "1", **LAUNCHED}, 1, "leaves cores idle: set OMP_NUM_THREADS=3"),
        ({"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, 1, "--num_cpu_threads_per_process 3"),
        ({"OMP_NUM_THREADS": "2", **LAUNCHED}, 2, ""),
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, 1, ""),
    ],
)
def test_threads_are_those_of_the_environment_or_a_share_of_the_cores(environment, caplog, variables, threads, warning):
    environment(**variables)
    set_threads()
    assert torch.get_num_threads() == threads
    assert warning in caplog.text
    assert bool(caplog.records) == bool(warning)


@pytest.mark.parametrize("value", ["0", "many", "-1", "1.5", ""])
def test_what_is_no_number_of_threads_is_refused(environment, value):
    environment(OMP_NUM_THREADS=value)
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS='{value}' is no number of threads: unset it"):
        set_threads()


def test_other_devices_keep_their_threads(environment):
    environment(OMP_NUM_THREADS="2")
    set_up_cpu(SimpleNamespace(device=torch.device("cuda"), mixed_precision="bf16"))
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("half", "single", "expected"), [(1.0, 2.0, "bf16"), (1.0, 1.05, "no"), (2.0, 1.0, "no")])
def test_the_faster_precision_by_a_margin(monkeypatch, half, single, expected):
    monkeypatch.setattr(hardware, "_seconds_of_a_layer", {torch.bfloat16: half, torch.float32: single}.get)
    assert fastest_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize(("half", "precision", "warned"), [(9.0, "bf16", True), (1.05, "bf16", False), (9.0, "no", False)])
def test_a_slow_precision_is_warned_of(monkeypatch, caplog, half, precision, warned):
    monkeypatch.setattr(hardware, "_seconds_of_a_layer", {torch.bfloat16: half, torch.float32: 1.0}.get)
    warn_of_slow_precision(torch.device("cpu"), precision)
    assert ("bfloat16 takes 9.0 times as long as float32 on this CPU" in caplog.text) == warned


@pytest.mark.slow
def test_this_machine_is_measured(monkeypatch):
    asked = []
    measure = hardware._seconds_of_a_layer
    monkeypatch.setattr(hardware, "_seconds_of_a_layer", lambda dtype: asked.append(dtype) or measure(dtype))
    assert fastest_precision(torch.device("cpu")) in ("bf16", "no")
    assert asked == [torch.bfloat16, torch.float32] * 5


def test_float32_is_measured_as_training_computes_it(monkeypatch):
    order = []
    monkeypatch.setattr(hardware, "use_faster_matmul", lambda: order.append("matmul"))
    monkeypatch.setattr(hardware, "_seconds_of_a_layer", lambda dtype: order.append("measured") or 1.0)
    fastest_precision(torch.device("cpu"))
    assert order[:2] == ["matmul", "measured"]
    order.clear()
    set_up_cpu(Accelerator(cpu=True))
    assert order == ["matmul"]


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

    keep_memory()
    # In a process that has run other tests, the first tensors may still need a new place.
    assert min(faults() for _ in range(4)) < 16_384


def test_matmul_of_this_machine_stays_float32():
    assert use_faster_matmul() == onednn_is_faster() == (MATMUL.fp32_precision == "bf16")
    assert matmul_is_exact()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({}, True), ({"cpu_name": "Intel(R) Xeon(R)"}, False), ({"avx512_f": False}, False), ({"amx_tile": True}, False)],
)
def test_cpus_of_amd_with_avx512_and_without_amx(monkeypatch, changed, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD | changed)
    monkeypatch.setattr(hardware, "matmul_is_exact", lambda: True)
    assert use_faster_matmul() == expected
    assert MATMUL.fp32_precision == ("bf16" if expected else "none")


def test_other_processors_have_fewer_capabilities(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    assert not use_faster_matmul()


def test_rounded_products_are_not_used(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD)
    monkeypatch.setattr(hardware, "matmul_is_exact", lambda: False)
    assert not use_faster_matmul()
    assert MATMUL.fp32_precision == "none"


@pytest.mark.parametrize("setting", ["ieee", "tf32", "bf16"])
def test_a_matmul_setting_of_the_user_stays(monkeypatch, setting):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD)
    MATMUL.fp32_precision = setting
    assert use_faster_matmul() == (setting == "bf16")
    assert MATMUL.fp32_precision == setting


def test_rounding_to_bfloat16_is_seen():
    left, right = torch.randn(64, 192), torch.randn(192, 64)
    assert hardware._is_exact(left, right, left @ right)
    assert not hardware._is_exact(left, right, left.bfloat16().float() @ right.bfloat16().float())


@pytest.mark.parametrize(
    ("onednn", "precision", "num_tokens", "implementation"),
    [
        (False, "no", 21, "sdpa"),
        (True, "no", 21, "eager"),
        (False, "bf16", 21, "eager"),
        (True, None, 5000, "sdpa"),
    ],
)
def test_attention_is_plain_where_it_is_faster(tiny_config, onednn, precision, num_tokens, implementation):
    model = EcgJepaForSequenceClassification(tiny_config)
    MATMUL.fp32_precision = "bf16" if onednn else "none"
    use_faster_attention(model, num_tokens, precision)
    assert model.ecg_jepa.config._attn_implementation == implementation


def test_an_attention_that_the_user_chose_stays(tiny_config):
    model = EcgJepaForSequenceClassification._from_config(tiny_config, attn_implementation="flex_attention")
    use_faster_attention(model, 21, "bf16")
    assert model.config._attn_implementation == "flex_attention"

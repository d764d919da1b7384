"""Who multiplies float32 matrices, and that they stay float32."""

import pytest
import torch

from ecg_jepa._utils import matmul as products
from ecg_jepa._utils.matmul import onednn_is_faster, products_are_exact, use_faster_products

SETTING = torch.backends.mkldnn.matmul
AMD = {"avx512_f": True, "amx_tile": False, "amx_bf16": False, "cpu_name": "AMD EPYC 9655"}


def test_this_machine():
    """Whatever it is: float32 stays float32."""
    assert use_faster_products() == onednn_is_faster() == (SETTING.fp32_precision == "bf16")
    assert products_are_exact()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({}, True), ({"cpu_name": "Intel(R) Xeon(R)"}, False), ({"avx512_f": False}, False), ({"amx_tile": True}, False)],
)
def test_cpus_of_amd_with_avx512_and_without_amx(monkeypatch, changed, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD | changed)
    monkeypatch.setattr(products, "products_are_exact", lambda: True)
    assert use_faster_products() == expected
    assert SETTING.fp32_precision == ("bf16" if expected else "none")


def test_other_processors_tell_less(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    assert not use_faster_products()


def test_products_that_are_rounded_are_not_taken(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD)
    monkeypatch.setattr(products, "products_are_exact", lambda: False)
    assert not use_faster_products()
    assert SETTING.fp32_precision == "none"


@pytest.mark.parametrize("setting", ["ieee", "tf32", "bf16"])
def test_a_setting_of_the_user_stays(monkeypatch, setting):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD)
    SETTING.fp32_precision = setting
    assert use_faster_products() == (setting == "bf16")
    assert SETTING.fp32_precision == setting


def test_rounding_to_bfloat16_is_seen():
    left, right = torch.randn(64, 192), torch.randn(192, 64)
    assert products._is_exact(left, right, left @ right)
    assert not products._is_exact(left, right, left.bfloat16().float() @ right.bfloat16().float())

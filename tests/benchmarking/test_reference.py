"""Checkouts that are none. One that is one runs in tests/training/test_benchmark.py, in a process of its own."""

import sys

import pytest
from reference_checkout import write_checkout

from ecg_jepa.benchmarking.reference import _find, check_checkout


@pytest.fixture(autouse=True)
def _forget_its_modules():
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("configs", "models"):
            del sys.modules[name]


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(ValueError, match=r"no checkout .* there is no configs/pretrain/__init__.py nor models/__init__.py"):
        check_checkout(str(tmp_path))


def test_modules_of_other_content(tmp_path):
    write_checkout(tmp_path, model="class Other: ...")
    before = list(sys.path)
    with pytest.raises(ValueError, match=r"cannot be imported as the reference implementation .* 'JEPA'"):
        _find(str(tmp_path))
    assert sys.path == before


def test_a_checkout(tmp_path):
    config, model = _find(str(write_checkout(tmp_path)))
    assert (config.__name__, model.__name__) == ("Config", "JEPA")

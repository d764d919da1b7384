import os

import pytest

from ecg_jepa.benchmarking.workers import Worker


class Thing:
    def __init__(self, value):
        if value < 0:
            raise ValueError(f"{value} cannot be")
        self.value = value

    def plus(self, more):
        return self.value + more, os.getpid()

    def fail(self):
        class OfNobodyError(Exception):
            pass

        raise OfNobodyError("and why")

    def die(self):
        os._exit(9)


def test_each_is_a_process_of_its_own_that_outlives_a_failure():
    with Worker("one", Thing, 1) as one, Worker("two", Thing, 2) as two:
        (first, one_pid), (second, two_pid) = one.call("plus", 1), two.call("plus", 1)
        assert (first, second) == (2, 3)
        assert len({one_pid, two_pid, os.getpid()}) == 3
        with pytest.raises(RuntimeError, match="OfNobodyError: and why"):
            one.call("fail")
        assert one.call("plus", 2) == (3, one_pid)
        with pytest.raises(OSError, match=r"The process of two died \(status 9\): there may not be memory"):
            two.call("die")
    assert not one._process.is_alive()


def test_what_cannot_be_made_is_an_error_of_the_first_call():
    with Worker("broken", Thing, -1) as broken, pytest.raises(ValueError, match="-1 cannot be"):
        broken.call("plus", 1)

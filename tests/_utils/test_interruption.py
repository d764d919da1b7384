import os
import signal

import pytest
from accelerate import Accelerator

from ecg_jepa._utils.interruption import StopSignals, exit_code


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


def test_exit_codes_are_those_of_shells():
    assert [exit_code(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == [143, 138, 130]

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from accelerate import Accelerator

from ecg_jepa.common.signals import StopSignals, exit_code, run_to_the_end


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


# Says that it listens, and writes down which signal it got.
CHILD = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: (open(sys.argv[1] + ".end", "w").write(str(number)), os._exit(3)))
open(sys.argv[1], "w").close()
signal.pause()
"""


def test_what_is_run_is_waited_for(tmp_path):
    assert run_to_the_end([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_who_is_asked_to_stop_passes_it_on_and_waits(tmp_path):
    listening = tmp_path / "child"

    def ask() -> None:
        while not listening.exists():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        run_to_the_end([sys.executable, "-c", CHILD, str(listening)])
    assert end.value.code == 143
    assert Path(f"{listening}.end").read_text() == str(int(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is before

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from accelerate import Accelerator
from comparison.commands import Commands

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


# Says that it listens, and writes down which signal it got.
CHILD = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: (open(sys.argv[1] + ".end", "w").write(str(number)), os._exit(3)))
open(sys.argv[1], "w").close()
signal.pause()
"""


def test_what_is_run_is_waited_for():
    with Commands() as commands:
        assert commands.run([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_what_is_run_has_the_cores_and_the_file_that_it_is_given(tmp_path):
    core = min(os.sched_getaffinity(0))
    words = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0)); raise ValueError('odd')"]
    with Commands() as commands, (tmp_path / "log").open("w") as log:
        assert commands.run(words, cores=[core], output=log) == 1
    assert f"{{{core}}}" in (tmp_path / "log").read_text()
    assert "ValueError: odd" in (tmp_path / "log").read_text()


def test_who_is_asked_to_stop_passes_it_on_to_all_and_waits(tmp_path):
    children = [tmp_path / "first", tmp_path / "second"]

    def ask() -> None:
        while not all(child.exists() for child in children):
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with Commands() as commands, ThreadPoolExecutor(2) as threads:
        threading.Thread(target=ask).start()
        runs = [threads.submit(commands.run, [sys.executable, "-c", CHILD, str(child)]) for child in children]
        codes = [run.exception().code for run in runs]
        with pytest.raises(SystemExit):  # none is started any more
            commands.run([sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(tmp_path / "third")])
    assert codes == [143, 143]
    for child in children:
        assert Path(f"{child}.end").read_text() == str(int(signal.SIGTERM))
    assert not (tmp_path / "third").exists()
    assert signal.getsignal(signal.SIGTERM) is before

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from comparison.processes import Commands

# Creates a file when it is ready, and writes the signal that it receives to another.
CHILD = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: (open(sys.argv[1] + ".end", "w").write(str(number)), os._exit(3)))
open(sys.argv[1], "w").close()
signal.pause()
"""


def test_the_exit_status_is_returned():
    with Commands() as commands:
        assert commands.run([sys.executable, "-c", "raise SystemExit(7)"]) == 7


def test_cores_and_output_are_passed_on(tmp_path):
    core = min(os.sched_getaffinity(0))
    words = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0)); raise ValueError('odd')"]
    with Commands() as commands, (tmp_path / "log").open("w") as log:
        assert commands.run(words, cores=[core], output=log) == 1
    assert f"{{{core}}}" in (tmp_path / "log").read_text()
    assert "ValueError: odd" in (tmp_path / "log").read_text()


def test_a_signal_is_passed_on_to_all_commands(tmp_path):
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

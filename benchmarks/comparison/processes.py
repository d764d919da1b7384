"""Run commands in processes of their own."""

import os
import signal
import subprocess
from collections.abc import Collection, Sequence
from types import FrameType, TracebackType
from typing import IO, Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Commands:
    """
    Run commands in sessions of their own, several at once when they are started from several threads. While this context is open
    (in the main thread), signals that ask to stop are passed on to all of them, so that they write their checkpoints.
    """

    def __init__(self) -> None:
        self.received = 0
        self._running: set[subprocess.Popen[bytes]] = set()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Commands":
        self._previous = {number: signal.signal(number, self._pass_on) for number in STOP_SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for process in list(self._running):
            process.send_signal(number)

    def run(self, command: Sequence[str], cores: Collection[int] = (), output: IO[str] | None = None) -> int:
        """
        Run a command to its end and return its exit status.

        Args:
            command: program and arguments.
            cores: CPU cores that it may use; default: those of this process.
            output: open file for both of its output streams; default: those of this process.

        Raises:
            SystemExit: with the shell's status of the signal, if this process was asked to stop.
        """
        if not self.received:
            # The variable tells the commands that a program started them: they end when it dies.
            environment = {**os.environ, "ECG_JEPA_STARTED": "1"}
            process = subprocess.Popen(command, start_new_session=True, env=environment, stdout=output, stderr=output)
            self._running.add(process)
            try:
                if self.received:  # a signal that came between the check and the start
                    process.send_signal(self.received)
                if cores:
                    os.sched_setaffinity(process.pid, cores)  # before it has threads, which inherit it
                status = process.wait()
            finally:
                self._running.discard(process)
        if self.received:
            raise SystemExit(128 + self.received)
        return status

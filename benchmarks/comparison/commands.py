"""Commands that a comparison starts."""

import os
import signal
import subprocess
from collections.abc import Collection, Sequence
from types import FrameType, TracebackType
from typing import IO, Any

from ecg_jepa._utils.interruption import ASK_TO_STOP, STARTED_BY_US, exit_code


class Commands:
    """
    Runs commands in sessions of their own, several at once if they are started from several threads. While it is open, in the
    main thread, signals that ask to stop are passed on to all that run, which may have a checkpoint to write, and none is started
    any more.
    """

    def __init__(self) -> None:
        self.received = 0
        self._running: set[subprocess.Popen[bytes]] = set()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Commands":
        self._before = {number: signal.signal(number, self._pass_on) for number in ASK_TO_STOP}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for process in list(self._running):
            process.send_signal(number)

    def run(self, command: Sequence[str], cores: Collection[int] = (), output: IO[str] | None = None) -> int:
        """
        Run one and wait for it.

        Args:
            command: its words.
            cores: of the CPU that it may use; default: those of this process.
            output: an open file that what it prints goes to; default: where this process prints.

        Returns:
            Its exit status.

        Raises:
            SystemExit: if this process was asked to stop, with the status that says so.
        """
        if not self.received:
            environment = {**os.environ, STARTED_BY_US: "1"}
            process = subprocess.Popen(command, start_new_session=True, env=environment, stdout=output, stderr=output)
            self._running.add(process)
            try:
                if self.received:  # between the question and the start
                    process.send_signal(self.received)
                if cores:
                    os.sched_setaffinity(process.pid, cores)  # now, before it has threads, which inherit it
                status = process.wait()
            finally:
                self._running.discard(process)
        if self.received:
            raise SystemExit(exit_code(self.received))
        return status

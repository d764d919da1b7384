"""How a run is asked to stop, and how it ends with whoever launched it."""

import ctypes
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Collection, Sequence
from types import FrameType, TracebackType
from typing import IO, Any

import torch
from accelerate import Accelerator

from .launcher import TRACES

logger = logging.getLogger(__name__)

# SIGTERM: of kill, systemd, Kubernetes, SLURM; SIGUSR1: SLURM's usual warning before the time is over; SIGINT: Ctrl-C.
_ASK_TO_STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

OWN_REASON = 1 << 16  # larger than any signal

_PR_SET_PDEATHSIG = 1  # prctl(2)


class StopSignals:
    """
    While it is open, the signals that ask a process to stop are noted instead of ending it at once. A second SIGINT does.

    Args:
        accelerator: of the run; what one process is asked, all of them learn at the same step.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.received = 0
        self._before: dict[int, Any] = {}
        self._group: Any = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # Python hears signals there alone
            self._before = {number: signal.signal(number, self._receive) for number in _ASK_TO_STOP}
        if self.accelerator.num_processes > 1:
            # On the CPU, so that asking does not wait for what a GPU still computes.
            self._group = torch.distributed.new_group(backend="gloo")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def agreed(self, also: bool = False) -> int:
        """
        The signal that this or another process has received, the same on all of them; 0 for none, and `OWN_REASON` if one of
        them has `also` a reason of its own to stop.
        """
        own = OWN_REASON if also else self.received
        if self._group is None:
            return own
        number = torch.tensor(own)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(number.item())


def exit_code(number: int) -> int:
    """What a process that was ended by a signal returns, as shells have it: 143 for SIGTERM, 138 for SIGUSR1, 130 for SIGINT."""
    return 128 + number


_STARTED_BY_US = "ECG_JEPA_STARTED"  # in the environment of what Commands starts


def end_with_launcher() -> None:
    """
    Have the system send SIGTERM to this process when `accelerate launch` or a comparison, if it was started by one, dies: it
    would train on unseen, beside the run that is started in its place.
    """
    launched = any(name in os.environ for name in (*TRACES, _STARTED_BY_US))
    if launched and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        logger.warning("This process will not notice if its launcher dies: stop it by hand then.")


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
        self._before = {number: signal.signal(number, self._pass_on) for number in _ASK_TO_STOP}
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
            environment = {**os.environ, _STARTED_BY_US: "1"}
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

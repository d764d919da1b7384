"""How a run is asked to stop, and how it ends with whoever launched it."""

import ctypes
import logging
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

logger = logging.getLogger(__name__)

# SIGTERM: of kill, systemd, Kubernetes, SLURM; SIGUSR1: SLURM's usual warning before the time is over; SIGINT: Ctrl-C.
ASK_TO_STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

OWN_REASON = 1 << 16  # larger than any signal

# Of which launchers leave at least one in the environment of what they start.
STARTED_BY_US = "ECG_JEPA_STARTED"  # in the environment of what a comparison starts
_TRACES = ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", STARTED_BY_US)

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
            self._before = {number: signal.signal(number, self._receive) for number in ASK_TO_STOP}
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


def end_with_launcher() -> None:
    """
    Have the system send SIGTERM to this process when `accelerate launch` or a comparison, if it was started by one, dies: it
    would train on unseen, beside the run that is started in its place.
    """
    launched = any(name in os.environ for name in _TRACES)
    if launched and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        logger.warning("This process will not notice if its launcher dies: stop it by hand then.")

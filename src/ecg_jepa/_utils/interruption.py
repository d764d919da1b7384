"""Stopping of a run by signals of the operating system, and with its launcher."""

import ctypes
import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

logger = logging.getLogger(__name__)

# SIGTERM: sent by kill, systemd, Kubernetes, SLURM; SIGUSR1: SLURM's usual warning before the time is over; SIGINT: Ctrl-C.
_STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

# Launchers, and benchmarks/compare.py, leave at least one of these in the environment of what they start.
_TRACES = ("ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", "ECG_JEPA_STARTED")

_PR_SET_PDEATHSIG = 1  # prctl(2)


class StopSignals:
    """
    A context in which signals that ask a process to stop are noted instead of ending it at once. A second SIGINT ends it.

    Args:
        accelerator: of the run, whose processes all stop when one of them is asked to.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.received = 0
        self._before: dict[int, Any] = {}
        self._group: Any = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # Python handles signals there only
            self._before = {number: signal.signal(number, self._receive) for number in _STOPPING}
        if self.accelerator.num_processes > 1:
            # On the CPU, so that asking does not wait for a GPU.
            self._group = torch.distributed.new_group(backend="gloo")
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def agreed(self) -> int:
        """Return the signal that this or another process has received, the same on all of them; 0 for none."""
        if self._group is None:
            return self.received
        number = torch.tensor(self.received)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(number.item())


def exit_code(number: int) -> int:
    """Return the exit status of a process that a signal has ended, as shells have it: 143 for SIGTERM, 130 for SIGINT."""
    return 128 + number


def end_with_launcher() -> None:
    """Have this process get SIGTERM when its launcher dies, if it has one, so that no run trains on unseen."""
    launched = any(name in os.environ for name in _TRACES)
    if launched and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        logger.warning("This process will not notice if its launcher dies: stop it by hand then.")

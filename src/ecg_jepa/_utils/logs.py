"""
What package and commands say while they work: through `logging`, under the name `ecg_jepa`, from one process.

transformers' `TRANSFORMERS_VERBOSITY` (debug, info, warning, error) counts here, too; commands say what `info` says unless told
otherwise. What a command was asked for (a table, a listing) is no log and goes to the output stream.
"""

import logging
import os
import sys
from typing import Any

from tqdm.auto import tqdm

LIBRARY = "ecg_jepa"
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class _BesideProgressBars(logging.Handler):
    """Lines that do not tear a progress bar apart, on whatever the error stream is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def start_logging() -> None:
    """For commands: lines with their time on the error stream of the first process; of the others, errors only."""
    logger = logging.getLogger(LIBRARY)
    is_first = os.environ.get("RANK", "0") == "0"
    if not sys.stderr.isatty():
        # Of the libraries, which have not been imported yet; ours look for themselves.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logger.setLevel(_LEVELS.get(os.environ.get("TRANSFORMERS_VERBOSITY", "info").lower(), logging.INFO))
    if not is_first:
        logger.setLevel(logging.ERROR)
    if not any(isinstance(handler, _BesideProgressBars) for handler in logger.handlers):
        handler = _BesideProgressBars()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)


def progress_bar(*args: Any, **options: Any) -> tqdm:
    """A bar of tqdm on a terminal's first process; none in a file, where it would leave control codes."""
    is_first = os.environ.get("RANK", "0") == "0"
    return tqdm(*args, **{"disable": None if is_first else True, **options})


def duration(seconds: float) -> str:
    """Such as `2:05:09` or `4:10`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""
Log lines and progress bars of commands, from the first process; what a command was asked for (a table, a listing) is no log and
goes to the output stream. The logger is `ecg_jepa`, its level that of `TRANSFORMERS_VERBOSITY` (debug, info, warning, error).
"""

import logging
import os
import sys
from typing import Any

from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging


class _ProgressBarHandler(logging.Handler):
    """Writes lines above a progress bar, on the error stream of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def start_logging() -> None:
    """Write log lines with their time on the error stream of the first process; of the others, errors only."""
    if not sys.stderr.isatty():  # progress bars would fill a file with control codes
        transformers_logging.disable_progress_bar()
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # datasets is imported later
    logger, level = logging.getLogger("ecg_jepa"), os.environ.get("TRANSFORMERS_VERBOSITY", "info").upper()
    logger.setLevel(logging.getLevelNamesMapping().get(level, logging.INFO) if _is_first() else logging.ERROR)
    if not any(isinstance(handler, _ProgressBarHandler) for handler in logger.handlers):
        handler = _ProgressBarHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)


def progress_bar(*args: Any, **options: Any) -> tqdm:
    """Return a progress bar of tqdm that shows on the first process's terminal, and not in files."""
    return tqdm(*args, **{"disable": None if _is_first() else True, **options})


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"

"""Logs of JSON lines: neither a kill nor a full disk loses a line that was written."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import replace_file

logger = logging.getLogger(__name__)


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """
    Return the lines of a file, none if there is no such file.

    A last line that a kill or a full disk has torn is left out; any other that cannot be read is left out with a warning.
    """
    path = Path(path)
    texts = path.read_bytes().split(b"\n") if path.is_file() else []
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text) if text.strip() else None
        except ValueError:
            line = text
        if isinstance(line, dict):
            lines.append(line)
        elif line is not None and number < len(texts):
            logger.warning(f"{path}, line {number} cannot be read, and is left out.")
    return lines


class JsonLines:
    """
    A file that lines are appended to.

    Args:
        path: of the file, which is created if it does not exist.
        keep: returns whether to keep a line that is in the file already.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], bool]):
        self.path = path
        replace_file(path, "".join(json.dumps(line) + "\n" for line in read_lines(path) if keep(line)))
        self._waiting = b""

    def append(self, line: dict[str, Any]) -> None:
        """Add a line; while the disk is full, lines wait in memory, with one warning."""
        text = json.dumps(line).encode() + b"\n"
        try:
            with self.path.open("ab") as file:
                file.write(self._waiting + text)
        except OSError as error:
            if not self._waiting:
                logger.warning(f"{self.path} cannot be written to, lines wait in memory: {error}")
                text = b"\n" + text  # ends what the full disk has taken of a line
            self._waiting += text
        else:
            self._waiting = b""

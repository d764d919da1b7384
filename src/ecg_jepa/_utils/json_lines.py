"""Files of JSON lines that a run appends to: neither a kill nor a full disk loses a line that was written."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import replace_file

logger = logging.getLogger(__name__)


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """
    All whole lines of a file, none if there is no such file. A kill or a full disk may have torn the last one, which is left out;
    any other that cannot be read is left out with a warning.
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
        path: of the file; made if it is not there.
        keep: which of the lines that are there stay.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], bool]):
        self.path = path
        kept = "".join(json.dumps(line) + "\n" for line in read_lines(path) if keep(line))
        replace_file(path, kept)
        self._size = len(kept.encode())
        self._waiting = b""

    def append(self, line: dict[str, Any]) -> None:
        """Add a line; while the disk is full, lines wait in memory, with a warning."""
        waited = bool(self._waiting)
        self._waiting += json.dumps(line).encode() + b"\n"
        try:
            if not self.path.is_file():  # somebody removed it
                self.path.touch()
                self._size = 0
            with self.path.open("r+b") as file:
                # What a full disk left of a line is written over.
                file.seek(self._size)
                file.truncate()
                file.write(self._waiting)
        except OSError as error:
            if not waited:
                logger.warning(f"{self.path} cannot be written to, lines wait in memory: {error}")
            return
        self._size += len(self._waiting)
        self._waiting = b""

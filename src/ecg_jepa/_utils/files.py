"""Files that are written whole or not at all, logs of JSON lines, digests, and what ships with the package."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

RANDOM_PREFIX = "random:"  # of names of encoders with random weights: random:xs, random:DIRECTORY

TRAINING_INFO_FILE = "training_info.json"  # beside the weights of every trained model; see publishing/directory.py


def shipped(kind: str) -> Path:
    """Return the folder of the `"configs"` or `"model_cards"` that ship with the package: inside it, or beside it in a clone."""
    package = Path(__file__).parents[1]
    in_clone = package.parents[1] / {"configs": "training/configs", "model_cards": "model_cards"}[kind]
    return package / kind if (package / kind).is_dir() else in_clone


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` at the end; an exception removes it and leaves `path` as it was."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: str | Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one, whenever the process is killed."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file as [`replace_file`] does."""
    replace_file(path, json.dumps(content, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file. Raises `ValueError` that names it if it is damaged."""
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from None


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a log, if there is one, without a torn last one; others that cannot be read are warned of."""
    path = Path(path)
    texts = path.read_bytes().split(b"\n") if path.is_file() else []
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines += [json.loads(text)] if text.strip() else []
        except ValueError:
            if number < len(texts):
                logger.warning(f"{path}, line {number} cannot be read, and is left out.")
    return lines


class JsonLines:
    """A log that lines are appended to, after those in it that `keep` returns true for; a kill or a full disk loses none."""

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
            self._waiting = b""
        except OSError as error:
            if not self._waiting:
                logger.warning(f"{self.path} cannot be written to, lines wait in memory: {error}")
                text = b"\n" + text  # ends what the full disk has taken of a line
            self._waiting += text


def digest_of(content: Any) -> str:
    """Return the SHA-256 of values that JSON can hold, whatever the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the content of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()

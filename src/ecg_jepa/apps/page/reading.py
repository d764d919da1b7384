"""What a visitor gives -> an ECG: files that were uploaded, and what they do not say."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...formats.ecg import split_names
from ...formats.read import WFDB_SUFFIXES, Ecg, is_ecg_file, read_ecg

_ASKED_FOR = ("sampling_rate", "unit", "lead_names")


@dataclass(frozen=True)
class Declaration:
    """What a visitor says of a file that does not say it itself; `None` where there is nothing to say."""

    sampling_rate: float | None = None
    unit: str | None = None
    lead_names: list[str] | None = None

    @classmethod
    def parse(cls, sampling_rate: float | None, unit: str | None, lead_names: str | None) -> "Declaration":
        """Of the fields of a form, in which nothing is 0 or an empty text."""
        return cls(sampling_rate or None, unit or None, split_names(lead_names or "") or None)


@dataclass
class Found:
    """An ECG as its file has it, and what the file does not say."""

    name: str
    ecg: Ecg
    missing: list[str] = field(default_factory=list)


@contextmanager
def together(uploads: Sequence[str | Path]) -> Iterator[Path]:
    """
    The file to open of those that were uploaded, in a temporary folder that holds all of them under their own names.

    Raises:
        ValueError: if it is open which one is meant, or two have one name.
    """
    paths = [Path(upload) for upload in uploads]
    names = [path.name for path in paths]
    if not paths:
        raise ValueError("No file was given: upload one, or pick an example.")
    if len(set(names)) < len(names):
        raise ValueError(f"Two files have the same name ({', '.join(sorted(names))}): upload the files of one record.")
    main = _main_file(paths)
    with TemporaryDirectory(prefix="ecg-") as folder:
        for path in paths:
            shutil.copyfile(path, Path(folder, path.name))
        yield Path(folder, main)


def _main_file(paths: Sequence[Path]) -> str:
    headers = [path.name for path in paths if path.suffix == ".hea"]
    if len(headers) == 1 and all(path.suffix in WFDB_SUFFIXES or path.stem == Path(headers[0]).stem for path in paths):
        return headers[0]
    if len(paths) == 1 and paths[0].suffix != ".dat":
        return paths[0].name
    if not headers and any(path.suffix in WFDB_SUFFIXES for path in paths):
        raise ValueError(
            f"{', '.join(path.name for path in paths)}: a WFDB record is a header (.hea) and its signal files (.dat or .mat). "
            "Upload them together."
        )
    raise ValueError(
        f"{len(paths)} files were given ({', '.join(path.name for path in paths)}): upload one ECG at a time; only WFDB records "
        "have several files."
    )


def look_at(uploads: Sequence[str | Path]) -> Found:
    """
    What a record says of itself; not yet whether it can be an ECG.

    Raises:
        ValueError: if it cannot be read, in words.
    """
    name, ecg = _open(uploads, check_plausibility=False)
    return Found(name, ecg, [name for name in _ASKED_FOR if getattr(ecg, name) is None])


def read(uploads: Sequence[str | Path], declared: Declaration) -> Found:
    """
    The record with what was declared of it where it says nothing.

    Raises:
        ValueError: if it cannot be read, or cannot be an ECG.
    """
    missing = look_at(uploads).missing
    given = {name: getattr(declared, name) for name in missing if getattr(declared, name) is not None}
    name, ecg = _open(uploads, **given)
    return Found(name, ecg, [name for name in missing if name not in given])


def asked_for(found: Found, amplitude_free: bool) -> list[str]:
    """What must still be said of a record before a model can take it; one that sees no amplitudes needs no unit."""
    return [name for name in found.missing if not (name == "unit" and amplitude_free)]


def _open(uploads: Sequence[str | Path], **options: Any) -> tuple[str, Ecg]:
    with together(uploads) as path:
        try:
            return path.name, read_ecg(path, **options)
        except (ValueError, OSError) as error:
            # Of the temporary folder the visitor knows nothing.
            raise ValueError(str(error).replace(f"{path.parent}{os.sep}", "")) from error


def examples_in(folder: str | Path) -> dict[str, list[str]]:
    """Name of each record in a folder -> its files; files of one stem are one record, what is no ECG beside them is none."""
    records: dict[str, list[str]] = {}
    for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else ():
        if path.is_file() and (path.suffix in WFDB_SUFFIXES or is_ecg_file(path)):
            records.setdefault(path.stem, []).append(str(path))
    return records

"""The record type `Ecg`, and what the readers of all formats share."""

import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..model.signal_processing_ecg_jepa import MAX_VALUES, STANDARD_LEADS_LOWER, Ecg, RecordError, lead_name, to_millivolts

__all__ = ["Ecg", "RecordError"]

MISSING_FILE = "missing signal file"

LARGEST_FILE = 8 * MAX_VALUES  # bytes; real files of 12 leads over a day are shorter, in the widest of the formats

ReadEcg = tuple[Ecg, list[str] | None]  # the record, in mV if its file says units, and these units of the rows

Said = Sequence[str | None]  # names or units of the rows, `None` where the file does not say them


def as_read(path: Path, values: np.ndarray, rate: float | None = None, names: Said | None = None, units: Said = ()) -> ReadEcg:
    """Return what a file says as an `Ecg` in mV, and its units; without units, the values as they are and `None`."""
    signal, said = to_millivolts(path, values, units)
    return Ecg(signal, rate, names, None if said is None else "mV"), said  # type: ignore[arg-type]


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Raise what a reader or its library raises as `RecordError`: "unreadable ...", or "... is missing" with what to install."""
    try:
        yield
    except RecordError:
        raise
    except ImportError as error:
        library = (error.name or "a library").partition(".")[0]
        detail = f'{what} is read with the library {library}: pip install "ecg_jepa[formats]" ({error})'
        raise RecordError(path, f"{library} is missing", detail) from None
    except Exception as error:  # libraries raise what their parsing happens to run into
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise RecordError(path, f"unreadable {what}", f"{kind}{error}") from error


def split_names(text: str) -> list[str]:
    """Split a text into names of leads at spaces, commas and semicolons."""
    return re.findall(r"[^\s;,]+", text)


def count_standard(names: Iterable[str]) -> int:
    """Count the 12 standard leads among names, in any spelling."""
    return len({lead_name(name).lower() for name in names} & STANDARD_LEADS_LOWER)


def whole_rate(rate: float, tolerance: float = 1e-4) -> float:
    """Return the whole number of Hz next to a rate that was computed from rounded times, if it is within the tolerance."""
    whole = round(rate)
    return float(whole if abs(rate - whole) <= tolerance * rate else rate)


def plain_file_size(path: Path, file: Path, missing: str = MISSING_FILE, at_most: int | None = LARGEST_FILE) -> int:
    """
    Return the bytes of a file of the record `path`, before any of it is read. Raises `RecordError` with reason `missing` if it is
    not there, and if it is a folder, pipe or device (which could be read for ever), or has more than `at_most` bytes.
    """
    try:
        found = file.stat()
    except FileNotFoundError:
        raise RecordError(path, missing, f"no file {file.name}") from None
    except (OSError, ValueError) as error:  # no permission, links in a circle, too long a name; NUL in a name
        raise RecordError(path, "unreadable file", str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise RecordError(path, "no plain file", f"{file.name} is a folder, pipe or device")
    if at_most is not None and found.st_size > at_most:
        raise RecordError(path, "too large", f"{file.name} has {found.st_size:,} bytes, at most {at_most:,} are expected")
    return found.st_size


def check_length(path: Path, name: str, actual: int, expected: int) -> None:
    """Raise `RecordError` for a file with fewer or more bytes than its header says."""
    if actual != expected:
        reason = "truncated signal file" if actual < expected else "wrong length"
        raise RecordError(path, reason, f"{name} has {actual:,} bytes, its header says {expected:,}")


def check_record_size(path: Path, num_leads: int, num_samples: int) -> None:
    """Raise `RecordError` for more than `MAX_VALUES` samples in all leads."""
    if num_leads * num_samples > MAX_VALUES:
        detail = f"{num_leads} leads of {num_samples:,} samples, at most {MAX_VALUES:,} values: cut it into shorter records"
        raise RecordError(path, "too large", detail)

"""Where `embed` and `predict` take records from: prepared databases, and ECG files of any format."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.crops import batch_crops
from ..data.raw_files import check_headings, faults_of, find_ecg_files, read_csv
from ..data.records import MICROVOLTS_PER_MILLIVOLT, PreparedDatabase
from ..formats.ecg import Ecg, RecordError, split_names
from ..formats.read import read_ecg
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor

_RECORDS_AHEAD = 32  # few enough that recordings of 30 minutes fit into memory
_DECLARATIONS = ("sampling_rate", "unit", "lead_names")


@dataclass(frozen=True)
class RecordSource:
    """Names of records, and what reads a record by its number: crops as the model takes them, (crops, leads, samples)."""

    names: Sequence[str]
    read: Callable[[int], np.ndarray]

    def batches(
        self, numbers: Iterable[int], batch_size: int, rejections: list[dict[str, str]]
    ) -> Iterator[tuple[list[str], torch.Tensor, torch.Tensor]]:
        """
        Yield records in order, prefetching in threads: names, and a batch of [`data.crops.batch_crops`]. Unusable records are
        appended to `rejections`. Texts are UTF-8, which names of files need not be.
        """
        usable: list[str] = []

        def crops_of_usable() -> Iterator[np.ndarray]:
            for name, result in self._prefetch(numbers):
                if isinstance(result, RecordError):
                    texts = {"record": name, "reason": result.reason, "detail": result.detail}
                    rejections.append({key: _as_utf8(text) for key, text in texts.items()})
                else:
                    usable.append(_as_utf8(name))
                    yield result

        for crops, owners in batch_crops(crops_of_usable(), batch_size):
            yield usable[owners[0] : owners[-1] + 1], crops, owners

    def _prefetch(self, numbers: Iterable[int]) -> Iterator[tuple[str, np.ndarray | RecordError]]:
        def read(number: int) -> tuple[str, np.ndarray | RecordError]:
            name = self.names[number]
            try:
                return name, self.read(number)
            except RecordError as error:
                return name, error
            except Exception as error:  # an unforeseen error of one record must not end the others
                return name, RecordError(name, "unforeseen error", f"{type(error).__name__}: {error}")

        upcoming: deque[Future[tuple[str, np.ndarray | RecordError]]] = deque()
        with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as threads:
            for number in numbers:
                upcoming.append(threads.submit(read, number))
                if len(upcoming) > _RECORDS_AHEAD:
                    yield upcoming.popleft().result()
            while upcoming:
                yield upcoming.popleft().result()


def _as_utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


@dataclass(frozen=True)
class EcgFile:
    """A record's name and path, and what is declared of it, which the file must not contradict."""

    name: str
    path: Path
    declared: dict[str, Any] = field(default_factory=dict)


def prepared_source(database: PreparedDatabase, extractor: EcgJepaFeatureExtractor) -> RecordSource:
    """Return the records of a database. Raises `ValueError` unless leads, rate and kind of signal are the extractor's."""
    database.info.check_fits(extractor.sampling_rate, extractor.lead_names, extractor.amplitude_free)

    def read(number: int) -> np.ndarray:
        return extractor.normalize_and_crop(database.signal(number) / np.float32(MICROVOLTS_PER_MILLIVOLT))

    return RecordSource(database.column("record_id").astype(str).tolist(), read)


def file_source(
    files: Sequence[EcgFile],
    extractor: EcgJepaFeatureExtractor,
    declared: Mapping[str, Any] | None = None,
    allow_implausible: bool = False,
    allow_short: bool = False,
) -> RecordSource:
    """
    Return the records of files. `declared` are rate, unit and leads of files that do not say them; records that cannot be ECGs in
    their unit, or are shorter than a crop, are refused unless they are allowed.
    """
    whole = EcgJepaFeatureExtractor.from_dict({**extractor.to_dict(), "crop_duration": None, "crop_stride": None})

    def read(number: int) -> np.ndarray:
        file = files[number]
        with faults_of(file.name):
            ecg = read_silent_file(file.path, declared or {}, check_plausibility=False, **file.declared)
            duration = ecg.signal.shape[1] / ecg.sampling_rate if ecg.sampling_rate else np.inf
            is_short = allow_short and duration < (extractor.crop_duration or 0)
            values = (whole if is_short else extractor)(ecg, check_plausibility=not allow_implausible)["input_values"][0]
            return values if values.ndim == 3 else values[None]

    return RecordSource([file.name for file in files], read)


def read_silent_file(path: Path, declared: Mapping[str, Any], **options: Any) -> Ecg:
    """Read a file as [`read_ecg`] does with `options`; what is `declared` counts where the file says nothing."""
    ecg = read_ecg(path, **options)
    used = {name: value for name, value in declared.items() if value is not None and getattr(ecg, name) is None}
    return read_ecg(path, **options, **used) if used else ecg


def files_in_folder(folder: str | Path, exclude: Sequence[Path] = ()) -> list[EcgFile]:
    """Return the ECGs below a folder, named by their paths in it, but for `exclude`. Raises `FileNotFoundError` if none is."""
    excluded = {path.resolve() for path in exclude}
    files = [EcgFile(name, Path(folder, name)) for name in find_ecg_files(folder, folder)]
    files = [file for file in files if not excluded & {(place := file.path.resolve()), *place.parents}]
    if not files:
        raise FileNotFoundError(f"{folder} has no ECG in it or below: no WFDB record, and no file of another format.")
    return files


def files_in_table(path: str | Path) -> list[EcgFile]:
    """
    Return the files of a table with a column `path`, relative to the table, and where they are needed `sampling_rate`, `unit`,
    `lead_names` (separated by spaces) and `record_id`, which names a record.
    Raises `FileNotFoundError` or `ValueError` if there is none, headings are spelt otherwise, or two rows have one name.
    """
    table = read_csv(path, [], all_named=True)
    check_headings(table, ("path", "record_id", *_DECLARATIONS), (), str(path))
    files = []
    for number, row in enumerate(table.to_dict("records")):
        given: dict[str, Any] = {str(name): value for name, value in row.items() if not pd.isna(value)}
        if "path" not in given:
            raise ValueError(f"{path}: row {number} has no path.")
        if "lead_names" in given:
            given["lead_names"] = split_names(given["lead_names"])
        try:
            given |= {name: float(given[name]) for name in given.keys() & {"sampling_rate"}}
        except ValueError:
            raise ValueError(f"{path}: row {number}: sampling_rate is {given['sampling_rate']!r}, expected Hz.") from None
        name = given.get("record_id", given["path"].removesuffix(".hea"))  # as prepared databases name it
        declared = {name: given[name] for name in _DECLARATIONS if name in given}
        files.append(EcgFile(name, Path(path).parent / given["path"], declared))
    return each_once(files, str(path))


def each_once(files: list[EcgFile], where: str) -> list[EcgFile]:
    """Return the files. Raises `ValueError` if two have one name; `where` says where they are named."""
    repeated = [name for name, count in Counter(file.name for file in files).items() if count > 1]
    if repeated:
        raise ValueError(f"{where}: {', '.join(repeated[:3])} given twice: name each record once, in a table by its record_id.")
    return files

"""Records -> a table of labels with probabilities and decisions, and a list of those that were refused."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from .._utils.files import digest_of, read_json, write_json
from .._utils.json_lines import read_lines
from .._utils.logs import progress_bar
from .._utils.model_directory import model_directory
from .._utils.run_directory import LOCK_FILE, clear
from ..data.own_table import check_headings
from ..data.raw_files import faults_of, files_digest, find_ecg_files, read_csv
from ..data.records import write_rejections
from ..formats.ecg import Ecg, split_names
from ..formats.read import files_of, read_ecg
from ..formats.wfdb_record import RecordError
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from ..model.pipeline_ecg_jepa import EcgClassificationPipeline
from .embedding import RecordSource, read_ahead

SCHEMA = pa.schema(
    {
        **{"record": pa.string(), "label": pa.string(), "probability": pa.float32()},
        **{"threshold": pa.float32(), "decision": pa.bool_()},  # null where the checkpoint has none
    }
)
_RECORDS_A_PART = 256  # that are predicted again if a run is killed, at most


@dataclass(frozen=True)
class Predictions:
    """What became of the records: `rejections` have record, reason and detail; `found` of them were there already."""

    records: int
    rejections: list[dict[str, str]]
    found: int

    def reasons(self) -> list[tuple[str, int]]:
        """For which records were refused, the commonest first, and how many."""
        return Counter(rejection["reason"] for rejection in self.rejections).most_common()


@dataclass(frozen=True)
class RequestedRecord:
    """
    A record to classify.

    Args:
        name: in the table.
        path: of its file.
        declared: what is said of all records, and counts where this one's file says nothing.
        own: what is said of this one, which its file must not contradict.
    """

    name: str
    path: Path
    declared: dict[str, Any]
    own: dict[str, Any] = field(default_factory=dict)

    def read(self, check_plausibility: bool) -> Ecg:
        """Raises as [`read_ecg`]."""
        ecg = read_ecg(self.path, **self.own, check_plausibility=check_plausibility)
        silent = {name: value for name, value in self.declared.items() if value is not None and getattr(ecg, name) is None}
        return read_ecg(self.path, **self.own, **silent, check_plausibility=check_plausibility) if silent else ecg


@dataclass(frozen=True)
class RequestedRecords:
    """Records to classify."""

    records: list[RequestedRecord]

    @classmethod
    def in_folder(cls, folder: str | Path, declared: dict[str, Any], beside: Sequence[Path] = ()) -> "RequestedRecords":
        """
        All that are in a folder and below, by their paths in it, but for those of `beside`, which are no records. Raises
        `FileNotFoundError` if there are none.
        """
        others = {path.resolve() for path in beside}
        places = {name: Path(folder, name).resolve() for name in find_ecg_files(folder, folder)}
        names = [name for name, place in places.items() if not others & {place, *place.parents}]
        if not names:
            raise FileNotFoundError(f"{folder} has no record in a format that is known here, in it or below.")
        return cls([RequestedRecord(name, Path(folder, name), declared) for name in names])

    @classmethod
    def of_files(cls, files: Sequence[str], declared: dict[str, Any]) -> "RequestedRecords":
        """Those in files, by their paths as they were given. Raises `ValueError` if one is given twice."""
        repeated = [name for name, count in Counter(files).items() if count > 1]
        if repeated:
            raise ValueError(f"{', '.join(repeated[:3])} given twice: name each record once.")
        return cls([RequestedRecord(name, Path(name), declared) for name in files])

    @classmethod
    def in_table(cls, path: str | Path, declared: dict[str, Any]) -> "RequestedRecords":
        """
        Those of a table with a column `path`, relative to the table, and where they are needed `sampling_rate`, `unit`,
        `lead_names` (separated by spaces) and `record_id`, by which a record is called then.

        Raises:
            FileNotFoundError, ValueError: if there is no such table, a heading is one of these in another spelling, or two rows
                are called the same.
        """
        records = []
        table = read_csv(path, [], all_named=True)
        check_headings(table, ("path", "record_id", "sampling_rate", "unit", "lead_names"), (), str(path))
        for number, row in enumerate(table.to_dict("records")):
            given = {name: value for name, value in row.items() if not pd.isna(value)}
            if "path" not in given:
                raise ValueError(f"{path}: row {number} has no path.")
            own: dict[str, Any] = {name: given[name] for name in ("sampling_rate", "unit", "lead_names") if name in given}
            if "lead_names" in own:
                own["lead_names"] = split_names(own["lead_names"])
            if "sampling_rate" in own:
                own["sampling_rate"] = _rate(own["sampling_rate"], path, number)
            name = given.get("record_id", given["path"].removesuffix(".hea"))  # as prepared databases call it
            records.append(RequestedRecord(name, Path(path).parent / given["path"], declared, own))
        repeated = [name for name, count in Counter(record.name for record in records).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{path}: {', '.join(repeated[:3])} stand there twice: name each record once, by a column record_id."
            )
        return cls(records)

    def identity(self, about: dict[str, Any]) -> str:
        """A digest of the records, their files as they are now, and what else decides what comes out."""
        declared = [(record.name, str(record.path), record.declared, record.own) for record in self.records]
        salt = digest_of({"about": about, "records": declared})
        return files_digest([file for record in self.records for file in files_of(record.path)], salt)

    def source(self, extractor: EcgJepaFeatureExtractor, allow_implausible: bool) -> RecordSource:
        """The records as the model takes them."""

        def read(index: int) -> np.ndarray:
            record = self.records[index]
            with faults_of(record.name):
                ecg = record.read(check_plausibility=not allow_implausible)
                missing = [name for name in ("sampling_rate", "lead_names", "unit") if getattr(ecg, name) is None]
                if missing and not (missing == ["unit"] and extractor.amplitude_free):
                    flags = ", ".join(f"--{name}" for name in missing)
                    raise RecordError(record.name, "undeclared", f"the file does not say it: declare {flags}, or use a --table")
                return extractor(ecg, check_plausibility=not allow_implausible)["input_values"][0]

        return RecordSource([record.name for record in self.records], read)


def _rate(text: str, path: str | Path, number: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{path}: row {number}: sampling_rate is {text!r}, expected Hz.") from None


@dataclass(frozen=True)
class Classifier:
    """A classifier with its pre-processing, and the pipeline of both."""

    model: EcgJepaForSequenceClassification
    extractor: EcgJepaFeatureExtractor
    pipeline: Any

    @classmethod
    def load(cls, name_or_path: str | Path, device: torch.device | str = "cpu") -> "Classifier":
        """
        Raises:
            FileNotFoundError: if there is no such directory or Hub repository.
            ValueError: if it holds another kind of model.
        """
        directory = model_directory(name_or_path)
        architectures = EcgJepaConfig.from_pretrained(directory).architectures or ["unknown"]
        if EcgJepaForSequenceClassification.__name__ not in architectures:
            raise ValueError(
                f"{name_or_path} is no classifier ({', '.join(architectures)}): name the directory of one, as ecg-jepa finetune "
                "writes it."
            )
        model = EcgJepaForSequenceClassification.from_pretrained(directory).eval()
        extractor = EcgJepaFeatureExtractor.from_pretrained(directory)
        pipeline = EcgClassificationPipeline(model=model, feature_extractor=extractor, device=torch.device(device))
        return cls(model, extractor, pipeline)

    @torch.no_grad()
    def classify(self, records: Sequence[torch.Tensor], batch_size: int = 64) -> list[list[dict[str, Any]]]:
        """
        Crops of records, (crops, leads, samples) each and of one shape but for their number -> of each record the labels as the
        pipeline gives them, with decisions. So many crops run through the model together.
        """
        parts = torch.cat(list(records)).split(batch_size)
        logits = torch.cat([self.model(input_values=part.to(self.model.device)).logits.float().cpu() for part in parts])
        means = [rows.mean(dim=0, keepdim=True) for rows in logits.split([len(record) for record in records])]
        return [self.pipeline.postprocess({"logits": mean}, decide=True) for mean in means]


class PredictionFile:
    """
    A table on its way: parts in a folder beside it, until it is whole.

    Args:
        path: of the table, `.parquet` or `.csv`.
        identity: digest of all that decides its content; parts of another one are not gone on with.
    """

    def __init__(self, path: Path, identity: str):
        self.path = path
        self.identity = identity
        self.parts = path.with_name(f"{path.name}.parts")
        self.info = path.with_name(f"{path.name}.json")
        self.rejected = path.with_name(f"{path.name}.rejected.jsonl")

    @property
    def files(self) -> list[Path]:
        """All that is written."""
        return [self.path, self.parts, self.info, self.rejected]

    @property
    def is_finished(self) -> bool:
        """Whether the whole table of this identity is there."""
        return self.path.is_file() and self.info.is_file() and read_json(self.info).get("identity") == self.identity

    def check(self, overwrite: bool) -> None:
        """
        Raise `FileExistsError` if there is another table, or parts of one, unless they are to be overwritten; nothing is touched.
        """
        if self.parts.exists() and not self._mark.is_file() and list(self.parts.glob("[!.]*")):
            raise FileExistsError(f"{self.parts}, where parts are kept, holds other files: choose another --output_file.")
        others = [self._mark] if self._mark.is_file() and read_json(self._mark) != self.identity else []
        others += [self.path] if self.path.is_file() else []
        if others and not overwrite:
            raise FileExistsError(
                f"{others[0]} is of other records, settings or weights: replace it with --overwrite_output_file, or choose "
                "another --output_file."
            )

    def begin(self) -> None:
        """Remove parts of another table, and remember of which these are. Call it while no other run writes to them."""
        if not self._mark.is_file() or read_json(self._mark) != self.identity:
            clear(self.parts, ("part-*",))
        write_json(self._mark, self.identity)

    @property
    def _mark(self) -> Path:
        return self.parts / "identity.json"

    def part(self, number: int) -> tuple[Path, Path]:
        """Files of a part: its table, which is written last, and what was refused."""
        return self.parts / f"part-{number:06d}.parquet", self.parts / f"part-{number:06d}.rejected.jsonl"

    def write_part(self, number: int, rows: Sequence[dict[str, Any]], rejections: list[dict[str, str]]) -> None:
        """A part, whole or not at all."""
        path, rejected = self.part(number)
        write_rejections(rejected, rejections)
        temporary = path.with_suffix(".tmp")
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), temporary)
        temporary.replace(path)

    def finish(self, count: int, about: dict[str, Any]) -> list[dict[str, str]]:
        """
        Join the parts into the table and the list of what was refused, which is returned, in place of what is there. Without a
        row, nothing is finished, and a table that is there stays.
        """
        parts = [self.part(number) for number in range(count)]
        rejections = [line for _, rejected in parts for line in read_lines(rejected)]
        table = pa.concat_tables([pq.read_table(path, schema=SCHEMA) for path, _ in parts])
        if table.num_rows:
            self._replace(table, rejections, about)
        elif not self.path.is_file():
            write_rejections(self.rejected, rejections)
        clear(self.parts, ("part-*", self._mark.name, LOCK_FILE))
        self.parts.rmdir()
        return rejections

    def _replace(self, table: pa.Table, rejections: list[dict[str, str]], about: dict[str, Any]) -> None:
        """Put the table and what stands beside it in place of what is there."""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        if self.path.suffix == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary)
        for path in (self.info, self.path, self.rejected):
            path.unlink(missing_ok=True)
        if rejections:
            write_rejections(self.rejected, rejections)
        write_json(self.info, {**about, "identity": self.identity})
        temporary.replace(self.path)  # by which it is finished


def predict(
    classifier: Classifier, source: RecordSource, file: PredictionFile, batch_size: int, about: dict[str, Any]
) -> Predictions:
    """
    Write a table with a row per record and label; what is there of it already is gone on with.

    Args:
        classifier: model and pre-processing.
        source: of records; what it reads is `input_values` (crops, leads, samples), with as many dimensions as the extractor
            gives.
        file: that is written, and open.
        batch_size: crops that are classified together.
        about: stands beside the table.
    """
    count = len(source.record_ids)
    parts = [range(first, min(first + _RECORDS_A_PART, count)) for first in range(0, count, _RECORDS_A_PART)]
    found = 0
    with progress_bar(total=count, unit="record") as progress:
        for number, indices in enumerate(parts):
            if file.part(number)[0].is_file():
                found += len(indices)
            else:
                rows, rejections = _classify(classifier, source, indices, batch_size)
                file.write_part(number, rows, rejections)
            progress.update(len(indices))
    rejections = file.finish(len(parts), about)
    return Predictions(count - len(rejections), rejections, found)


def _classify(
    classifier: Classifier, source: RecordSource, numbers: Iterable[int], batch_size: int
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of records in their order, and what was refused. No more crops wait to be classified than fit into a batch."""
    rows: list[dict[str, Any]] = []
    rejections: list[dict[str, str]] = []
    waiting: dict[int, torch.Tensor] = {}

    def classify_waiting() -> None:
        for number, labels in zip(waiting, classifier.classify(list(waiting.values()), batch_size), strict=True):
            rows.extend(_rows(source.record_ids[number], labels))
        waiting.clear()

    for number, result in read_ahead(source, numbers):
        if isinstance(result, RecordError):
            rejections.append({"record": source.record_ids[number], "reason": result.reason, "detail": result.detail})
            continue
        crops = torch.as_tensor(result)
        crops = crops if crops.dim() == 3 else crops[None]
        is_other = any(crops.shape[1:] != others.shape[1:] for others in waiting.values())
        if waiting and (is_other or len(crops) + sum(map(len, waiting.values())) > batch_size):
            classify_waiting()
        waiting[number] = crops
    if waiting:
        classify_waiting()
    return rows, rejections


def _rows(record: str, labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    named = {"record": record.encode(errors="backslashreplace").decode()}  # names of files need not be UTF-8
    return [
        {**named, "label": label["label"], "probability": label["score"]}
        | {"threshold": label.get("threshold"), "decision": label.get("decision")}
        for label in labels
    ]

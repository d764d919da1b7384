"""Classification of records: a table of labels with probabilities and decisions, and a list of refused records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from .._utils.files import digest_of, read_json, replacing, write_json
from .._utils.hardware import use_faster_attention
from .._utils.logs import progress_bar
from .._utils.model_directory import model_directory
from .._utils.run_directory import LOCK_FILE, clear
from ..data.crops import mean_over_crops
from ..data.raw_files import files_digest
from ..data.records import write_rejections
from ..formats.read import files_of
from ..model.configuration_ecg_jepa import EcgJepaConfig
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from ..model.pipeline_ecg_jepa import EcgClassificationPipeline
from .record_source import EcgFile, RecordSource

_COLUMNS = {
    **{"record": pa.string(), "label": pa.string(), "probability": pa.float32()},
    **{"threshold": pa.float32(), "decision": pa.bool_()},  # null where the checkpoint has none
}
_PART_COLUMNS = {**_COLUMNS, "reason": pa.string(), "detail": pa.string()}  # of refused records, which have no label
_RECORDS_A_PART = 256  # classified again at most if a run is killed


def digest_of_request(files: Sequence[EcgFile], declared: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return a digest of records, their files as they are now, and `about`: all that decides the content of a table."""
    records = [(file.name, str(file.path), declared, file.declared) for file in files]
    salt = digest_of({"about": about, "records": records})
    return files_digest([path for file in files for path in files_of(file.path)], salt)


class Classifier:
    """A classifier, its pre-processing and pipeline. Raises `FileNotFoundError`, or `ValueError` for another kind of model."""

    def __init__(self, name_or_path: str | Path, device: torch.device | str = "cpu"):
        directory = model_directory(name_or_path)
        architectures = EcgJepaConfig.from_pretrained(directory).architectures or ["unknown"]
        if EcgJepaForSequenceClassification.__name__ not in architectures:
            kind = ", ".join(architectures)
            raise ValueError(
                f"{name_or_path} is no classifier ({kind}): name the directory of one, as ecg-jepa finetune writes it."
            )
        self.model = EcgJepaForSequenceClassification.from_pretrained(directory).eval()
        self.extractor = EcgJepaFeatureExtractor.from_pretrained(directory)
        self.pipeline: Any = EcgClassificationPipeline(model=self.model, feature_extractor=self.extractor, device=device)
        use_faster_attention(self.model, self.model.config.num_patches + self.model.config.num_register_tokens)

    @torch.no_grad()
    def classify(self, crops: torch.Tensor, owners: torch.Tensor, batch_size: int = 64) -> list[list[dict[str, Any]]]:
        """
        Return labels, scores and decisions, highest score first, of the records of a batch of [`data.crops.batch_crops`], as
        the pipeline does; at most `batch_size` crops run through the model together.
        """
        parts = [self.model(input_values=part.to(self.model.device)).logits.float().cpu() for part in crops.split(batch_size)]
        logits = mean_over_crops(torch.cat(parts), owners)
        return [self.pipeline.postprocess({"logits": row[None]}, decide=True) for row in logits]


class PredictionFile:
    """
    A table, `.parquet` or `.csv`, and the parts of it in a folder beside it until it is finished. `identity` is a digest of all
    that decides the content; parts with another one are not used.
    """

    def __init__(self, path: Path, identity: str = ""):
        self.path, self.identity = path, identity
        self.parts = path.with_name(f"{path.name}.parts")
        self.info = path.with_name(f"{path.name}.json")
        self.rejected = path.with_name(f"{path.name}.rejected.jsonl")
        self._mark = self.parts / "identity.json"

    @property
    def is_finished(self) -> bool:
        """Return whether the whole table of this identity is there."""
        return self.path.is_file() and self.info.is_file() and read_json(self.info).get("identity") == self.identity

    def check(self, overwrite: bool) -> None:
        """Raise `FileExistsError` if there is another table, or parts of one, unless they are to be overwritten."""
        is_marked = self._mark.is_file()
        if not is_marked and list(self.parts.glob("[!.]*")):
            raise FileExistsError(f"{self.parts}, where parts are kept, holds other files: choose another --output_file.")
        others = [self._mark] if is_marked and read_json(self._mark) != self.identity else []
        others += [self.path] if self.path.is_file() else []
        if others and not overwrite:
            advice = "replace it with --overwrite_output_file, or choose another --output_file."
            raise FileExistsError(f"{others[0]} is of other records, settings or weights: {advice}")

    def begin(self) -> None:
        """Remove the parts of another table. Call it while no other run writes to them."""
        if not self._mark.is_file() or read_json(self._mark) != self.identity:
            clear(self.parts, ("part-*",))
        write_json(self._mark, self.identity)

    def part(self, number: int) -> Path:
        """Return the path of a part."""
        return self.parts / f"part-{number:06d}.with-rejections.parquet"

    def write_part(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        """Write a part, whole or not at all; rows of refused records have a reason and no label."""
        with replacing(self.part(number)) as temporary:
            pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(_PART_COLUMNS)), temporary)

    def finish(self, count: int, about: dict[str, Any]) -> list[dict[str, str]]:
        """Replace the table by the joined parts, and return the refused records. If all were refused, an earlier table stays."""
        parts = pa.concat_tables([pq.read_table(self.part(number)) for number in range(count)])
        is_refused = parts["label"].is_null()
        rejections = parts.filter(is_refused).select(["record", "reason", "detail"]).to_pylist()
        table = parts.filter(pa.compute.invert(is_refused)).select(list(_COLUMNS))
        if table.num_rows:
            with replacing(self.path) as temporary:  # the table comes last: it says that all is finished
                (pa.csv.write_csv if self.path.suffix == ".csv" else pq.write_table)(table, temporary)
                for path in (self.info, self.path, self.rejected):
                    path.unlink(missing_ok=True)
                if rejections:
                    write_rejections(self.rejected, rejections)
                write_json(self.info, {**about, "identity": self.identity})
        elif not self.path.is_file():
            write_rejections(self.rejected, rejections)
        clear(self.parts, ("part-*", self._mark.name, LOCK_FILE))
        self.parts.rmdir()
        return rejections


def predict(
    classifier: Classifier, source: RecordSource, file: PredictionFile, batch_size: int, about: dict[str, Any]
) -> tuple[list[dict[str, str]], int]:
    """
    Write a table with a row per record and label, going on from the parts that are there. Call `file.begin()` first; `about` is
    written beside the table. Returns refused records with reason and detail, and how many records an interrupted run had done.
    """
    count, found = len(source.names), 0
    parts = [range(first, min(first + _RECORDS_A_PART, count)) for first in range(0, count, _RECORDS_A_PART)]
    with progress_bar(total=count, unit="record") as progress:
        for number, numbers in enumerate(parts):
            if file.part(number).is_file():
                found += len(numbers)
            else:
                refused: list[dict[str, Any]] = []
                rows = [
                    {"record": name, "probability": label["score"], **label}
                    for names, crops, owners in source.batches(numbers, batch_size, refused)
                    for name, labels in zip(names, classifier.classify(crops, owners, batch_size), strict=True)
                    for label in labels
                ]
                file.write_part(number, rows + refused)
            progress.update(len(numbers))
    return file.finish(len(parts), about), found

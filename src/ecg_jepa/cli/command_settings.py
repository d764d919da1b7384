"""Settings of the commands that are no training; those of training are with it."""

import difflib
from typing import Literal

from .._utils.settings import check_at_least, option, settings
from ..data.databases import DATABASES


@settings
class PreparationSettings:
    """Settings of `ecg-jepa prepare`. Raises `ValueError` for an unknown database and values that cannot be."""

    database: str = option(text=f"one of {', '.join(DATABASES)}")
    output_dir: str = option(text="the prepared database goes to a folder of its name in here")
    data_dir: str | None = option(None, "folder of the database as downloaded; for synthetic, where to generate it")
    sampling_rate: int = option(500, "of the prepared records in Hz; 100 reads PTB-XL's own 100 Hz files")
    min_duration: float = option(10.0, "in seconds; shorter records are rejected")
    amplitude_free: bool = option(
        False, "band-pass each record (0.5 to 40 Hz) and divide each lead by its own standard deviation, for want of a known gain"
    )
    allow_implausible: bool = option(False, "keep records that cannot be ECGs in the unit that they declare")
    allow_outside_paths: bool = option(False, "also read files outside data_dir, which tables name or links lead to")
    label_columns: list[str] | None = option(
        None, "own: the columns that are labels; others are ignored; default: all unknown ones, which must hold 0 or 1 throughout"
    )
    overwrite_output_dir: bool = option(False, "own: replace records that were prepared from another folder")
    verify: bool = option(False, "prepare nothing, but read what was prepared, and say which files are damaged")
    num_proc: int = option(1, "processes")
    strict: bool = option(False, "a record that cannot be used is an error, not left out")
    download: bool = option(False, "first fetch what is missing in data_dir from the database's original host")
    download_address: str | None = option(None, "of a mirror of the host, instead of https://physionet.org/files or Zenodo's")
    num_records: int = option(1000, "synthetic: how many records to generate")
    seed: int = option(0, "synthetic: of the records")

    def __post_init__(self) -> None:
        if self.database not in DATABASES:
            nearest = difflib.get_close_matches(self.database, DATABASES, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(DATABASES)}."
            raise ValueError(f"there is no database {self.database!r}: {hint}")
        if self.data_dir is None and not self.verify:
            raise ValueError("data_dir is required: the folder of the database as downloaded.")
        if self.label_columns is not None and self.database != "own":
            raise ValueError(f"label_columns is for own records (--database own), not for {self.database}.")
        check_at_least(self, 1, "sampling_rate", "num_proc", "num_records")
        check_at_least(self, 0, "min_duration", "seed")


@settings
class EvaluationSettings:
    """Settings of `ecg-jepa evaluate`."""

    run_dirs: list[str] = option(text="folder of a run, or of many", positional=True)
    compare: bool = option(False, "paired bootstrap tests between the runs of two folders")
    output_dir: str | None = option(None, "where the .md, .csv and .json files go; default: the first RUN_DIR")

    def __post_init__(self) -> None:
        if self.compare and len(self.run_dirs) != 2:
            raise ValueError(f"--compare takes two folders, not {len(self.run_dirs)}.")


@settings
class EmbeddingSettings:
    """Settings of `ecg-jepa embed`. Raises `ValueError` unless exactly one source of records is named."""

    model_name_or_path: str = option(text="pre-trained directory or Hub repository, or a classifier's, whose encoder is taken")
    data_dir: str | None = option(None, "prepared database, or a folder of several")
    database: str | None = option(None, "which one, if data_dir has several")
    records_dir: str | None = option(None, "or a folder of ECG files of any format, at any depth")
    output_file: str = option("embeddings.parquet", "Parquet file to write, a row per record")
    overwrite_output_file: bool = option(False, "replace a file that is there")
    pooling: Literal["mean", "register"] = option("mean", "of tokens: mean over patches, or the first register")
    crop_duration: float | None = option(None, "s; default: the extractor's, or else the longest input of the encoder")
    crop_stride: float | None = option(
        None, "s between crops, over which vectors are averaged; default: the extractor's, or none overlap"
    )
    allow_implausible: bool = option(False, "records_dir: also embed records that cannot be ECGs in the unit that they declare")
    batch_size: int | None = option(
        None, "crops that are encoded together; default: 16 on a CPU, whose caches they fit into, or 256"
    )
    mixed_precision: Literal["no", "bf16"] = option("no", "compute in bfloat16")

    def __post_init__(self) -> None:
        if (self.data_dir is None) == (self.records_dir is None):
            raise ValueError("name either data_dir, with a prepared database, or records_dir, with ECG files.")
        check_at_least(self, 1, "batch_size")


@settings
class PredictionSettings:
    """Settings of `ecg-jepa predict`. Raises `ValueError` unless exactly one source of records is named."""

    model_name_or_path: str = option(text="directory or Hub repository of a classifier")
    records_dir: str | None = option(None, "folder of records in any format, at any depth")
    table: str | None = option(None, "or a CSV file with a column path, and sampling_rate, unit and lead_names for some of them")
    files: list[str] = option([], "or the records themselves")
    output_file: str = option("predictions.parquet", "table to write, .parquet or .csv: a row per record and label")
    overwrite_output_file: bool = option(False, "replace a table of other records, settings or weights")
    sampling_rate: float | None = option(None, "in Hz, of records whose files do not say it")
    unit: str | None = option(None, "mV, uV, V or nV, of records whose files do not say it")
    lead_names: list[str] = option([], "of records whose files do not say them")
    allow_implausible: bool = option(False, "also classify what cannot be an ECG in its unit")
    batch_size: int | None = option(None, "crops that are classified together; default: 16 on a CPU, or 256")
    mixed_precision: Literal["no", "bf16"] = option("no", "compute in bfloat16")

    def __post_init__(self) -> None:
        if (self.records_dir is not None) + (self.table is not None) + bool(self.files) != 1:
            raise ValueError("name one of records_dir, table and files.")
        if not self.output_file.endswith((".parquet", ".csv")):
            raise ValueError(f"output_file={self.output_file!r} must end in .parquet or .csv.")
        check_at_least(self, 1, "batch_size")


@settings
class PushSettings:
    """Settings of `ecg-jepa push`."""

    directory: str = option(text="of an encoder or a classifier, as pretrain and finetune write it", positional=True)
    repo_id: str = option(text="ORG/NAME of the repository; it is created if it is not there")
    public: bool = option(False, "for everybody to see")
    dry_run: bool = option(False, "only list what would go")
    space: bool = option(False, "push a Space with a page for the classifier, instead of the model itself")
    space_dir: str = option("runs/space", "folder in which the Space is written; it runs locally as it is")
    space_examples: str | None = option(None, "folder with records that visitors of the Space can pick")
    space_requirement: str = option("", "how pip finds this package there; default: its version on PyPI")


@settings
class DemoSettings:
    """Settings of `ecg-jepa demo`."""

    checkpoint: str | None = option(
        None, "directory or Hub repository of a classifier; default: the one in checkpoints/, if there is one", positional=True
    )
    examples_dir: str | None = option(None, "folder with records that can be picked; default: examples/, if there is one")
    port: int | None = option(None, "of the page; default: the first free one from 7860")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "port")

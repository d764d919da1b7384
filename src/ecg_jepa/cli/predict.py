"""`ecg-jepa predict`: records -> a table of labels."""

from collections import Counter
from pathlib import Path
from typing import Literal

from .._utils.settings import check_at_least, option, settings


@settings
class PredictSettings:
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


def run(settings: PredictSettings) -> None:
    """Predict what is not predicted yet, and print how many records were classified and refused."""
    from accelerate import Accelerator

    from .._utils.files import digest_files
    from .._utils.hardware import crops_at_once, set_up_cpu
    from .._utils.model_directory import model_directory, weights_digest
    from .._utils.run_directory import own_directory
    from ..apps.prediction import Classifier, PredictionFile, digest_of_request, predict
    from ..apps.record_source import EcgFile, each_once, file_source, files_in_folder, files_in_table
    from ..formats.ecg import split_names

    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    set_up_cpu(accelerator)
    directory = model_directory(settings.model_name_or_path)
    classifier = Classifier(directory, accelerator.device)
    path = Path(settings.output_file)
    if settings.records_dir is not None:
        files = files_in_folder(settings.records_dir, exclude=(path, PredictionFile(path).parts))
    elif settings.table is not None:
        files = files_in_table(settings.table)
    else:
        files = each_once([EcgFile(name, Path(name)) for name in settings.files], "files")
    lead_names = split_names(" ".join(settings.lead_names)) or None
    declared = {"sampling_rate": settings.sampling_rate, "unit": settings.unit, "lead_names": lead_names}
    about = {
        "model": settings.model_name_or_path,
        "weights": weights_digest(directory),
        "allow_implausible": settings.allow_implausible,
        "mixed_precision": settings.mixed_precision,
        "pre-processing": digest_files([directory / "preprocessor_config.json"]),
    }
    file = PredictionFile(path, digest_of_request(files, declared, about))
    if file.is_finished and not settings.overwrite_output_file:
        print(f"{path} holds the predictions of these records by this model: there is nothing to do.")
        return
    file.check(settings.overwrite_output_file)
    source = file_source(files, classifier.extractor, declared, settings.allow_implausible)
    with own_directory(file.parts, accelerator), accelerator.autocast():
        file.begin()
        rejections, found = predict(classifier, source, file, settings.batch_size or crops_at_once(accelerator.device), about)
    earlier = f" ({found} had been looked at before)" if found else ""
    print(f"{len(files) - len(rejections)} of {len(files)} records in {path}{earlier}")
    for reason, count in Counter(rejection["reason"] for rejection in rejections).most_common():
        print(f"  {count} refused: {reason}")
    if rejections:
        print(f"  each with its reason in {file.rejected}")
    if len(rejections) == len(files):
        raise ValueError(f"None of {len(files)} records could be classified, the first: {rejections[0]}.")

"""`ecg-jepa predict`: records -> a table of labels."""

from pathlib import Path

from accelerate import Accelerator

from .._utils.files import digest_files
from .._utils.hardware import crops_at_once, set_up_cpu
from .._utils.model_directory import model_directory, weights_digest
from .._utils.run_directory import own_directory
from ..apps.prediction import Classifier, PredictionFile, RequestedRecords, predict
from ..formats.ecg import split_names
from .command_settings import PredictionSettings


def run(settings: PredictionSettings) -> None:
    """Predict what is not predicted yet, and say what became of the records."""
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    set_up_cpu(accelerator)
    directory = model_directory(settings.model_name_or_path)
    classifier = Classifier.load(directory, accelerator.device)
    declared = {
        "sampling_rate": settings.sampling_rate,
        "unit": settings.unit,
        "lead_names": split_names(" ".join(settings.lead_names)) or None,
    }
    path = Path(settings.output_file)
    if settings.records_dir is not None:
        records = RequestedRecords.in_folder(settings.records_dir, declared, PredictionFile(path, "").files)
    elif settings.table is not None:
        records = RequestedRecords.in_table(settings.table, declared)
    else:
        records = RequestedRecords.of_files(settings.files, declared)
    decisive = {name: getattr(settings, name) for name in ("allow_implausible", "mixed_precision")}
    about = {"model": settings.model_name_or_path, "weights": weights_digest(directory), **decisive}
    about["pre-processing"] = digest_files([directory / "preprocessor_config.json"])
    file = PredictionFile(path, records.identity(about))
    if file.is_finished and not settings.overwrite_output_file:
        print(f"{file.path} holds the predictions of these records by this model: there is nothing to do.")
        return
    file.check(settings.overwrite_output_file)
    with own_directory(file.parts, accelerator), accelerator.autocast():
        file.begin()
        source = records.source(classifier.extractor, settings.allow_implausible)
        result = predict(classifier, source, file, settings.batch_size or crops_at_once(accelerator.device), about)
    gone_on = f" ({result.found} had been looked at before)" if result.found else ""
    print(f"{result.records} of {len(source.record_ids)} records in {file.path}{gone_on}")
    for reason, count in result.reasons():
        print(f"  {count} refused: {reason}")
    if result.rejections:
        print(f"  each with its reason in {file.rejected}")
    if not result.records:
        raise ValueError(f"None of {len(source.record_ids)} records could be classified, the first: {result.rejections[0]}.")

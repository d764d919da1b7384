"""`ecg-jepa predict`: records -> a table of labels."""

from pathlib import Path

from accelerate import Accelerator

from ..common.hardware import use_all_cores
from ..common.models import model_directory, weights_digest
from ..common.run_directory import own_directory
from ..prediction import Classifier, PredictionFile, RequestedRecords, predict
from .settings import PredictionSettings


def run(settings: PredictionSettings) -> None:
    """Predict what is not predicted yet, and say what became of the records."""
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    use_all_cores(accelerator)
    directory = model_directory(settings.model_name_or_path)
    classifier = Classifier.load(directory, accelerator.device)
    declared = {"sampling_rate": settings.sampling_rate, "unit": settings.unit, "lead_names": settings.lead_names or None}
    if settings.records_dir is not None:
        records = RequestedRecords.in_folder(settings.records_dir, declared)
    elif settings.table is not None:
        records = RequestedRecords.in_table(settings.table, declared)
    else:
        records = RequestedRecords.of_files(settings.files, declared)
    decisive = {name: getattr(settings, name) for name in ("allow_implausible", "mixed_precision")}
    about = {"model": settings.model_name_or_path, "weights": weights_digest(directory), **decisive}
    file = PredictionFile(Path(settings.output_file), records.identity(about))
    if file.is_finished and not settings.overwrite_output_file:
        print(f"{file.path} holds the predictions of these records by this model: there is nothing to do.")
        return
    file.check(settings.overwrite_output_file)
    with own_directory(file.parts, accelerator), accelerator.autocast():
        file.begin()
        source = records.source(classifier.extractor, settings.allow_implausible)
        result = predict(classifier, source, file, settings.batch_size, about)
    gone_on = f" ({result.found} had been looked at before)" if result.found else ""
    print(f"{result.records} of {len(source.record_ids)} records in {file.path}{gone_on}")
    for reason, count in result.reasons():
        print(f"  {count} refused: {reason}")
    if result.rejections:
        print(f"  each with its reason in {file.rejected}")

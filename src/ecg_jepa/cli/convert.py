"""`ecg-jepa convert`: a checkpoint of the reference implementation -> a directory of ours."""

from .._utils.settings import option, settings
from ..data.tasks import TaskName


@settings
class ConvertSettings:
    """Settings of `ecg-jepa convert`."""

    checkpoint: str = option(text="checkpoint of the reference implementation (.pt)", positional=True)
    output_dir: str = option(text="directory for model, feature extractor, code and card", positional=True)
    task: TaskName | None = option(None, "of a classifier: gives its outputs names")
    scp_statements: str | None = option(None, "PTB-XL's scp_statements.csv, for the names of most tasks")
    normalization: str | None = option(None, "normalise with the statistics of this database")


def run(settings: ConvertSettings) -> None:
    """Convert, and print the class and size of the model."""
    from ..conversion.export import export_conversion
    from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification

    model = export_conversion(
        settings.checkpoint, settings.output_dir, settings.task, settings.scp_statements, settings.normalization
    )
    print(f"{type(model).__name__} with {model.num_parameters():,} parameters saved in {settings.output_dir}")
    if isinstance(model, EcgJepaForSequenceClassification) and settings.task is None:
        print("  Its outputs have no names: reference checkpoints hold none. Name the PTB-XL task with --task.")

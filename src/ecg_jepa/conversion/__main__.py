"""`python -m ecg_jepa.conversion IN.pt OUT_DIR [--task superdiagnostic] [--scp_statements FILE] [--normalization ptb-xl]`"""

from .._utils.logs import start_logging
from .._utils.settings import fail, parse_settings
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification
from .conversion_settings import ConversionSettings
from .export import export_conversion

PROGRAM = "python -m ecg_jepa.conversion"


def run(settings: ConversionSettings) -> None:
    """Convert, and say what came out."""
    model = export_conversion(
        settings.checkpoint, settings.output_dir, settings.task, settings.scp_statements, settings.normalization
    )
    print(f"{type(model).__name__} with {model.num_parameters():,} parameters saved in {settings.output_dir}")
    if isinstance(model, EcgJepaForSequenceClassification) and settings.task is None:
        print("  Its outputs have no names: reference checkpoints hold none. Name the PTB-XL task with --task.")


def main() -> None:
    """The command line."""
    start_logging()
    settings = parse_settings(ConversionSettings, prog=PROGRAM, description=__doc__)
    try:
        run(settings)
    except (ValueError, OSError) as error:
        fail(PROGRAM, error)


if __name__ == "__main__":
    main()

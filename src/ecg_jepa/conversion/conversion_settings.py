"""What a conversion can be told."""

from .._utils.settings import option, settings
from ..data.task_names import TaskName


@settings
class ConversionSettings:
    """Settings of `ecg-jepa convert`."""

    checkpoint: str = option(text="checkpoint of the reference implementation (.pt)", positional=True)
    output_dir: str = option(text="directory for model, feature extractor, code and card", positional=True)
    task: TaskName | None = option(None, "of a classifier: gives its outputs names")
    scp_statements: str | None = option(None, "PTB-XL's scp_statements.csv, for the names of most tasks")
    normalization: str | None = option(None, "normalise with the statistics of this database")

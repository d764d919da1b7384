"""`ecg-jepa demo`: a page that shows one ECG and what a classifier says of it."""

import importlib.util
from pathlib import Path

from .._utils.settings import check_at_least, option, settings

# In a clone, the command works without arguments.
_SHIPPED = "checkpoints/ecg-jepa-xs-100hz-superdiagnostic"
_EXAMPLES = "examples"


@settings
class DemoSettings:
    """Settings of `ecg-jepa demo`."""

    checkpoint: str | None = option(None, "a classifier's directory or Hub name; default: that in checkpoints/", positional=True)
    examples_dir: str | None = option(None, "folder with records that can be picked; default: examples/, if there is one")
    port: int | None = option(None, "of the page; default: the first free one from 7860")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "port")


def run(settings: DemoSettings) -> None:
    """Serve the page until it is interrupted."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('The page needs Gradio: pip install "ecg_jepa[demo]".')
    from ..apps.page import serve

    checkpoint = settings.checkpoint or (_SHIPPED if Path(_SHIPPED).is_dir() else None)
    if checkpoint is None:
        raise ValueError(f"Name the directory of a classifier: there is no {_SHIPPED} here.")
    examples = settings.examples_dir or (_EXAMPLES if Path(_EXAMPLES).is_dir() else None)
    serve(checkpoint, title=Path(checkpoint).name, examples=examples, port=settings.port)

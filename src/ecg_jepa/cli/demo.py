"""`ecg-jepa demo`: a page on which one ECG is looked at with a classifier."""

import importlib.util
from pathlib import Path

from .command_settings import DemoSettings

# Of a clone, from which the command works without anything else.
_SHIPPED = "checkpoints/ecg-jepa-xs-100hz-superdiagnostic"
_EXAMPLES = "examples"


def run(settings: DemoSettings) -> None:
    """Serve the page until it is interrupted."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('The page needs Gradio: pip install "ecg_jepa[demo]".')
    from ..apps.page import serve  # Gradio takes its time

    checkpoint = settings.checkpoint or (_SHIPPED if Path(_SHIPPED).is_dir() else None)
    if checkpoint is None:
        raise ValueError(f"Name the directory of a classifier: there is no {_SHIPPED} here.")
    examples = settings.examples_dir or (_EXAMPLES if Path(_EXAMPLES).is_dir() else None)
    serve(checkpoint, title=Path(checkpoint).name, examples=examples, port=settings.port)

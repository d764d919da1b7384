"""Model cards from the templates in `model_cards/`."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData


def write_model_card(directory: Path, template: Path, **values: Any) -> None:
    """Render a Jinja template with `values` to `directory/README.md`, with the metadata that the Hub reads in front."""
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        tags=["ecg_jepa", "ecg", "electrocardiogram", "self-supervised", "biosignals"],
    )
    card = ModelCard.from_template(metadata, template_path=str(template), **values)
    card.save(directory / "README.md")

"""
Write the cards of the published configurations, `model_cards/vit_*.md`, from `configs/vit_*.yaml` and the paper's results.

    python training/write_published_cards.py [--output_dir DIR]
"""

import argparse
from pathlib import Path

from huggingface_hub import EvalResult

from ecg_jepa import EcgJepaModel
from ecg_jepa._utils.files import shipped
from ecg_jepa._utils.settings import parse_settings
from ecg_jepa.data.databases import builder_class
from ecg_jepa.data.record_statistics import PUBLISHED
from ecg_jepa.evaluation.published import paper_run, published_rows
from ecg_jepa.pretraining.objectives.jepa import JepaRecipe
from ecg_jepa.publishing.card import write_model_card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=shipped("model_cards"))
    arguments = parser.parse_args()
    for path in sorted(shipped("configs").glob("vit_*.yaml")):
        if paper_run(path.stem) is None:
            continue
        write_card(path, arguments.output_dir / f"{path.stem}.md")
        print(arguments.output_dir / f"{path.stem}.md")


def write_card(config_path: Path, card_path: Path) -> None:
    """Write the card of one configuration."""
    recipe = parse_settings(JepaRecipe, ["--config", str(config_path)])
    config = recipe.model_config(sampling_rate=500)
    weights = recipe.database_weights()
    paper = paper_run(config_path.stem)
    assert paper is not None, f"{config_path} is no configuration of the paper"
    published = published_rows(*paper)
    write_model_card(
        card_path,
        "published.md.jinja",
        f"ECG-JEPA {config_path.stem} (the paper's)",
        [
            EvalResult(
                task_type="ecg-classification",
                dataset_type="ptb-xl",
                dataset_name="PTB-XL",
                dataset_config=row["task"],
                dataset_split="test",
                metric_type="roc_auc",
                metric_name=f"macro AUROC, {row['protocol']} (the paper's result, mean of ten runs)",
                metric_value=row["auroc"],
                source_name="Weimann & Conrad 2024",
                source_url="https://arxiv.org/abs/2410.13867",
            )
            for row in published
        ],
        name=config_path.stem,
        recipe=recipe,
        config=config,
        num_parameters=EcgJepaModel(config).num_parameters(),
        published=published,
        databases=[describe(name, weight) for name, weight in weights.items()],
    )


def describe(name: str, weight: float) -> dict[str, object]:
    """Return a database as the card lists it."""
    builder = builder_class(name)
    assert builder.source is not None
    return {
        "name": name,
        "weight": weight,
        "records": PUBLISHED[name].records,
        "highpass_cutoff": builder.highpass_cutoff,
        "licence": builder.source.licence,
        "page": builder.source.page,
    }


if __name__ == "__main__":
    main()

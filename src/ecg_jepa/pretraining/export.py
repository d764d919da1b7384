"""What a finished run leaves behind: an encoder that `AutoModel.from_pretrained` reads, complete with its pre-processing."""

from pathlib import Path

from ..arguments import write_yaml
from ..data.corpus import Corpus
from ..feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model_card import write_model_card
from ..modeling_ecg_jepa import EcgJepaForPreTraining
from ..self_contained import save_checkpoint
from .recipe import PretrainingRecipe


def export_pretraining(
    output_dir: str | Path,
    model: EcgJepaForPreTraining,
    corpus: Corpus,
    recipe: PretrainingRecipe,
    last_metrics: dict[str, float],
    card_template: Path,
) -> None:
    """
    Write the target encoder, its extractor, card and training configuration to `output_dir`, and all three networks to
    `output_dir/pretraining`. The extractor holds the statistics of the weighted mixture, and a high-pass if all databases had
    the same; the card lists each database's own.
    """
    output_dir = Path(output_dir)
    mean, std = corpus.mixture_statistics()
    extractor = EcgJepaFeatureExtractor.for_model(model.config, mean, std, highpass_cutoff=corpus.highpass_cutoff())
    save_checkpoint(output_dir, model.ecg_jepa, extractor)
    save_checkpoint(output_dir / "pretraining", model, extractor)
    write_yaml(recipe, output_dir / "training_config.yaml")
    databases = [
        {
            "name": d.name,
            "weight": weight,
            "records": len(records),
            "highpass_cutoff": d.info.highpass_cutoff,
            "mean": means.tolist(),
            "std": stds.tolist(),
        }
        for d, weight, records, means, stds in zip(
            corpus.databases, corpus.weights, corpus.records, *corpus.lead_statistics(), strict=True
        )
    ]
    write_model_card(
        output_dir,
        card_template,
        config=model.config,
        recipe=recipe,
        num_parameters=model.ecg_jepa.num_parameters(),
        databases=databases,
        mean=mean.tolist(),
        std=std.tolist(),
        metrics=last_metrics,
    )

"""What a finished run leaves behind: an encoder that `AutoModel.from_pretrained` reads, complete with its pre-processing."""

from pathlib import Path

from ..arguments import write_yaml
from ..data.corpus import Corpus
from ..feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model_card import write_model_card
from ..modeling_ecg_jepa import EcgJepaForPreTraining
from ..self_contained import save_checkpoint
from .monitoring import training_seconds
from .recipe import PretrainingRecipe


def export_pretraining(
    output_dir: str | Path,
    model: EcgJepaForPreTraining,
    corpus: Corpus,
    recipe: PretrainingRecipe,
    last_metrics: dict[str, float],
    hardware: str,
) -> None:
    """
    Write the target encoder, its extractor, card and training configuration to `output_dir`, and all three networks to
    `output_dir/pretraining`. The extractor holds the statistics of the weighted mixture, and a high-pass if all databases had
    the same; the card lists each database's own.
    """
    output_dir = Path(output_dir)
    mean, std = corpus.mixture_statistics()
    extractor = EcgJepaFeatureExtractor.for_model(model.config, mean, std, highpass_cutoff=corpus.highpass_cutoff())
    write_yaml(recipe, output_dir / "training_config.yaml")
    databases = [
        {
            "name": d.name,
            "weight": weight,
            "records": len(records),
            "highpass_cutoff": d.info.highpass_cutoff,
            "licence": d.info.licence,
            "page": d.info.page,
            "mean": means.tolist(),
            "std": stds.tolist(),
        }
        for d, weight, records, means, stds in zip(
            corpus.databases, corpus.weights, corpus.records, *corpus.lead_statistics(), strict=True
        )
    ]
    for directory, network in ((output_dir, model.ecg_jepa), (output_dir / "pretraining", model)):
        save_checkpoint(directory, network, extractor)
        write_model_card(
            directory / "README.md",
            "encoder.md.jinja",
            output_dir.name,
            is_trio=network is model,
            config=model.config,
            extractor=extractor,
            recipe=recipe,
            num_parameters=network.num_parameters(),
            databases=databases,
            metrics=last_metrics,
            hardware=hardware,
            training_seconds=training_seconds(output_dir / "metrics.jsonl"),
        )

"""What a finished pre-training run leaves behind: an encoder that `AutoModel.from_pretrained` reads, complete by itself."""

from markupsafe import Markup

from .._utils.files import TRAINING_INFO_FILE
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..pretraining.monitoring import last_metrics, training_seconds, untrained_metrics
from ..pretraining.pretraining_loop import PretrainingRun
from .card import write_model_card
from .checkpoint import save_checkpoint
from .provenance import pretraining_info, write_training_info


def export_pretraining(run: PretrainingRun, hardware: str) -> None:
    """
    Write the encoder, its extractor, card and training configuration to the run's folder, and all networks of the objective's
    model to `pretraining/` in it. The extractor holds the statistics of the weighted mixture, and a high-pass if all databases
    had the same; the card lists each database's own.
    """
    corpus, recipe, directory = run.corpus, run.recipe, run.output_dir
    config = run.objective.config
    mean, std = corpus.mixture_statistics()
    extractor = EcgJepaFeatureExtractor.for_model(config, mean, std, highpass_cutoff=corpus.highpass_cutoff())
    info = pretraining_info(run, hardware, training_seconds(run.metrics_file))
    databases = [
        {
            "name": d.name,
            "weight": weight,
            "records": len(records),
            "highpass_cutoff": d.info.highpass_cutoff,
            "licence": d.info.licence,
            "page": d.info.page,
            "attribution": d.info.attribution,
            "population": d.info.population,
            "mean": means.tolist(),
            "std": stds.tolist(),
        }
        for d, weight, records, means, stds in zip(
            corpus.databases, corpus.weights, corpus.records, *corpus.lead_statistics(), strict=True
        )
    ]
    # The encoder last, and last of it what says that the run is finished.
    for folder, network in ((directory / "pretraining", run.objective.model), (directory, run.objective.plain_encoder())):
        save_checkpoint(folder, network, extractor)
        write_model_card(
            folder / "README.md",
            "encoder.md.jinja",
            directory.name,
            is_trio=network is run.objective.model,
            config=config,
            extractor=extractor,
            recipe=recipe,
            summary=Markup(run.objective.summary),
            num_parameters=network.num_parameters(),
            databases=databases,
            metrics=last_metrics(run.metrics_file),
            untrained=untrained_metrics(run.metrics_file),
            info=info,
            info_file=TRAINING_INFO_FILE,
        )
        write_training_info(folder, info)

"""The directory of a pre-trained encoder, and of the networks that it was trained with."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from .._utils.files import TRAINING_INFO_FILE
from ..data.corpus import Corpus
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ..model.modeling_ecg_jepa import EcgJepaModel, EcgJepaPreTrainedModel
from .directory import circumstances, save_directory


def export_encoder(
    output_dir: str | Path,
    encoder: EcgJepaModel,
    networks: EcgJepaPreTrainedModel,
    corpus: Corpus,
    settings: dict[str, Any],
    *,
    summary: str,
    exported_weights: str,
    configuration: str | None,
    num_processes: int,
    changes: list[dict[str, Any]],
    gflop_per_record: float,
    skipped_steps: int,
    seconds: float,
    hardware: str,
    metrics: dict[str, Any],
    untrained_metrics: dict[str, Any],
) -> None:
    """
    Write an encoder to `output_dir`, and all networks of its training to `pretraining/` in it. The extractor holds the statistics
    of the weighted mixture, and a high-pass if all databases had the same; the card lists each database's own.

    Args:
        encoder: for use.
        networks: to train on.
        settings: of the run, with its `objective`.
        summary: end of the sentence "A vision transformer for 12-lead ECG, ...", in Markdown.
        exported_weights: "ema" for a moving average.
        configuration: the shipped one with the same settings.
        changes: of settings and records during the run.
        seconds: of training.
        metrics, untrained_metrics: the last logged ones, and those before the first step; empty if there are none.
    """
    mean, std = corpus.mixture_statistics()
    extractor = EcgJepaFeatureExtractor.for_model(encoder.config, mean, std, highpass_cutoff=corpus.highpass_cutoff())
    databases = list(zip(corpus.databases, corpus.weights.tolist(), map(len, corpus.records), strict=True))
    info = {
        "kind": "pretraining",
        "objective": settings["objective"],
        "configuration": configuration,
        "settings": settings,
        "databases": [
            {"name": database.name, "weight": weight, "records": records, **database.info.what_models_see()}
            for database, weight, records in databases
        ],
        "num_processes": num_processes,
        "changes": changes,
        "records_seen": settings["max_steps"] * settings["batch_size"] * settings["gradient_accumulation_steps"],
        "gflop_per_record": gflop_per_record,
        "skipped_steps": skipped_steps,
        **circumstances(hardware, seconds),
    }
    on_card = [
        {**vars(database.info), "weight": weight, "records": records, "mean": means.tolist(), "std": stds.tolist()}
        for (database, weight, records), means, stds in zip(databases, *corpus.lead_statistics(), strict=True)
    ]
    # The encoder comes last: its training_info.json says that the run is finished.
    for folder, network in ((Path(output_dir, "pretraining"), networks), (Path(output_dir), encoder)):
        save_directory(
            folder,
            network,
            extractor,
            "encoder.md.jinja",
            info,
            all_networks=network is networks,
            settings=settings,
            summary=Markup(summary),
            exported_weights=exported_weights,
            databases=on_card,
            metrics=metrics,
            untrained=untrained_metrics,
            info_file=TRAINING_INFO_FILE,
        )

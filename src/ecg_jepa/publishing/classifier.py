"""What a finished run of a protocol leaves behind: a classifier that is complete by itself, its results and pictures."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .._utils.files import write_json
from .._utils.plot_style import save
from .._utils.settings import write_yaml
from ..evaluation.results import METRICS_FILE, PREDICTIONS_FILE, probabilities
from ..finetuning.finetuning_loop import FinetuningRun
from ..finetuning.result_plots import draw
from ..finetuning.run import PLOTS_DIR, FinetuningResult
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from .card import as_eval_results, classifier_results, write_model_card
from .checkpoint import save_checkpoint
from .provenance import finetuning_info, write_training_info

logger = logging.getLogger(__name__)


def export_classifier(run: FinetuningRun, result: FinetuningResult, hardware: str) -> None:
    """Write the run's folder; `metrics.json` last, so that a run without it is not finished."""
    settings, data, test = run.settings, run.data, result.test
    directory = Path(settings.output_dir)
    extractor = EcgJepaFeatureExtractor.for_model(
        run.model.config,
        data.mean,
        data.std,
        crop_duration=settings.crop_duration,
        crop_stride=settings.crop_stride,
        highpass_cutoff=data.database.info.highpass_cutoff,
    )
    write_yaml(settings, directory / "training_config.yaml", leave_out=("overwrite_output_dir",))  # by which a folder is a run's
    save_checkpoint(directory, run.model, extractor)
    np.savez_compressed(
        directory / PREDICTIONS_FILE,
        record_id=data.database.column("record_id")[data.splits["test"]].astype(str),
        labels=test.labels,
        logits=test.logits,
        probabilities=probabilities(test.logits, data.task.single_label, run.model.config.temperature),
        class_names=np.array(data.task.class_names),
    )
    info = finetuning_info(run, result, hardware)
    write_training_info(directory, info)
    _write_card(directory, run, result.metrics, extractor, info)
    for name, figure in draw(run, result).items():
        try:
            save(figure, directory / PLOTS_DIR / f"{name}.png")
        except Exception as error:  # of matplotlib, for a font or a name: no reason to lose what was measured
            logger.warning(f"The picture {name} cannot be drawn: {type(error).__name__}: {error}")
    write_json(directory / METRICS_FILE, result.metrics)


def _write_card(
    directory: Path,
    run: FinetuningRun,
    metrics: dict[str, Any],
    extractor: EcgJepaFeatureExtractor,
    info: dict[str, Any],
) -> None:
    """The card, with the results for the Hub's index."""
    database, task = run.data.database, run.settings.task
    results = classifier_results(metrics)
    write_model_card(
        directory / "README.md",
        "classifier.md.jinja",
        directory.name,
        as_eval_results(results, task, database.name),
        arguments=asdict(run.settings),
        metrics=metrics,
        results=results,
        config=run.model.config,
        extractor=extractor,
        database=database.info,
        descriptions=run.data.describe_classes(),
        info=info,
    )

"""The directory of a finished fine-tuning run: classifier, predictions, metrics, plots."""

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .._utils.files import write_json
from .._utils.plot_style import save
from .._utils.settings import write_yaml
from ..evaluation.calibration import probabilities
from ..evaluation.results import METRICS_FILE, PREDICTIONS_FILE
from ..finetuning.finetuning_loop import PLOTS_DIR, FinetuningResult, FinetuningRun
from ..finetuning.result_plots import plot_results
from ..model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from .card import as_eval_results, classifier_results
from .directory import circumstances, save_directory

logger = logging.getLogger(__name__)


def export_classifier(run: FinetuningRun, result: FinetuningResult, hardware: str) -> None:
    """Write the run's directory; `metrics.json`, which says that the run is finished, comes last."""
    settings, data, test, model, start = run.settings, run.data, result.test, run.model, run.start.directory
    directory, database = Path(settings.output_dir), data.database
    crops = {"crop_duration": settings.crop_duration, "crop_stride": settings.crop_stride}
    normalization = {"mean": data.mean, "std": data.std, "highpass_cutoff": database.info.highpass_cutoff}
    extractor = EcgJepaFeatureExtractor.for_model(model.config, **normalization, **crops)
    write_yaml(settings, directory / "training_config.yaml", leave_out=("overwrite_output_dir",))  # marks a run's directory
    np.savez_compressed(
        directory / PREDICTIONS_FILE,
        record_id=database.column("record_id")[data.splits["test"]].astype(str),
        labels=test.labels,
        logits=test.logits,
        probabilities=probabilities(test.logits, data.task.single_label, model.config.temperature),
        class_names=np.array(data.task.class_names),
    )
    # Relative to the run: both may move together, and nobody learns the paths of this machine.
    origin = None if start is None else os.path.relpath(start.resolve(), directory.resolve())
    info = {
        "kind": "finetuning",
        "protocol": settings.protocol,
        "task": settings.task,
        "configuration": settings.configuration(),
        "settings": asdict(settings),
        "start": {"path": run.start.name, "directory": origin, "digest": run.start.digest()},
        "encoder": result.metrics["encoder"],
        "databases": [{"name": database.name, "records": len(data.splits["train"]), "digest": database.info.content_digest}],
        "labels": data.labels_digest(),
        "records_seen": result.records_seen,
        **circumstances(hardware, result.seconds),
    }
    results = classifier_results(result.metrics)
    card: dict[str, Any] = {"arguments": asdict(settings), "metrics": result.metrics, "results": results}
    card |= {"database": database.info, "descriptions": data.describe_classes()}
    in_index = as_eval_results(results, settings.task, database.name)
    save_directory(directory, model, extractor, "classifier.md.jinja", info, in_index, **card)
    for name, figure in plot_results(run, result).items():
        try:
            save(figure, directory / PLOTS_DIR / f"{name}.png")
        except Exception as error:  # matplotlib's, for a font or a name: the metrics must not be lost for it
            logger.warning(f"The plot {name} cannot be drawn: {type(error).__name__}: {error}")
    write_json(directory / METRICS_FILE, result.metrics)

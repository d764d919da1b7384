"""
Measure the results on the cards of the shipped checkpoints.

    python benchmarks/shipped_checkpoints.py --raw_dir RAW [--write_card True]

RAW holds PTB-XL's files at 100 Hz. This prepares them, fits the same probes on the trained and on untrained encoders, and scores
the classifier; it prints Markdown and saves it. Minutes on two cores. `--write_card` writes the encoder's table onto its card.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recipe_ladder import DATABASE, MEASURES, Arguments, labels_of, score

from ecg_jepa._utils.files import TRAINING_INFO_FILE, read_json
from ecg_jepa._utils.settings import option, parse_settings, settings
from ecg_jepa.cli import run_command
from ecg_jepa.data.task_data import TaskData
from ecg_jepa.evaluation.bootstrap import Interval, bootstrap
from ecg_jepa.evaluation.metrics import auroc, macro
from ecg_jepa.evaluation.results import read_metrics
from ecg_jepa.finetuning.classifier import Scorer
from ecg_jepa.model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ecg_jepa.model.modeling_ecg_jepa import EcgJepaForSequenceClassification, EcgJepaModel


@settings
class CheckpointSettings:
    """Arguments of this script."""

    raw_dir: str = option(text="PTB-XL as downloaded, at 100 Hz")
    encoder: str = option("checkpoints/ecg-jepa-xs-100hz", "directory of the encoder")
    classifier: str = option("checkpoints/ecg-jepa-xs-100hz-superdiagnostic", "directory of the classifier")
    output_dir: str = option("runs/shipped_checkpoints", "of prepared records and results")
    untrained: int = option(3, "encoders to compare with")
    write_card: bool = option(False, "write the encoder's results onto its card")


def prepare(arguments: CheckpointSettings) -> str:
    """Prepare the records as the checkpoints take them, and return their folder."""
    prepared = str(Path(arguments.output_dir, "prepared"))
    amplitude = ["--amplitude_free"] if EcgJepaModel.config_class.from_pretrained(arguments.encoder).amplitude_free else []
    source = ["--database", DATABASE, "--sampling_rate", "100", "--data_dir", arguments.raw_dir]
    run_command("prepare", [*source, *amplitude, "--output_dir", prepared], "prepare")
    return prepared


def as_text(bounds: Interval) -> str:
    """Return a value with its interval as text."""
    return f"{bounds.value:.3f} ({bounds.low:.3f} to {bounds.high:.3f})"


def macro_auroc_interval(labels: np.ndarray, scores: np.ndarray) -> Interval:
    """Return macro AUROC with its bootstrap interval, without classes that cannot be scored."""
    return bootstrap(lambda counts: macro(auroc(labels, scores, counts)), len(labels))


def gain_over(labels: np.ndarray, scores: np.ndarray, controls: list[np.ndarray]) -> Interval:
    """Return the macro AUROC above the mean of controls, paired over resamples of the test records."""

    def difference(counts: np.ndarray) -> np.ndarray:
        values = [macro(auroc(labels, one, counts)) for one in (scores, *controls)]
        return values[0] - np.mean(values[1:], axis=0)

    return bootstrap(difference, len(labels))


def encoder_results(arguments: CheckpointSettings, prepared: str) -> pd.DataFrame:
    """Return test macro AUROC of both probes on trained and untrained encoders, and the gain of training."""
    ladder = Arguments(action="run", data_dir=prepared, split="test")
    trained = EcgJepaModel.from_pretrained(arguments.encoder)
    found = score(trained, ladder, 1, 0)
    untrained = []
    for seed in range(arguments.untrained):
        torch.manual_seed(seed)
        untrained.append(score(EcgJepaModel(trained.config), ladder, 1, seed))
    rows = []
    for measure in MEASURES:
        probe, task = measure.split("/")
        labels = labels_of(prepared, ladder.split)[task]
        controls = [macro_auroc_interval(labels, other[measure]).value for other in untrained]
        rows.append(
            {
                **{"probe": probe, "task": task, "records": len(labels)},
                "trained": as_text(macro_auroc_interval(labels, found[measure])),
                "untrained": ", ".join(f"{value:.3f}" for value in controls),
                "gain": as_text(gain_over(labels, found[measure], [other[measure] for other in untrained])),
            }
        )
    return pd.DataFrame(rows)


def classifier_results(arguments: CheckpointSettings, prepared: str) -> pd.DataFrame:
    """Return the test macro AUROC of the classifier beside the one that its own folder states."""
    directory = Path(arguments.classifier)
    metrics, task = read_metrics(directory), read_json(directory / TRAINING_INFO_FILE)["task"]
    model = EcgJepaForSequenceClassification.from_pretrained(directory)
    extractor = EcgJepaFeatureExtractor.from_pretrained(directory)
    data = TaskData.load(prepared, task, DATABASE)
    length, stride = data.samples(extractor.crop_duration), data.samples(extractor.crop_stride)
    logits = Scorer(model, data, "test", length, stride, frozen=False).logits()
    labels, names = data.task.labels[data.splits["test"]], data.task.class_names
    rows = []
    stated = {name: part["macro_auroc"] for name, part in metrics.get("test_parts", {}).items()}
    for part, classes in {**data.task.parts, "all classes": names}.items():
        columns = [names.index(name) for name in classes]
        bounds = macro_auroc_interval(labels[:, columns], logits[:, columns])
        card = stated.get(part, metrics["test_metrics"]["macro"]["auroc"]["value"])
        rows.append({"classes": part, "records": len(labels), "macro AUROC": as_text(bounds), "stated": f"{card:.3f}"})
    return pd.DataFrame(rows)


def write_on_card(directory: str, table: str) -> None:
    """Write the results section of a card, in place of the old one."""
    section = (
        "## Results\n\nMacro AUROC on the test records with 95% bootstrap intervals over them, for two probes on frozen tokens "
        "that were fitted on the training records: logistic regression on mean tokens, and a learned query over all tokens (300 "
        "steps). Untrained: the same architecture with random weights, three seeds; the gain is paired over records. "
        f"`python benchmarks/shipped_checkpoints.py` measures all of it again.\n\n{table}\n\n"
    )
    card = Path(directory, "README.md")
    text = re.sub(r"## Results\n.*?(?=## Training data)", "", card.read_text(), flags=re.DOTALL)
    card.write_text(text.replace("## Training data", section + "## Training data", 1))


def main() -> None:
    """Measure, print and save."""
    arguments = parse_settings(CheckpointSettings)
    prepared = prepare(arguments)
    tables = {
        f"{arguments.encoder}: probes on frozen tokens": encoder_results(arguments, prepared),
        f"{arguments.classifier}": classifier_results(arguments, prepared),
    }
    text = "\n\n".join(f"{title}\n\n{table.to_markdown(index=False)}" for title, table in tables.items())
    print(text)
    if arguments.write_card:
        write_on_card(arguments.encoder, tables[f"{arguments.encoder}: probes on frozen tokens"].to_markdown(index=False))
    Path(arguments.output_dir, "results.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

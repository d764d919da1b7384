"""
The figures on the cards of the checkpoints that ship, from the records that they were measured on.

    python tests/benchmarks/checkpoint_figures.py --raw_dir RAW [--write_card True]

RAW holds PTB-XL's files at 100 Hz. Prepares them, embeds training and test records with the encoder and with untrained ones, fits
the same probes on each, and scores the classifier; prints Markdown and saves it. Minutes on two cores. `--write_card` puts the
encoder's table onto its card.
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
from ecg_jepa.evaluation.bootstrap import Interval, bootstrap, macro, macro_auroc_interval, resampled_auroc
from ecg_jepa.finetuning.classifier import Scorer
from ecg_jepa.model.feature_extraction_ecg_jepa import EcgJepaFeatureExtractor
from ecg_jepa.model.modeling_ecg_jepa import EcgJepaForSequenceClassification, EcgJepaModel


@settings
class FigureSettings:
    """Arguments of this script."""

    raw_dir: str = option(text="PTB-XL as downloaded, at 100 Hz")
    encoder: str = option("checkpoints/ecg-jepa-xs-100hz", "directory of the encoder")
    classifier: str = option("checkpoints/ecg-jepa-xs-100hz-superdiagnostic", "directory of the classifier")
    output_dir: str = option("runs/checkpoint_figures", "of prepared records and figures")
    untrained: int = option(3, "encoders to compare with")
    write_card: bool = option(False, "write the encoder's figures onto its card")


def prepare(arguments: FigureSettings) -> str:
    """The records as the checkpoints take them."""
    prepared = str(Path(arguments.output_dir, "prepared"))
    amplitude = ["--amplitude_free"] if EcgJepaModel.config_class.from_pretrained(arguments.encoder).amplitude_free else []
    source = ["--database", DATABASE, "--sampling_rate", "100", "--data_dir", arguments.raw_dir]
    run_command("prepare", [*source, *amplitude, "--output_dir", prepared], "prepare")
    return prepared


def in_words(bounds: Interval) -> str:
    """A figure with its interval."""
    return f"{bounds.value:.3f} ({bounds.low:.3f} to {bounds.high:.3f})"


def gain_over(labels: np.ndarray, scores: np.ndarray, controls: list[np.ndarray]) -> Interval:
    """Macro AUROC above the mean of controls, paired over resamples of the test records."""

    def difference(counts: np.ndarray) -> np.ndarray:
        values = [macro(resampled_auroc(labels, one, counts)) for one in (scores, *controls)]
        return values[0] - np.mean(values[1:], axis=0)

    return bootstrap(difference, len(labels))


def encoder_figures(arguments: FigureSettings, prepared: str) -> pd.DataFrame:
    """Both probes on frozen tokens of trained and untrained encoders: macro AUROC on test records, and what training gained."""
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
                "trained": in_words(macro_auroc_interval(labels, found[measure])),
                "untrained": ", ".join(f"{value:.3f}" for value in controls),
                "gain": in_words(gain_over(labels, found[measure], [other[measure] for other in untrained])),
            }
        )
    return pd.DataFrame(rows)


def classifier_figures(arguments: FigureSettings, prepared: str) -> pd.DataFrame:
    """Macro AUROC of the classifier on test records, and beside it what its own folder says."""
    directory = Path(arguments.classifier)
    metrics, task = read_json(directory / "metrics.json"), read_json(directory / TRAINING_INFO_FILE)["task"]
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
        card = stated.get(part, metrics["test_macro_auroc"])
        rows.append({"classes": part, "records": len(labels), "macro AUROC": in_words(bounds), "stated": f"{card:.3f}"})
    return pd.DataFrame(rows)


def write_on_card(directory: str, table: str) -> None:
    """A section of a card, new or in the place of what it was."""
    section = (
        "## Results\n\nMacro AUROC on the test records with 95% bootstrap intervals over them, for two probes on frozen tokens "
        "that were fitted on the training records: logistic regression on mean tokens, and a learned query over all tokens (300 "
        "steps). Untrained: the same architecture with random weights, three seeds; the gain is paired over records. "
        f"`python tests/benchmarks/checkpoint_figures.py` measures all of it again.\n\n{table}\n\n"
    )
    card = Path(directory, "README.md")
    text = re.sub(r"## Results\n.*?(?=## Training data)", "", card.read_text(), flags=re.DOTALL)
    card.write_text(text.replace("## Training data", section + "## Training data", 1))


def main() -> None:
    """Measure, print and save."""
    arguments = parse_settings(FigureSettings)
    prepared = prepare(arguments)
    tables = {
        f"{arguments.encoder}: probes on frozen tokens": encoder_figures(arguments, prepared),
        f"{arguments.classifier}": classifier_figures(arguments, prepared),
    }
    text = "\n\n".join(f"{title}\n\n{table.to_markdown(index=False)}" for title, table in tables.items())
    print(text)
    if arguments.write_card:
        write_on_card(arguments.encoder, tables[f"{arguments.encoder}: probes on frozen tokens"].to_markdown(index=False))
    Path(arguments.output_dir, "figures.md").write_text(text + "\n")


if __name__ == "__main__":
    main()

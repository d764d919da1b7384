import numpy as np
import pytest

from ecg_jepa import EcgJepaConfig, EcgJepaForSequenceClassification
from ecg_jepa.data.task_data import TaskData
from ecg_jepa.evaluation.results import Predictions
from ecg_jepa.finetuning.result_plots import _title, plot_examples


@pytest.fixture
def model():
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_labels=5)
    return EcgJepaForSequenceClassification(config)


def test_crops_may_be_longer_than_the_picture(prepared_dir):
    data = TaskData.load(prepared_dir, "superdiagnostic")
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_labels=5, signal_length=6000)
    labels = data.task.labels[data.splits["test"]]
    figures = plot_examples(EcgJepaForSequenceClassification(config), data, Predictions(labels, labels), 6000, 3000)
    for figure in figures.values():
        assert len(figure.axes[1].patches[0].get_data().values) == 200


def test_examples_are_the_surest_true_positives(model, prepared_dir):
    data = TaskData.load(prepared_dir, "superdiagnostic")
    labels = data.task.labels[data.splits["test"]]
    logits = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    logits[labels == 0] += 10  # negatives are scored higher, but are no examples
    figures = plot_examples(model, data, Predictions(labels, logits), 1250, 625, count=2)
    frequent = np.argsort(-labels.sum(axis=0), kind="stable")[:2]
    assert list(figures) == [data.task.class_names[column] for column in frequent]
    column = frequent[0]
    best = max(np.flatnonzero(labels[:, column]), key=lambda row: logits[row, column])
    record = data.database.column("record_id")[data.splits["test"][best]]
    title = figures[data.task.class_names[column]].axes[0].get_title()
    name = data.task.class_names[column]
    assert title.startswith(f"record {record}, labelled ")
    assert name in title.split(":")[0]
    assert f"highest score for {name} among test records with that label. Scores: " in " ".join(title.split())
    strip, below = figures[data.task.class_names[column]].axes
    signal = data.database.signal(data.splits["test"][best]) / 1000
    baseline = strip.get_lines()[-1].get_ydata()[0]  # of the last calibration mark
    np.testing.assert_allclose(strip.get_lines()[12].get_ydata() - baseline, 10 * signal[1], atol=1e-5)
    assert below.patches[0].get_data().values.sum() == pytest.approx(1)


def test_a_title_says_what_is_likelier_than_what_the_picture_is_of():
    names, labels = ["NORM", "STTC", "CD", "MI", "$x"], np.array([0, 1, 0, 0, 1])
    title = _title("7", names, labels, np.array([0.67, 0.16, 0.3, 0.2, 0.25]), column=1)
    assert title == (
        "record 7, labelled STTC, $x: highest score for STTC among test records with that label. "
        "Scores: NORM 0.67, CD 0.30, $x 0.25, STTC 0.16"
    )
    assert _title("7", names, labels, np.array([0.1, 0.9, 0.3, 0.2, 0.0]), 1).endswith("Scores: STTC 0.90, CD 0.30, MI 0.20")


def test_scores_on_pictures_are_those_that_the_checkpoint_gives(model, prepared_dir):
    data = TaskData.load(prepared_dir, "superdiagnostic")
    labels = data.task.labels[data.splits["test"]]
    logits = np.full(labels.shape, 2.0, dtype=np.float32)
    model.config.temperature = 4.0
    for figure in plot_examples(model, data, Predictions(labels, logits), 1250, 625).values():
        assert " 0.62" in figure.axes[0].get_title()  # sigmoid(2 / 4)
        assert " 0.88" not in figure.axes[0].get_title()

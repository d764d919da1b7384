"""Figures hold what they claim to; how they look is for eyes."""

import numpy as np
import pandas as pd
import pytest
from raw_databases import STANDARD, ecg

from ecg_jepa.common.figures import save
from ecg_jepa.evaluation.plots import (
    CLINICAL_LAYOUT,
    plot_calibration,
    plot_ecg,
    plot_label_fractions,
    plot_precision_recall,
    plot_roc,
)

NAMES = [f"class {number}" for number in range(10)]


@pytest.fixture
def task():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 10)) < np.geomspace(0.4, 0.03, 10)).astype(int)
    labels[:, 4] = 0
    return labels, labels + rng.normal(size=labels.shape)


def texts(figure):
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def labels_of(figure):
    return [label for axis in figure.axes for label in (axis.get_xlabel(), axis.get_ylabel())]


def test_ecg_in_clinical_layout(tmp_path):
    signal = ecg(6000, 1) / 1000
    attention = np.full(200, 1 / 200)
    figure = plot_ecg(signal[::-1], 500, [name.upper() for name in STANDARD[::-1]], attention, "a record")
    strip, below = figure.axes
    assert strip.get_xlim() == (0, 10)
    lines = strip.get_lines()
    assert len(lines) == 13
    assert [text.get_text() for text in strip.texts] == [*(name for row in CLINICAL_LAYOUT for name in row), "II"]
    # aVL is second in the second row: from 2.5 s to 5 s, 75 mm above the lower edge.
    times, values = lines[5].get_data()
    assert (times[0], times[-1]) == (2.5, 4.998)
    np.testing.assert_allclose(values - 75, 10 * signal[4, 1250:2500])
    np.testing.assert_allclose(lines[12].get_data()[1] - 15, 10 * signal[1, :5000])
    # As on paper: 25 mm of width for a second.
    assert strip.get_aspect() == pytest.approx(1 / 25)
    assert len(below.patches[0].get_data().values) == 200
    assert "time (s), 25 mm/s and 10 mm/mV" in labels_of(figure)
    assert save(figure, tmp_path / "new" / "ecg.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="needs leads V6"):
        plot_ecg(signal[:11], 500, STANDARD[:11])


def test_amplitude_free_records_are_not_drawn_as_millivolts():
    signal = ecg(5000, 1) / 1000
    figure = plot_ecg(signal, 500, STANDARD, amplitude_free=True)
    np.testing.assert_allclose(figure.axes[0].get_lines()[12].get_data()[1] - 15, 2.5 * signal[1])
    assert labels_of(figure) == ["time (s), 25 mm/s and 2.5 mm/SD", "amplitude (standard deviations), rows 12 apart"]


def test_curves_of_the_most_frequent_classes_in_colour(task):
    labels, scores = task
    for plot in (plot_roc, plot_precision_recall):
        figure = plot(labels, scores, NAMES)
        named = texts(figure)
        assert [text.split(":")[0] for text in named[:-1]] == [f"class {number}" for number in (0, 1, 2, 3, 5, 6, 7)]
        assert named[-1] == "2 more classes"  # the one without positives has no curve
        assert (
            len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines() if line.get_linewidth() > 1})
            == 7
        )
        assert all(labels_of(figure))


def test_no_name_is_left_out_of_a_legend(task):
    labels, scores = task
    names = ["_hidden", *NAMES[1:]]
    assert texts(plot_roc(labels, scores, names))[0].strip().startswith("_hidden:")
    assert texts(plot_calibration(labels, scores.clip(0, 1), names))[1].strip() == "_hidden"


def test_calibration_of_perfect_probabilities_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    probabilities = rng.random((20_000, 1))
    labels = (rng.random((20_000, 1)) < probabilities).astype(int)
    figure = plot_calibration(labels, probabilities, ["a"])
    predicted, observed = figure.axes[0].get_lines()[1].get_data()
    np.testing.assert_allclose(observed, predicted, atol=0.05)
    assert all(labels_of(figure))


def test_label_fractions():
    table = pd.DataFrame(
        {
            "model": ["s (all)"] * 3 + ["s (random)"] * 3,
            "protocol": "attentive",
            "task": "all",
            "label_fraction": [1.0, 0.01, 0.1] * 2,
            "auroc": [0.9, 0.7, 0.8, 0.8, 0.6, 0.7],
            "auroc_std": [0.01, np.nan, 0.02] * 2,
        }
    )
    figure = plot_label_fractions(table)
    assert texts(figure) == ["s (all), attentive", "s (random), attentive"]
    first = figure.axes[0].containers[0].lines[0]
    assert first.get_xdata().tolist() == [0.01, 0.1, 1.0]
    assert first.get_ydata().tolist() == [0.7, 0.8, 0.9]
    assert all(labels_of(figure))

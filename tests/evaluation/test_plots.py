"""Figures hold what they claim to; how they look is for eyes."""

import itertools

import numpy as np
import pandas as pd
import pytest
from raw_databases import STANDARD, ecg
from scipy.stats import binomtest

from ecg_jepa._utils.plot_style import save, shortened
from ecg_jepa.evaluation.calibration import reliability
from ecg_jepa.evaluation.ecg_plot import CLINICAL_LAYOUT, plot_ecg
from ecg_jepa.evaluation.plots import plot_calibration, plot_curves, plot_label_fractions
from ecg_jepa.evaluation.results import as_metrics, measure_test
from ecg_jepa.evaluation.thresholds import choose_thresholds

NAMES = [f"class {number}" for number in range(10)]


@pytest.fixture
def task():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 10)) < np.geomspace(0.4, 0.03, 10)).astype(int)
    labels[:, 4] = 0
    return labels, labels + rng.normal(size=labels.shape)


def metrics_of(labels, scores, names):
    """As a run stores them, from a few resamples."""
    chosen = choose_thresholds(labels, scores)
    return as_metrics(measure_test(labels, scores, scores, chosen, 20), labels, names, chosen.reliable)


def texts(figure):
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def labels_of(figure):
    return [label for axis in figure.axes for label in (axis.get_xlabel(), axis.get_ylabel())]


def test_precision_begins_where_a_threshold_is(task):
    labels, scores = task
    for line in plot_curves("average_precision", labels, scores, NAMES, metrics_of(labels, scores, NAMES)).axes[0].get_lines():
        recall, precision = (np.atleast_1d(data) for data in line.get_data())
        assert not ((recall == 0) & (precision == 1)).any()  # all right, and nothing found


def test_ecg_in_clinical_layout(tmp_path):
    signal = ecg(6000, 1) / 1000
    attention = np.full(200, 1 / 200)
    figure = plot_ecg(signal[::-1], 500, [name.upper() for name in STANDARD[::-1]], attention, "a record")
    strip, below = figure.axes
    assert strip.get_xlim() == (-0.6, 10)  # in front of the leads are the calibration marks
    lines = strip.get_lines()
    assert len(lines) == 13 + 4
    names = [*(name for row in CLINICAL_LAYOUT for name in row), "II"]
    assert [text.get_text() for text in strip.texts] == [*names, "1 mV\n0.2 s"]
    # aVL is second in the second row: from 2.5 s to 5 s, 75 mm above the lower edge.
    times, values = lines[5].get_data()
    assert (times[0], times[-1]) == (2.5, 4.998)
    np.testing.assert_allclose(values - 75, 10 * signal[4, 1250:2500])
    np.testing.assert_allclose(lines[12].get_data()[1] - 15, 10 * signal[1, :5000])
    for mark, baseline in zip(lines[13:], (105, 75, 45, 15), strict=True):
        times, values = mark.get_data()
        assert np.ptp(values) == 10  # 1 mV
        assert values[0] == baseline
        raised = times[values > baseline]
        assert raised[-1] - raised[0] == pytest.approx(0.2)
        assert times.max() < 0
    assert strip.get_title() == "a record"
    assert len(below.patches[0].get_data().values) == 200
    assert "time (s), 25 mm/s and 10 mm/mV" in labels_of(figure)
    assert save(figure, tmp_path / "new" / "ecg.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="needs leads V6"):
        plot_ecg(signal[:11], 500, STANDARD[:11])


def test_amplitude_free_records_are_not_drawn_as_millivolts():
    signal = ecg(5000, 1) / 1000
    figure = plot_ecg(signal, 500, STANDARD, amplitude_free=True)
    np.testing.assert_allclose(figure.axes[0].get_lines()[12].get_data()[1] - 15, 2.5 * signal[1])
    assert labels_of(figure) == ["time (s), 25 mm/s and 2.5 mm/SD", "amplitude (standard deviations)"]
    assert figure.axes[0].texts[-1].get_text() == "4 SD\n0.2 s"
    assert np.ptp(figure.axes[0].get_lines()[13].get_ydata()) == 4 * 2.5


def reach(figure):
    """Of each of the four rows: the lowest and the highest that is drawn in it, and the upper edge of the names in it."""
    axis = figure.axes[0]
    lines, names = axis.get_lines()[:13], axis.texts[:13]
    figure.draw_without_rendering()
    rows = []
    for members in (range(4), range(4, 8), range(8, 12), range(12, 13)):
        values = np.concatenate([lines[i].get_ydata() for i in members])
        tops = [axis.transData.inverted().transform(names[i].get_window_extent())[1, 1] for i in members]
        rows.append((np.nanmin(values), np.nanmax(values), max(tops)))
    return rows


@pytest.mark.parametrize("amplitude_free", [False, True])
def test_rows_do_not_reach_into_each_other(amplitude_free):
    """Neither do names of leads stand in other rows, or on the beginning of their own."""
    signal = ecg(5000, 1) / 1000
    signal[7] *= 12  # V2, in the second row
    signal[6, 2505:2560] += 5  # V1, at its beginning
    signal[1, 2000:2100] += 6  # II, in the second row and at the bottom
    signal[10, 4000:4050] -= 9  # V5
    figure = plot_ecg(signal, 500, STANDARD, amplitude_free=amplitude_free)
    rows = reach(figure)
    for (bottom, *_), (_, top, names) in itertools.pairwise(rows):
        assert bottom > max(top, names)
    low, high = figure.axes[0].get_ylim()
    assert low < rows[-1][0]
    assert max(rows[0][1:]) < high
    v1 = figure.axes[0].get_lines()[2].get_ydata()
    assert figure.axes[0].texts[2].get_position()[1] > v1[:200].max()
    # The scale stays: 2.5 mm or 10 mm for what is one.
    baseline = figure.axes[0].get_lines()[13 + 1].get_ydata()[0]
    np.testing.assert_allclose(
        figure.axes[0].get_lines()[6].get_ydata() - baseline, (2.5 if amplitude_free else 10) * signal[7, 2500:3750]
    )


@pytest.mark.parametrize(
    ("seconds", "attention", "title"), [(10, None, ""), (10, np.ones(200), "t" * 400), (2.5, np.ones(50), "a b " * 60)]
)
def test_a_second_is_25_millimetres_of_the_saved_picture(seconds, attention, title):
    signal = ecg(5000, 1)[:, : int(500 * seconds)] / 1000
    figure = plot_ecg(signal, 500, STANDARD, attention, title)
    figure.draw_without_rendering()
    axis = figure.axes[0]
    box = axis.get_window_extent()
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert box.width / figure.dpi * 25.4 / (right - left) == pytest.approx(25)
    assert box.height / figure.dpi * 25.4 / (top - bottom) == pytest.approx(1)
    everything = figure.get_tightbbox()  # in inches: nothing is cut off
    assert everything.x0 >= 0
    assert everything.y0 >= 0
    assert everything.x1 <= figure.get_figwidth()
    assert everything.y1 <= figure.get_figheight()


def test_missing_samples_are_gaps():
    signal = ecg(5000, 1) / 1000
    signal[3, :2000] = np.nan
    signal[8] = np.nan
    lines = plot_ecg(signal, 500, STANDARD).axes[0].get_lines()
    assert np.isnan(lines[1].get_ydata()).sum() == 750
    assert np.isnan(lines[10].get_ydata()).all()


def test_microvolts_as_millivolts_are_refused_before_meters_of_paper_are_drawn():
    with pytest.raises(ValueError, match=r"m of paper. Is the signal in mV\?"):
        plot_ecg(ecg(5000, 1) * 10, 500, STANDARD)


def test_curves_of_the_most_frequent_classes_in_colour(task):
    labels, scores = task
    for key in ("auroc", "average_precision"):
        figure = plot_curves(key, labels, scores, NAMES, metrics_of(labels, scores, NAMES))
        named = texts(figure)
        named = [text for text in named if text != "chance"]
        assert [text.split(":")[0] for text in named[:-1]] == [f"class {number}" for number in (0, 1, 2, 3, 5, 6, 7)]
        assert named[0].endswith(f", {labels[:, 0].sum()}")  # positives
        assert named[-1] == "2 more classes"  # the one without positives has no curve
        assert (
            len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines() if line.get_linewidth() > 1})
            == 7
        )
        assert all(labels_of(figure))


def test_no_name_is_left_out_of_a_legend(task):
    labels, scores = task
    names = ["_hidden", *NAMES[1:]]
    figure = plot_curves("auroc", labels, scores, names, metrics_of(labels, scores, names))
    assert texts(figure)[1].strip().startswith("_hidden:")
    assert (
        plot_calibration(labels, scores.clip(0, 1), names, metrics_of(labels, scores, names))
        .axes[0]
        .get_title()
        .startswith("_hidden:")
    )


def test_pictures_say_of_what_they_are_and_how_sure(task):
    labels, scores = task
    probabilities = 1 / (1 + np.exp(-scores))
    entry = {"value": 0.5, "interval": [0.41, 0.59]}
    names = ["auroc", "average_precision", "expected_calibration_error"]
    metrics = {"macro": dict.fromkeys(names, entry), "per_class": {name: dict.fromkeys(names, entry) for name in NAMES}}
    metrics["per_class"]["class 1"] = {key: {"value": 0.5, "interval": None} for key in names}
    where = "rhythm on ptb-xl, test"
    for key in ("auroc", "average_precision"):
        figure = plot_curves(key, labels, scores, NAMES, metrics, where)
        assert f": {where}, 300 records\nmacro" in figure.get_suptitle()
        assert "(0.410 to 0.590)" in figure.get_suptitle()
        named = {text.split(":")[0]: text for text in texts(figure)}
        assert f"(0.410 to 0.590), {labels[:, 0].sum()}" in named["class 0"]
        assert "to" not in named["class 1"]
        assert "95% bootstrap" in figure.legends[0].get_title().get_text()
    figure = plot_calibration(labels, probabilities, NAMES, metrics, where)
    assert figure.get_suptitle() == f"Calibration: {where}, 300 records\nthe 6 most frequent of 10 classes"
    assert f"{labels[:, 0].sum()} positives" in figure.axes[0].get_title()
    assert "(0.410 to 0.590)" in figure.axes[0].get_title()
    assert "95% intervals" in figure.get_supxlabel()
    assert len(figure.axes) == 6


def test_legends_lie_off_the_data_and_titles_off_legends(task):
    labels, scores = task
    names = ["atrioventricular block of the first degree " * 3, *NAMES[1:]]
    for key in ("auroc", "average_precision"):
        figure = plot_curves(
            key,
            labels,
            scores,
            names,
            metrics_of(labels, scores, names),
            "a task of some length+another task on a database of some length, test",
        )
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        assert not legend.overlaps(figure.axes[0].get_window_extent())
        assert not legend.overlaps(figure._suptitle.get_window_extent())
        assert legend.x1 <= figure.bbox.x1


def test_calibration_bins_hold_enough_records_and_bars_are_wilsons():
    rng = np.random.default_rng(0)
    probabilities = rng.random((110, 1))
    labels = (rng.random((110, 1)) < probabilities).astype(int)
    bins = reliability(labels[:, 0], probabilities[:, 0])
    assert bins.records.tolist() == [22] * 5
    for count, share, low, high in zip(bins.records, bins.observed, bins.low, bins.high, strict=True):
        expected = binomtest(round(share * count), count).proportion_ci(0.95, "wilson")
        assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    (bars,) = plot_calibration(labels, probabilities, ["a"], metrics_of(labels, probabilities, ["a"])).axes[0].collections
    np.testing.assert_allclose([path.vertices[:, 1] for path in bars.get_paths()], np.stack([bins.low, bins.high], axis=1))
    np.testing.assert_allclose([path.vertices[:, 0] for path in bars.get_paths()], np.stack([bins.predicted] * 2, axis=1))


def test_calibration_of_perfect_probabilities_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    probabilities = rng.random((20_000, 1))
    labels = (rng.random((20_000, 1)) < probabilities).astype(int)
    figure = plot_calibration(labels, probabilities, ["a"], metrics_of(labels, probabilities, ["a"]))
    predicted, observed = figure.axes[0].get_lines()[1].get_data()
    np.testing.assert_allclose(observed, predicted, atol=0.05)
    assert figure.get_supylabel() == "observed share of positives"


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
    apart = plot_label_fractions(table.assign(settings=["", "", "learning_rate 0.1"] * 2))
    assert texts(apart)[:2] == ["s (all), attentive", "s (all), attentive, learning_rate 0.1"]
    table = table.assign(settings="")
    figure = plot_label_fractions(table)
    assert texts(figure) == ["s (all), attentive", "s (random), attentive"]
    first = figure.axes[0].containers[0].lines[0]
    second = figure.axes[0].containers[1].lines[0]
    places = [np.asarray(line.get_xdata(), dtype=float) for line in (first, second)]
    np.testing.assert_allclose(places[0], [0.01, 0.1, 1.0], rtol=0.02)
    assert (places[0] < places[1]).all()  # beside each other
    assert first.get_ydata().tolist() == [0.7, 0.8, 0.9]
    assert all(labels_of(figure))
    assert "bars: one standard deviation over seeds" in figure.axes[0].get_title()
    single = plot_label_fractions(table.assign(auroc_std=np.nan))
    assert "no bars" in single.axes[0].get_title()
    figure.draw_without_rendering()
    assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())


def test_long_names_are_cut():
    assert shortened("a name", 6) == "a name"
    assert shortened("a longer name", 6) == "a lon\N{HORIZONTAL ELLIPSIS}"
    assert shortened("two\nlines", 20) == "two lines"

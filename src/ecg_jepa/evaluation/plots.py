"""Pictures of results. Each function returns a figure; [`common.figures.save`] writes it."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from .._utils.plot_style import COLORS, in_legend, new_figure, shortened
from .calibration import FEWEST_PER_BIN, expected_calibration_error, reliability
from .ecg_plot import CLINICAL_DURATION, CLINICAL_LAYOUT, has_clinical_leads, plot_ecg
from .metrics import PerClass, auroc, average_precision

__all__ = [
    "CLINICAL_DURATION",
    "CLINICAL_LAYOUT",
    "has_clinical_leads",
    "plot_calibration",
    "plot_ecg",
    "plot_label_fractions",
    "plot_over_cost",
    "plot_precision_recall",
    "plot_roc",
]

_MAX_CURVES = len(COLORS)  # in colour, the classes with most records; the others are thin and grey
_MAX_PANELS = 6
_LETTERS_OF_A_TITLE = 80

_APART = 1.03  # factor between lines on an axis of shares


def _most_frequent(labels: np.ndarray, scorable: Sequence[int], most: int) -> list[int]:
    return sorted(scorable, key=lambda column: -labels[:, column].sum())[:most]


def plot_roc(
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: list[str],
    where: str = "",
    figures: Mapping[str, Any] | None = None,
) -> Figure:
    """
    ROC curve of every class that can be scored; the most frequent ones in colour, with their AUROC.

    Args:
        labels: zeros and ones, (records, classes).
        scores: (records, classes).
        class_names: of the columns.
        where: task, database and split, for the title.
        figures: `test_figures` of a run, for the intervals.
    """
    result = auroc(labels, scores, class_names)
    figure, axis = new_figure(9.5, 5.5)
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="chance")
    _draw_curves(axis, labels, class_names, _texts(result, figures, "auroc"), lambda c: roc_curve(labels[:, c], scores[:, c])[:2])
    axis.set(xlabel="1 - specificity (share of negatives)", ylabel="sensitivity (share of positives)")
    _finish_curves(figure, axis, "AUROC", _title("ROC", labels, where, f"macro AUROC {_macro(result, figures, 'auroc')}"))
    return figure


def plot_precision_recall(
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: list[str],
    where: str = "",
    figures: Mapping[str, Any] | None = None,
) -> Figure:
    """
    Precision over recall of every class that can be scored; the most frequent ones in colour. Arguments as for [`plot_roc`].
    """
    result = average_precision(labels, scores, class_names)
    figure, axis = new_figure(9.5, 5.5)

    def curve(column: int) -> tuple[np.ndarray, np.ndarray]:
        precision, recall, _ = precision_recall_curve(labels[:, column], scores[:, column])
        return recall[:-1], precision[:-1]  # without the point (0, 1), which scikit-learn adds and no threshold gives

    _draw_curves(axis, labels, class_names, _texts(result, figures, "average_precision"), curve)
    axis.set(xlabel="recall, or sensitivity (share of positives)", ylabel="precision, or PPV (share of predictions)")
    overall = f"macro average precision {_macro(result, figures, 'average_precision')}"
    _finish_curves(figure, axis, "average precision", _title("Precision and recall", labels, where, overall))
    return figure


def _texts(result: PerClass, figures: Mapping[str, Any] | None, name: str) -> dict[str, str]:
    """Of each class that can be scored: its figure, with the interval where there is one, and its positives."""
    per_class = figures["per_class"] if figures else {}
    return {
        label: f"{value:.3f}{_bounds(per_class.get(label, {}).get(name))}, {result.support[label]}"
        for label, value in result.per_class.items()
    }


def _macro(result: PerClass, figures: Mapping[str, Any] | None, name: str) -> str:
    return f"{result.macro:.3f}{_bounds(figures['macro'].get(name) if figures else None)}"


def _bounds(entry: Mapping[str, Any] | None) -> str:
    return " ({:.3f} to {:.3f})".format(*entry["interval"]) if entry and entry["interval"] else ""


def _title(kind: str, labels: np.ndarray, where: str, overall: str) -> str:
    first = textwrap.wrap(f"{kind}: {where}{', ' if where else ''}{len(labels):,} records", _LETTERS_OF_A_TITLE)
    return "\n".join([*first, *([overall] if overall else [])])


def _draw_curves(
    axis: Axes,
    labels: np.ndarray,
    class_names: list[str],
    texts: dict[str, str],
    curve: Callable[[int], tuple[np.ndarray, np.ndarray]],
) -> None:
    scorable = [column for column, name in enumerate(class_names) if name in texts]
    chosen = _most_frequent(labels, scorable, _MAX_CURVES)
    for column in scorable:
        if column not in chosen:
            axis.plot(*curve(column), color="0.8", linewidth=0.6, linestyle="-", zorder=1)
    for column in chosen:
        name = class_names[column]
        axis.plot(*curve(column), linewidth=1.6, label=in_legend(f"{shortened(name, 24)}: {texts[name]}"))
    if len(chosen) < len(scorable):
        axis.plot([], [], color="0.8", linewidth=0.6, linestyle="-", label=f"{len(scorable) - len(chosen)} more classes")


def _finish_curves(figure: Figure, axis: Axes, name: str, title: str) -> None:
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    figure.suptitle(title, fontsize=11)
    heading = f"class: {name} (95% bootstrap\ninterval over records), positives"
    figure.legend(fontsize=8, title=heading, title_fontsize=8, loc="outside right lower")  # the title is above


def plot_calibration(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: list[str],
    where: str = "",
    figures: Mapping[str, Any] | None = None,
) -> Figure:
    """
    Observed share of positives over predicted probability, in bins of about equally many records (see
    [`calibration.equal_mass_bins`]), a panel for each of the most frequent classes. Arguments as for [`plot_roc`], with
    probabilities for scores. Panels end where their probabilities do.
    """
    scorable = [column for column in range(labels.shape[1]) if 0 < labels[:, column].sum() < len(labels)]
    chosen = _most_frequent(labels, scorable, _MAX_PANELS)
    columns = min(3, max(1, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    figure, axes = new_figure(max(7.0, 3.2 * columns), 3.3 * rows + 1.4, nrows=rows, ncols=columns, squeeze=False)
    errors = expected_calibration_error(labels, probabilities)
    for axis in axes.ravel()[len(chosen) :]:
        axis.set_axis_off()
    for axis, column, color in zip(axes.ravel(), chosen, COLORS, strict=False):
        name = class_names[column]
        interval = _bounds(figures["per_class"][name]["expected_calibration_error"]) if figures else ""
        positives = f"{labels[:, column].sum():.0f} positives"
        _draw_reliability(axis, labels[:, column], probabilities[:, column], color)
        axis.set_title(f"{shortened(name, 30)}: {positives}\ncalibration error {errors[column]:.3f}{interval}", fontsize=9)
    overall = f"the {len(chosen)} most frequent of {labels.shape[1]} classes" if len(chosen) < labels.shape[1] else ""
    figure.suptitle(_title("Calibration", labels, where, overall), fontsize=11)
    figure.supylabel("observed share of positives", fontsize=9)
    figure.supxlabel(
        f"predicted probability (mean of a bin)\nBins hold about equally many records, at least {FEWEST_PER_BIN} if there are so "
        "many. Dotted: perfect.\nBars: 95% intervals of the observed share (Wilson). Panels have scales of their own.",
        fontsize=9,
    )
    return figure


def _draw_reliability(axis: Axes, labels: np.ndarray, probabilities: np.ndarray, color: str) -> None:
    bins = reliability(labels, probabilities)
    end = min(1.0, 1.08 * float(max(bins.predicted.max(), bins.high.max())))
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    errors = np.stack([bins.observed - bins.low, bins.high - bins.observed])
    axis.errorbar(
        bins.predicted,
        bins.observed,
        yerr=errors,
        color=color,
        linestyle="-",
        linewidth=1.2,
        elinewidth=0.9,
        marker="o",
        markersize=3,
    )
    axis.set(xlim=(-0.01 * end, end), ylim=(-0.01 * end, end), aspect="equal")
    axis.grid(color="0.93")


def plot_label_fractions(table: pd.DataFrame) -> Figure:
    """
    Macro AUROC over the share of the training labels, a line per encoder, protocol and its settings, bars for one standard
    deviation.

    Args:
        table: of [`tables.gather`], for one task.
    """
    figure, axis = new_figure(7.0, 5.5)
    if "settings" not in table:
        table = table.assign(settings="")
    lines = table.groupby(["model", "protocol", "settings"], sort=False)
    for number, ((model, protocol, settings), rows) in enumerate(lines):
        beside = _APART ** (number - (len(lines) - 1) / 2)  # or bars would hide each other
        rows = rows.sort_values("label_fraction")
        errors = rows["auroc_std"].fillna(0.0)
        words = [shortened(str(model), 70), str(protocol), shortened(str(settings), 70)]
        label = in_legend(", ".join(filter(None, words)))
        axis.errorbar(beside * rows["label_fraction"], rows["auroc"], yerr=errors, marker="o", capsize=3, label=label)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axis.set_xticks(sorted(table["label_fraction"].unique()))
    axis.minorticks_off()
    bars = "bars: one standard deviation over seeds, none where there is one run"
    bars = "single runs, one seed each: no bars" if table["auroc_std"].isna().all() else bars
    axis.set(xlabel="training labels (% of all)", ylabel="macro AUROC on test records, mean over seeds")
    axis.set_title(f"{', '.join(table['task'].unique())}\n{bars}", fontsize=10)
    axis.grid(color="0.9")
    figure.legend(fontsize=8, loc="outside lower left")
    return figure


def plot_over_cost(logs: pd.DataFrame, column: str, task: str) -> Figure:
    """
    The linear probe on validation records over what training had cost until then: the mean over seeds of each objective, and thin
    lines for seeds; one that does not train is a horizontal line.

    Args:
        logs: a row per `label`, `seed` and measurement, with `eval_probe_auroc` and the column that is drawn over.
        column: `TFLOP` or `step`.
        task: of the probe.
    """
    figure, axis = new_figure(8.0, 4.8)
    for number, (label, rows) in enumerate(logs.groupby("label", sort=False)):
        color, name = COLORS[number % len(COLORS)], in_legend(shortened(str(label), 40))
        if rows[column].max() == 0:
            axis.axhline(rows["eval_probe_auroc"].mean(), color=color, linestyle="--", label=name)
            continue
        for _, run in rows.groupby("seed"):
            axis.plot(run[column], run["eval_probe_auroc"], color=color, linewidth=0.5, alpha=0.5, linestyle="-")
        mean = rows.groupby(column)["eval_probe_auroc"].mean()
        axis.plot(mean.index, mean, color=color, linewidth=1.8, linestyle="-", label=name)
    axis.set(xlabel="TFLOP of training" if column == "TFLOP" else "optimiser steps", ylabel="macro AUROC of the linear probe")
    lines = "thick: mean over seeds; thin: each seed; dashed: without training"
    axis.set_title(f"{task} on validation records\n{lines}", fontsize=10)
    axis.grid(color="0.9")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure

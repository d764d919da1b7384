"""Plots of results. Each function returns a figure; [`plot_style.save`] writes it."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from .._utils.plot_style import COLORS, in_legend, new_figure, shortened
from .bootstrap import as_text
from .calibration import FEWEST_PER_BIN, reliability

_MAX_CURVES = len(COLORS)  # in colour, the classes with most records; the others are thin and grey
_MAX_PANELS = 6
_TITLE_WIDTH = 80  # letters
_APART = 1.03  # factor between lines on an axis of shares

# Key of a metric -> kind of plot, name of the metric, and of both axes.
_CURVES = {
    "auroc": ("ROC", "AUROC", "1 - specificity (share of negatives)", "sensitivity (share of positives)"),
    "average_precision": (
        *("Precision and recall", "average precision"),
        *("recall, or sensitivity (share of positives)", "precision, or PPV (share of predictions)"),
    ),
}


def plot_curves(
    key: str, labels: np.ndarray, scores: np.ndarray, class_names: list[str], metrics: Mapping[str, Any], where: str = ""
) -> Figure:
    """
    Plot the ROC curve (`key` "auroc") or precision over recall ("average_precision") of every class that can be scored; the most
    frequent ones in colour, with their value. Labels and scores are (records, classes), `metrics` the `test_metrics` of the run;
    `where` is for the title: task, database and split.
    """

    def curve(column: int) -> tuple[np.ndarray, np.ndarray]:
        if key == "auroc":
            return roc_curve(labels[:, column], scores[:, column])[:2]
        precision, recall, _ = precision_recall_curve(labels[:, column], scores[:, column])
        return recall[:-1], precision[:-1]  # without the point (0, 1), which scikit-learn adds and no threshold gives

    kind, metric, x, y = _CURVES[key]
    figure, axis = new_figure(9.5, 5.5)
    if key == "auroc":
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="chance")
    entries = [metrics["per_class"][name][key] for name in class_names]
    scorable = [column for column, entry in enumerate(entries) if entry["value"] is not None]
    chosen = _most_frequent(labels, scorable, _MAX_CURVES)
    for column in scorable:
        if column not in chosen:
            axis.plot(*curve(column), color="0.8", linewidth=0.6, linestyle="-", zorder=1)
    for column in chosen:
        text = f"{shortened(class_names[column], 24)}: {as_text(entries[column])}, {labels[:, column].sum():.0f}"
        axis.plot(*curve(column), linewidth=1.6, label=in_legend(text))
    if len(chosen) < len(scorable):
        axis.plot([], [], color="0.8", linewidth=0.6, linestyle="-", label=f"{len(scorable) - len(chosen)} more classes")
    axis.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    figure.suptitle(_title(kind, labels, where, f"macro {metric} {as_text(metrics['macro'][key])}"), fontsize=11)
    heading = f"class: {metric} (95% bootstrap\ninterval over records), positives"
    figure.legend(fontsize=8, title=heading, title_fontsize=8, loc="outside right lower")  # the title is above
    return figure


def _most_frequent(labels: np.ndarray, scorable: Sequence[int], most: int) -> list[int]:
    return sorted(scorable, key=lambda column: -labels[:, column].sum())[:most]


def _title(kind: str, labels: np.ndarray, where: str, overall: str) -> str:
    first = textwrap.wrap(f"{kind}: {where}{', ' if where else ''}{len(labels):,} records", _TITLE_WIDTH)
    return "\n".join([*first, *([overall] if overall else [])])


def plot_calibration(
    labels: np.ndarray, probabilities: np.ndarray, class_names: list[str], metrics: Mapping[str, Any], where: str = ""
) -> Figure:
    """
    Plot the observed share of positives over predicted probability in bins (see [`calibration.equal_mass_bins`]), a panel for
    each of the most frequent classes. Arguments as for [`plot_curves`]. Panels end where their probabilities do.
    """
    scorable = [column for column in range(labels.shape[1]) if 0 < labels[:, column].sum() < len(labels)]
    chosen = _most_frequent(labels, scorable, _MAX_PANELS)
    columns = min(3, max(1, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    figure, axes = new_figure(max(7.0, 3.2 * columns), 3.3 * rows + 1.4, nrows=rows, ncols=columns, squeeze=False)
    for axis in axes.ravel()[len(chosen) :]:
        axis.set_axis_off()
    style: dict[str, Any] = {"linestyle": "-", "linewidth": 1.2, "elinewidth": 0.9, "marker": "o", "markersize": 3}
    for axis, column, color in zip(axes.ravel(), chosen, COLORS, strict=False):
        bins = reliability(labels[:, column], probabilities[:, column])
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
        errors = np.stack([bins.observed - bins.low, bins.high - bins.observed])
        axis.errorbar(bins.predicted.to_numpy(), bins.observed.to_numpy(), yerr=errors, color=color, **style)
        end = min(1.0, 1.08 * float(max(bins.predicted.max(), bins.high.max())))
        axis.set(xlim=(-0.01 * end, end), ylim=(-0.01 * end, end), aspect="equal")
        axis.grid(color="0.93")
        error = as_text(metrics["per_class"][class_names[column]]["expected_calibration_error"])
        heading = f"{shortened(class_names[column], 30)}: {labels[:, column].sum():.0f} positives\ncalibration error {error}"
        axis.set_title(heading, fontsize=9)
    overall = f"the {len(chosen)} most frequent of {labels.shape[1]} classes" if len(chosen) < labels.shape[1] else ""
    figure.suptitle(_title("Calibration", labels, where, overall), fontsize=11)
    figure.supylabel("observed share of positives", fontsize=9)
    figure.supxlabel(
        f"predicted probability (mean of a bin)\nBins hold about equally many records, at least {FEWEST_PER_BIN} if there are so "
        "many. Dotted: perfect.\nBars: 95% intervals of the observed share (Wilson). Panels have scales of their own.",
        fontsize=9,
    )
    return figure


def plot_label_fractions(table: pd.DataFrame) -> Figure:
    """
    Plot macro AUROC over the share of the training labels, a line per encoder, protocol and settings; bars are one standard
    deviation. `table` is one of [`tables.gather`], for one task.
    """
    figure, axis = new_figure(7.0, 5.5)
    lines = table.groupby(["model", "protocol", "settings"], sort=False)
    for number, ((model, protocol, settings), rows) in enumerate(lines):
        beside = _APART ** (number - (len(lines) - 1) / 2)  # or bars would hide each other
        rows = rows.sort_values("label_fraction")
        errors = rows["auroc_std"].fillna(0.0)
        label = in_legend(", ".join(filter(None, [shortened(str(model), 70), str(protocol), shortened(str(settings), 70)])))
        axis.errorbar(beside * rows["label_fraction"], rows["auroc"], yerr=errors, marker="o", capsize=3, label=label)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axis.set_xticks(sorted(table["label_fraction"].unique()))
    axis.minorticks_off()
    single = table["auroc_std"].isna().all()
    bars = (
        "single runs, one seed each: no bars"
        if single
        else "bars: one standard deviation over seeds, none where there is one run"
    )
    axis.set(xlabel="training labels (% of all)", ylabel="macro AUROC on test records, mean over seeds")
    axis.set_title(f"{', '.join(table['task'].unique())}\n{bars}", fontsize=10)
    axis.grid(color="0.9")
    figure.legend(fontsize=8, loc="outside lower left")
    return figure

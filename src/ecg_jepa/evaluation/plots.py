"""Pictures of results. Each function returns a figure; [`common.figures.save`] writes it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from ..common.figures import COLORS, in_legend, new_figure
from .metrics import auroc, average_precision

_MAX_CURVES = len(COLORS)  # in colour, the classes with most records; the others are thin and grey

# The usual paper of electrocardiographs: 25 mm/s, 10 mm/mV, lines every 1 and 5 mm.
MM_PER_SECOND, MM_PER_MILLIVOLT = 25.0, 10.0
# Of amplitude-free records, whose QRS complexes reach 5 to 10 standard deviations: as high as usual ones in mV.
MM_PER_DEVIATION = 2.5
_MM_PER_INCH, _CENTIMETRE = 25.4, 10.0
CLINICAL_LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
CLINICAL_DURATION = 10.0  # s
_RHYTHM_LEAD = "II"
_ROW_HEIGHT = 30.0  # mm


def plot_ecg(
    signal: np.ndarray,
    sampling_rate: float,
    lead_names: Sequence[str],
    attention: np.ndarray | None = None,
    title: str = "",
    amplitude_free: bool = False,
) -> Figure:
    """
    A record in the clinical layout: three rows of four leads, one after the other in time, and a rhythm strip of lead II.

    Args:
        signal: (leads, samples) in mV, or of `amplitude_free` records in standard deviations; the first 10 s are drawn.
        sampling_rate: in Hz.
        lead_names: of the rows, in any order and case.
        attention: weights over time (patches,) for the same stretch, drawn under it.
        title: above the picture.
        amplitude_free: each lead was divided by its own standard deviation; the picture says so.

    Raises:
        ValueError: if a lead of the layout is missing.
    """
    if missing := _missing_leads(lead_names):
        raise ValueError(f"The clinical layout needs leads {', '.join(missing)}, too.")
    rows = {name.lower(): index for index, name in enumerate(lead_names)}
    unit, mm_per_unit = ("standard deviations", MM_PER_DEVIATION) if amplitude_free else ("mV", MM_PER_MILLIVOLT)
    duration = min(CLINICAL_DURATION, signal.shape[1] / sampling_rate)
    signal = signal[:, : round(duration * sampling_rate)] * mm_per_unit
    # (name, samples, signal moved to its row), from the upper left to the rhythm strip at the bottom
    rows_below = len(CLINICAL_LAYOUT)
    strips = []
    for number, names in enumerate(CLINICAL_LAYOUT):
        baseline = (rows_below - number + 0.5) * _ROW_HEIGHT
        for name, part in zip(names, np.array_split(np.arange(signal.shape[1]), len(names)), strict=True):
            strips.append((name, baseline, part, signal[rows[name.lower()], part] + baseline))
    everything = np.arange(signal.shape[1])
    strips.append((_RHYTHM_LEAD, 0.5 * _ROW_HEIGHT, everything, signal[rows[_RHYTHM_LEAD.lower()]] + 0.5 * _ROW_HEIGHT))
    # Large complexes may reach into other rows, as on paper, but not over the edge of it.
    bottom = min(0.0, *(_CENTIMETRE * math.floor(values.min() / _CENTIMETRE) for *_, values in strips))
    top = max((rows_below + 1) * _ROW_HEIGHT, *(_CENTIMETRE * math.ceil(values.max() / _CENTIMETRE) for *_, values in strips))
    width, height = duration * MM_PER_SECOND / _MM_PER_INCH, (top - bottom) / _MM_PER_INCH
    ratios = [1.0] if attention is None else [1.0, 0.15]
    figure, axes = new_figure(
        width + 1.2, height * sum(ratios) + 1.0, nrows=len(ratios), sharex=True, height_ratios=ratios, squeeze=False
    )
    axis = axes[0, 0]
    _draw_paper(axis, duration, bottom, top)
    for name, baseline, part, values in strips:
        axis.plot(part / sampling_rate, values, color="black", linewidth=0.7, linestyle="-")
        axis.text(part[0] / sampling_rate + 0.04, baseline + 0.38 * _ROW_HEIGHT, name, fontsize=9, fontweight="bold")
    axis.set_title(title)
    axis.set_ylabel(f"amplitude ({unit}), rows {_ROW_HEIGHT / mm_per_unit:g} apart")
    if attention is not None:
        edges = np.linspace(0, duration, len(attention) + 1)
        axes[1, 0].stairs(attention, edges, fill=True, color=COLORS[0])
        axes[1, 0].set_ylabel("attention\n(share)")
    axes[-1, 0].set_xlabel(f"time (s), {MM_PER_SECOND:g} mm/s and {mm_per_unit:g} mm/{'SD' if amplitude_free else 'mV'}")
    return figure


def has_clinical_leads(lead_names: Sequence[str]) -> bool:
    """Whether [`plot_ecg`] can draw records with these leads."""
    return not _missing_leads(lead_names)


def _missing_leads(lead_names: Sequence[str]) -> list[str]:
    present = {name.lower() for name in lead_names}
    return [name for row in CLINICAL_LAYOUT for name in row if name.lower() not in present]


def _draw_paper(axis: Axes, duration: float, bottom: float, top: float) -> None:
    axis.set(xlim=(0, duration), ylim=(bottom, top), aspect=1 / MM_PER_SECOND)
    # Plain lines: hundreds of ticks, one per millimetre, take seconds to draw.
    for millimetres, color, linewidth in ((1, "#F4D5D5", 0.3), (5, "#E3A5A5", 0.6)):
        times = np.arange(0, duration + 1e-9, millimetres / MM_PER_SECOND)
        heights = np.arange(bottom, top + 1e-9, millimetres)
        axis.vlines(times, bottom, top, color=color, linewidth=linewidth, zorder=0.5)
        axis.hlines(heights, 0, duration, color=color, linewidth=linewidth, zorder=0.5)
    axis.xaxis.set_major_locator(MultipleLocator(1.0))
    axis.tick_params(length=0, labelleft=False)


def _most_frequent(labels: np.ndarray, scorable: list[int]) -> list[int]:
    return sorted(scorable, key=lambda column: -labels[:, column].sum())[:_MAX_CURVES]


def plot_roc(labels: np.ndarray, scores: np.ndarray, class_names: list[str]) -> Figure:
    """ROC curve of every class that can be scored; the most frequent ones in colour, with their AUROC."""
    result = auroc(labels, scores, class_names)
    figure, axis = new_figure(7.5, 5.5)
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    _draw_curves(axis, labels, class_names, result.per_class, lambda c: roc_curve(labels[:, c], scores[:, c])[:2])
    axis.set(xlabel="1 - specificity (share of negatives)", ylabel="sensitivity (share of positives)")
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=f"ROC, macro AUROC {result.macro:.3f}")
    figure.legend(fontsize=8, title="class: AUROC", loc="outside right upper")
    return figure


def plot_precision_recall(labels: np.ndarray, scores: np.ndarray, class_names: list[str]) -> Figure:
    """Precision over recall of every class that can be scored; the most frequent ones in colour."""
    result = average_precision(labels, scores, class_names)
    figure, axis = new_figure(7.5, 5.5)

    def curve(column: int) -> tuple[np.ndarray, np.ndarray]:
        precision, recall, _ = precision_recall_curve(labels[:, column], scores[:, column])
        return recall, precision

    _draw_curves(axis, labels, class_names, result.per_class, curve)
    axis.set(xlabel="recall (share of positives)", ylabel="precision (share of predictions)")
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axis.set_title(f"Precision and recall, macro average precision {result.macro:.3f}")
    figure.legend(fontsize=8, title="class: average\nprecision", loc="outside right upper")
    return figure


def _draw_curves(axis: Axes, labels: np.ndarray, class_names: list[str], values: dict[str, float], curve: Any) -> None:
    scorable = [column for column, name in enumerate(class_names) if name in values]
    chosen = _most_frequent(labels, scorable)
    for column in scorable:
        if column not in chosen:
            axis.plot(*curve(column), color="0.8", linewidth=0.6, linestyle="-", zorder=1)
    for column in chosen:
        name = class_names[column]
        axis.plot(*curve(column), linewidth=1.6, label=in_legend(f"{name}: {values[name]:.3f}"))
    if len(chosen) < len(scorable):
        axis.plot([], [], color="0.8", linewidth=0.6, linestyle="-", label=f"{len(scorable) - len(chosen)} more classes")


def plot_calibration(labels: np.ndarray, probabilities: np.ndarray, class_names: list[str], num_bins: int = 10) -> Figure:
    """Observed share of positives over predicted probability, in bins of equally many records; the most frequent classes."""
    figure, axis = new_figure(7.5, 5.5)
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="perfect")
    scorable = [column for column in range(labels.shape[1]) if 0 < labels[:, column].sum() < len(labels)]
    for column in _most_frequent(labels, scorable):
        observed, predicted = calibration_curve(labels[:, column], probabilities[:, column], n_bins=num_bins, strategy="quantile")
        axis.plot(predicted, observed, marker="o", markersize=3, linewidth=1.4, label=in_legend(class_names[column]))
    axis.set(xlabel="predicted probability", ylabel="observed share of positives", title="Calibration")
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def plot_label_fractions(table: pd.DataFrame) -> Figure:
    """
    Macro AUROC over the share of the training labels, a line per encoder and protocol, bars for one standard deviation.

    Args:
        table: of [`tables.gather`], for one task.
    """
    figure, axis = new_figure(6.5, 4.5)
    for (model, protocol), rows in table.groupby(["model", "protocol"], sort=False):
        rows = rows.sort_values("label_fraction")
        errors = rows["auroc_std"].fillna(0.0)
        axis.errorbar(
            rows["label_fraction"], rows["auroc"], yerr=errors, marker="o", capsize=3, label=in_legend(f"{model}, {protocol}")
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axis.set_xticks(sorted(table["label_fraction"].unique()))
    axis.minorticks_off()
    axis.set(xlabel="training labels (% of all)", ylabel="macro AUROC on test records", title=", ".join(table["task"].unique()))
    axis.grid(color="0.9")
    axis.legend(fontsize=8)
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
    figure, axis = new_figure(7.5, 4.5)
    for number, (label, rows) in enumerate(logs.groupby("label", sort=False)):
        color = COLORS[number % len(COLORS)]
        if rows[column].max() == 0:
            axis.axhline(rows["eval_probe_auroc"].mean(), color=color, linestyle="--", label=in_legend(str(label)))
            continue
        for _, run in rows.groupby("seed"):
            axis.plot(run[column], run["eval_probe_auroc"], color=color, linewidth=0.5, alpha=0.5, linestyle="-")
        mean = rows.groupby(column)["eval_probe_auroc"].mean()
        axis.plot(mean.index, mean, color=color, linewidth=1.8, linestyle="-", label=in_legend(str(label)))
    axis.set(xlabel="TFLOP of training" if column == "TFLOP" else "optimiser steps", ylabel="macro AUROC of the linear probe")
    axis.set_title(f"{task} on validation records")
    axis.grid(color="0.9")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure

"""Pictures of a pre-training run. Each function returns a figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._utils.plot_style import COLORS, new_figure

# Of leads below each other, in standard deviations: from one baseline to the next at least, what stays clear between two leads
# that need more, and how many make an inch.
_ROW_HEIGHT, _CLEAR, _PER_INCH = 6.0, 0.5, 11.0
_LEAST_INCHES, _MOST_INCHES = 7.0, 20.0

# Columns of `metrics.jsonl`, and what they are called.
PANELS = {
    "loss": "loss",
    "target_std": "standard deviation\nof tokens",
    "content_std": "deviation over records\nat the same position",
    "embedding_std": "standard deviation\nof embeddings",
    "position_share": "share of variance\nthat is position",
    "target_effective_rank": "effective rank of tokens\n(dimensions)",
    "content_effective_rank": "effective rank over records\nat the same position",
    "probe_auroc": "AUROC of the linear probe",
    "learning_rate": "learning rate",
}


def plot_pretraining(log: pd.DataFrame) -> Figure:
    """
    The course of a pre-training run.

    Args:
        log: `metrics.jsonl` as a table: `loss`, `learning_rate` and what `collapse_measures` returns over `step`; where held-out
            records were evaluated, the same with `eval_` before them, and `eval_probe_auroc` if there was a probe.
    """
    panels = {column: label for column, label in PANELS.items() if {column, f"eval_{column}"} & set(log.columns)}
    rows = -(-len(panels) // 3)
    figure, axes = new_figure(11, 2.6 * rows, nrows=rows, ncols=3, sharex=True, squeeze=False)
    for axis in axes.ravel()[len(panels) :]:
        axis.set_axis_off()
    for axis, (column, label) in zip(axes.ravel(), panels.items(), strict=False):
        for (name, source), color in zip({"training": column, "held out": f"eval_{column}"}.items(), COLORS, strict=False):
            if source in log:
                points = log[["step", source]].dropna().to_numpy()
                axis.plot(*points.T, label=name, color=color)
        axis.set_ylabel(label)
        if column != "probe_auroc":
            # From 0 on, or a collapse would look like noise.
            highest = max(line.get_ydata().max() for line in axis.get_lines())
            highest = 1.0 if column == "position_share" else highest or 1.0
            axis.set_ylim(-0.02 * highest, 1.1 * highest)  # a line on the axis would not be seen
        axis.grid(color="0.9")
        axis.tick_params(labelbottom=True)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, loc="outside upper right", ncols=2)
    for axis in axes.ravel()[max(0, len(panels) - 3) : len(panels)]:
        axis.set_xlabel("optimiser steps")
    return figure


def plot_masked_prediction(
    signal: np.ndarray, sampling_rate: float, lead_name: str, errors: np.ndarray, title: str = "", unit: str = "mV"
) -> Figure:
    """
    The masks of a batch, and how well hidden patches of its first record are predicted.

    Args:
        signal: a lead of the first record, (samples,).
        sampling_rate: in Hz.
        lead_name: of the lead.
        errors: mean absolute error of the predicted latents, (records, patches), NaN where a patch is visible.
        title: above the picture.
        unit: of the signal.
    """
    duration = len(signal) / sampling_rate
    edges = np.linspace(0, duration, errors.shape[1] + 1)
    figure, axes = new_figure(10, 7, nrows=3, sharex=True, height_ratios=[1.2, 0.8, 1.4])
    hidden = ~np.isnan(errors[0])
    axes[0].plot(np.arange(len(signal)) / sampling_rate, signal, color="black", linewidth=0.7, linestyle="-")
    shade = axes[0].get_xaxis_transform()  # whole height of the axis
    ends = np.repeat(edges, 2)[1:-1]  # of each patch
    axes[0].fill_between(ends, 0, 1, where=np.repeat(hidden, 2), color=COLORS[0], alpha=0.2, linewidth=0, transform=shade)
    axes[0].set_ylabel(f"lead {lead_name} ({unit})")
    axes[0].set_title(title)
    axes[1].stairs(np.where(hidden, errors[0], 0.0), edges, fill=True, color=COLORS[0])
    axes[1].set_ylabel("prediction error\n(latent units)")
    image = axes[2].imshow(
        errors, aspect="auto", extent=(0, duration, len(errors) + 0.5, 0.5), interpolation="nearest", cmap="cividis"
    )
    axes[2].set_facecolor("white")
    axes[2].set_ylabel("record of the batch\n(white: visible)")
    axes[2].set_xlabel("time (s); shaded: hidden from the context encoder")
    figure.colorbar(image, ax=axes[2], label="prediction error", location="right")
    return figure


def plot_reconstruction(
    signal: np.ndarray, reconstruction: np.ndarray, sampling_rate: float, lead_names: Sequence[str]
) -> Figure:
    """
    A record, and what was made of its hidden patches.

    Args:
        signal: normalised, (leads, samples).
        reconstruction: the same shape, NaN where the record was visible.
        sampling_rate: in Hz.
        lead_names: of the rows.
    """
    edges = _edges(signal, reconstruction)
    figure, axis = new_figure(10, _inches(edges))
    _draw_strips(axis, signal, sampling_rate, lead_names, edges, color="0.6", label="record")
    _draw_strips(
        axis, reconstruction, sampling_rate, lead_names, edges, color=COLORS[1], label="reconstruction of hidden patches"
    )
    seconds = np.arange(signal.shape[1]) / sampling_rate
    hidden = ~np.isnan(reconstruction[0])
    axis.fill_between(seconds, 0, 1, where=hidden, color=COLORS[0], alpha=0.1, linewidth=0, transform=axis.get_xaxis_transform())
    axis.set_xlabel("time (s); shaded: hidden")
    figure.legend(fontsize=8, loc="outside upper right", ncols=2)
    return figure


def plot_views(
    records: np.ndarray, first: np.ndarray, second: np.ndarray, sampling_rate: float, lead_names: Sequence[str]
) -> Figure:
    """
    Records beside their two views.

    Args:
        records: normalised, (records, leads, samples).
        first, second: their views, (records, leads, samples of a view).
        sampling_rate: in Hz.
        lead_names: of the rows.
    """
    columns = {"record": records, "first view": first, "second view": second}
    ratios = [part.shape[2] for part in columns.values()]
    edges = [_edges(*of_record) for of_record in zip(*columns.values(), strict=True)]
    heights = [_inches(of_record) for of_record in edges]
    layout = {"nrows": len(records), "ncols": 3, "width_ratios": ratios, "height_ratios": heights}
    figure, axes = new_figure(13, sum(heights), squeeze=False, **layout)
    for row, of_record, edge in zip(axes, zip(*columns.values(), strict=True), edges, strict=True):
        for axis, name, signal in zip(row, columns, of_record, strict=True):
            _draw_strips(axis, signal, sampling_rate, lead_names, edge)
            axis.set_title(name)
    return figure


def _edges(*signals: np.ndarray) -> np.ndarray:
    """
    Where the leads of signals (leads, samples) that share an axis lie, so that none reaches another: the upper edge of the
    picture, the baselines from top to bottom, and the lower edge, (leads + 2,). NaN are gaps.
    """
    everything = np.concatenate(signals, axis=1)
    above, below = (np.where(np.isfinite(s), s, 0.0).max(axis=1, initial=0.0) for s in (everything, -everything))
    gaps = np.maximum(_ROW_HEIGHT, below[:-1] + above[1:] + _CLEAR)
    baselines = -np.concatenate([[0.0], np.cumsum(gaps)])
    room = 0.8 * _ROW_HEIGHT
    return np.concatenate([[max(room, above[0] + _CLEAR)], baselines, [baselines[-1] - max(room, below[-1] + _CLEAR)]])


def _inches(edges: np.ndarray) -> float:
    """The height of a picture with these edges: what leads need, within reason."""
    return float(np.clip((edges[0] - edges[-1]) / _PER_INCH, _LEAST_INCHES, _MOST_INCHES))


def _draw_strips(
    axis: Axes, signal: np.ndarray, sampling_rate: float, lead_names: Sequence[str], edges: np.ndarray, **style: Any
) -> None:
    """Leads below each other, at the `edges` of [`_edges`]."""
    seconds = np.arange(signal.shape[1]) / sampling_rate
    baselines = edges[1:-1]
    lines = axis.plot(seconds, (signal + baselines[:, None]).T, **{"color": "black", "linewidth": 0.7, "linestyle": "-", **style})
    for line in lines[1:]:
        line.set_label(None)
    axis.set_yticks(baselines, lead_names)
    axis.set_ylim(edges[-1], edges[0])
    axis.set_xlim(0, signal.shape[1] / sampling_rate)
    axis.set_ylabel("lead (bar on the right: 5 standard deviations)")
    middle, beside = (edges[0] + edges[-1]) / 2, axis.get_yaxis_transform()
    axis.vlines(1.008, middle - 2.5, middle + 2.5, color=COLORS[0], linewidth=2.5, transform=beside, clip_on=False)
    axis.set_xlabel("time (s)")
    axis.grid(axis="x", color="0.9")

"""Plots of a pre-training run. Each function returns a figure."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._utils.plot_style import COLORS, new_figure

# Columns of `metrics.jsonl`, and their labels.
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
    """Plot `metrics.jsonl`, as a table, over its `step`: columns of training, and of held-out records (`eval_...`)."""
    panels = {column: label for column, label in PANELS.items() if {column, f"eval_{column}"} & set(log.columns)}
    rows = -(-len(panels) // 3)
    figure, axes = new_figure(11, 2.6 * rows, nrows=rows, ncols=3, sharex=True, squeeze=False)
    for axis, column in zip_longest(axes.ravel(), panels):
        if column is None:
            axis.set_axis_off()
            continue
        for name, source, color in (("training", column, COLORS[0]), ("held out", f"eval_{column}", COLORS[1])):
            if source in log:
                axis.plot(*log[["step", source]].dropna().to_numpy().T, label=name, color=color)
        axis.set_ylabel(panels[column])
        if column != "probe_auroc":
            # From 0 on: with another axis, a collapse looks like noise.
            highest = 1.0 if column == "position_share" else max(line.get_ydata().max() for line in axis.get_lines()) or 1.0
            axis.set_ylim(-0.02 * highest, 1.1 * highest)  # a line on the axis is invisible
        axis.grid(color="0.9")
        axis.tick_params(labelbottom=True)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside upper right", ncols=2)
    for axis in axes.ravel()[max(0, len(panels) - 3) : len(panels)]:
        axis.set_xlabel("optimiser steps")
    return figure


def plot_masked_prediction(signal: np.ndarray, sampling_rate: float, errors: np.ndarray, title: str, label: str) -> Figure:
    """Plot a lead (samples,) of the first record, its masks, and errors of latents (records, patches), NaN where visible."""
    duration = len(signal) / sampling_rate
    edges = np.linspace(0, duration, errors.shape[1] + 1)
    figure, axes = new_figure(10, 7, nrows=3, sharex=True, height_ratios=[1.2, 0.8, 1.4])
    hidden = ~np.isnan(errors[0])
    axes[0].plot(np.arange(len(signal)) / sampling_rate, signal, color="black", linewidth=0.7, linestyle="-")
    _shade(axes[0], np.repeat(edges, 2)[1:-1], np.repeat(hidden, 2), alpha=0.2)
    axes[0].set(title=title, ylabel=label)
    axes[1].stairs(np.where(hidden, errors[0], 0.0), edges, fill=True, color=COLORS[0])
    axes[1].set_ylabel("prediction error\n(latent units)")
    extent = (0, duration, len(errors) + 0.5, 0.5)
    image = axes[2].imshow(errors, aspect="auto", extent=extent, interpolation="nearest", cmap="cividis")
    axes[2].set(facecolor="white", ylabel="record of the batch\n(white: visible)")
    axes[2].set_xlabel("time (s); shaded: hidden from the context encoder")
    figure.colorbar(image, ax=axes[2], label="prediction error", location="right")
    return figure


def plot_reconstruction(signal: np.ndarray, made: np.ndarray, sampling_rate: float, lead_names: Sequence[str]) -> Figure:
    """Plot a normalised record (leads, samples) and the reconstruction of its hidden patches, NaN where it was visible."""
    baselines = _baselines(signal, made)
    figure, axis = new_figure(10, 8)
    _plot_leads(axis, signal, sampling_rate, lead_names, baselines, color="0.6", label="record")
    _plot_leads(axis, made, sampling_rate, lead_names, baselines, color=COLORS[1], label="reconstruction of hidden patches")
    _shade(axis, np.arange(signal.shape[1]) / sampling_rate, ~np.isnan(made[0]), alpha=0.1)
    axis.set_xlabel("time (s); shaded: hidden")
    figure.legend(fontsize=8, loc="outside upper right", ncols=2)
    return figure


def plot_views(records: np.ndarray, first: np.ndarray, second: np.ndarray, sampling_rate: float, lead_names: list[str]) -> Figure:
    """Plot normalised records (records, leads, samples) beside their two views, whose length may be another."""
    ratios = [part.shape[2] for part in (records, first, second)]
    figure, axes = new_figure(13, 8 * len(records), nrows=len(records), ncols=3, squeeze=False, width_ratios=ratios)
    for row, *signals in zip(axes, records, first, second, strict=True):
        for axis, title, signal in zip(row, ("record", "first view", "second view"), signals, strict=True):
            _plot_leads(axis, signal, sampling_rate, lead_names, _baselines(*signals))
            axis.set_title(title)
    return figure


def _shade(axis: Axes, seconds: np.ndarray, where: np.ndarray, alpha: float) -> None:
    transform = axis.get_xaxis_transform()
    axis.fill_between(seconds, 0, 1, where=where, color=COLORS[0], alpha=alpha, linewidth=0, transform=transform)


def _baselines(*signals: np.ndarray) -> np.ndarray:
    """Return baselines, from top to bottom, at which no lead of signals (leads, samples) on one axis reaches another."""
    everything = np.concatenate(signals, axis=1)
    above, below = np.nanmax(everything, axis=1), -np.nanmin(everything, axis=1)
    # At least 6 standard deviations from one to the next, and half a one between leads that need more.
    return -np.concatenate([[0.0], np.cumsum(np.maximum(6.0, below[:-1] + above[1:] + 0.5))])


def _plot_leads(
    axis: Axes, signal: np.ndarray, sampling_rate: float, lead_names: Sequence[str], baselines: np.ndarray, **style: Any
) -> None:
    """Plot leads below each other, at their baselines."""
    seconds = np.arange(signal.shape[1]) / sampling_rate
    lines = axis.plot(seconds, (signal + baselines[:, None]).T, **{"color": "black", "linewidth": 0.7, "linestyle": "-", **style})
    for line in lines[1:]:
        line.set_label(None)
    axis.set_yticks(baselines, lead_names)
    axis.set(xlim=(0, signal.shape[1] / sampling_rate), xlabel="time (s)")
    axis.set_ylabel("lead (bar on the right: 5 standard deviations)")
    middle, beside = baselines.mean(), axis.get_yaxis_transform()
    axis.vlines(1.008, middle - 2.5, middle + 2.5, color=COLORS[0], linewidth=2.5, transform=beside, clip_on=False)
    axis.grid(axis="x", color="0.9")

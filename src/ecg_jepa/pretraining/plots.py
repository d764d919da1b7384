"""Pictures of a pre-training run. Each function returns a figure."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..common.figures import COLORS, new_figure


def plot_pretraining(log: pd.DataFrame) -> Figure:
    """
    The course of a pre-training run.

    Args:
        log: `metrics.jsonl` as a table, with `step`, `loss`, `target_std`, `target_effective_rank` and `learning_rate`; where
            held-out records were evaluated, the first three with `eval_` before them.
    """
    panels = {
        "loss": "loss",
        "target_std": "standard deviation of latents",
        "target_effective_rank": "effective rank of latents (dimensions)",
        "learning_rate": "learning rate",
    }
    figure, axes = new_figure(9, 6, nrows=2, ncols=2, sharex=True)
    for axis, (column, label) in zip(axes.ravel(), panels.items(), strict=True):
        curves = {"training": column, "held out": f"eval_{column}"}
        shown = {name: log[["step", c]].dropna().to_numpy() for name, c in curves.items() if c in log}
        for name, points in shown.items():
            axis.plot(*points.T, label=name)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.1 * max(points[:, 1].max() for points in shown.values()))
        if len(shown) > 1:
            axis.legend(fontsize=8)
        axis.grid(color="0.9")
    for axis in axes[-1]:
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

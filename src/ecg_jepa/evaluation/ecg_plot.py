"""Plot of a record on ECG paper, true to scale, and where in it an attentive classifier looks."""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from .._utils.plot_style import COLORS, new_figure
from ..model.modeling_ecg_jepa import EcgJepaForSequenceClassification

MM_PER_SECOND, MM_PER_MILLIVOLT = 25.0, 10.0  # of the usual paper, which has lines every 1 and 5 mm
MM_PER_DEVIATION = 2.5  # QRS complexes of amplitude-free records, of 5 to 10 standard deviations, are as high as usual ones
_MM_PER_INCH, _SQUARE = 25.4, 5.0
CLINICAL_LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_ROWS = (*CLINICAL_LAYOUT, ("II",))  # with the rhythm strip
CLINICAL_DURATION = 10.0  # s

_ROW_HEIGHT = 30.0  # mm between baselines, if complexes are not so large that they would reach into other rows
_CLEAR = 2.0  # mm at least between curves of neighbouring rows
_NAME_HEIGHT, _NAME_SIZE = 11.4, 4.0  # mm: lower edge of a lead's name above the baseline, and its height
_NAME_WIDTH = 0.4  # s
_MARK_HEIGHT, _MARK_DURATION, _MARK_ROOM = 10.0, 0.2, 0.6  # mm and s: calibration mark, and the space in front of the leads
_LARGEST_PAPER = 5000.0  # mm; artefacts of +-32 mV in all rows, the largest that are prepared, need half of it

# Around the paper, in inches.
_LEFT, _RIGHT, _BELOW, _LINE = 0.5, 0.25, 0.55, 0.2
_ATTENTION, _GAP, _LEFT_OF_NUMBERS = 0.7, 0.12, 0.95
_NARROWEST = 5.0  # or a title has no place
_LETTERS_PER_INCH = 13  # of a title


class _Strip(NamedTuple):
    """A lead's stretch in a row: its name and how high that stands, when it begins in s, and its curve in mm."""

    name: str
    name_height: float
    start: float
    curve: np.ndarray


def plot_ecg(
    signal: np.ndarray,
    sampling_rate: float,
    lead_names: Sequence[str],
    attention: np.ndarray | None = None,
    title: str = "",
    amplitude_free: bool = False,
) -> Figure:
    """
    Plot a record in the clinical layout: three rows of four leads, one after the other in time, and a rhythm strip of lead II.
    Rows are as far apart as their complexes need; printed in its own size, a second is 25 mm and a millivolt 10 mm.

    Args:
        signal: (leads, samples) in mV, or in standard deviations if `amplitude_free`; the first 10 s are plotted.
        lead_names: of the rows, in any order and case.
        attention: weights over time (patches,) for the same stretch, plotted under it.

    Raises `ValueError` if a lead of the layout is missing, or amplitudes are so large that it would take meters of paper.
    """
    if missing := missing_leads(lead_names):
        raise ValueError(f"The clinical layout needs leads {', '.join(missing)}, too.")
    unit, short = ("standard deviations", "SD") if amplitude_free else ("mV", "mV")
    mm_per_unit = MM_PER_DEVIATION if amplitude_free else MM_PER_MILLIVOLT
    duration = min(CLINICAL_DURATION, signal.shape[1] / sampling_rate)
    rows = _rows(signal[:, : round(duration * sampling_rate)] * mm_per_unit, sampling_rate, lead_names)
    baselines, height = _space(rows)
    if height > _LARGEST_PAPER:
        largest = np.nanmax(np.abs(signal[np.isfinite(signal)]))
        raise ValueError(f"Amplitudes reach {largest:g} {unit}: {height / 1000:.1f} m of paper. Is the signal in {unit}?")
    figure, axis, below = _layout_figure(duration, height, title, attention is not None)
    for baseline, strips in zip(baselines, rows, strict=True):
        for strip in strips:
            seconds = strip.start + np.arange(len(strip.curve)) / sampling_rate
            axis.plot(seconds, strip.curve + baseline, color="black", linewidth=0.7, linestyle="-")
            axis.text(strip.start + 0.04, baseline + strip.name_height, strip.name, fontsize=9, fontweight="bold")
    begin, end = (-0.5 * _MARK_ROOM + sign * _MARK_DURATION / 2 for sign in (-1, 1))
    for baseline in baselines:
        mark = baseline + _MARK_HEIGHT * np.array([0, 0, 1, 1, 0, 0])
        times = [begin - 0.1, begin, begin, end, end, end + 0.1]
        axis.plot(times, mark, color="black", linewidth=0.9, linestyle="-")
    size = f"{_MARK_HEIGHT / mm_per_unit:g} {short}\n{_MARK_DURATION:g} s"
    axis.text(-0.5 * _MARK_ROOM, baselines[-1] - 1.5, size, fontsize=7, ha="center", va="top")
    axis.set_ylabel(f"amplitude ({unit})")
    if below is not None and attention is not None:
        below.stairs(attention, np.linspace(0, duration, len(attention) + 1), fill=True, color=COLORS[0])
        below.set_ylabel("attention\n(share)")
    (below or axis).set_xlabel(f"time (s), {MM_PER_SECOND:g} mm/s and {mm_per_unit:g} mm/{short}")
    return figure


def missing_leads(lead_names: Sequence[str]) -> list[str]:
    """Return the leads that [`plot_ecg`] needs and that are not among these."""
    present = {name.lower() for name in lead_names}
    return [name for row in CLINICAL_LAYOUT for name in row if name.lower() not in present]


def _highest(values: np.ndarray) -> float:
    return max(0.0, float(np.max(values, initial=0.0, where=np.isfinite(values))))  # missing samples are gaps


def _rows(signal: np.ndarray, sampling_rate: float, lead_names: Sequence[str]) -> list[list[_Strip]]:
    """Return the rows of the layout from top to bottom, of a signal (leads, samples) in mm."""
    curves = {name.lower(): row for name, row in zip(lead_names, signal, strict=True)}

    def strip(name: str, part: np.ndarray) -> _Strip:
        curve = curves[name.lower()][part]
        under_name = curve[: max(1, round(_NAME_WIDTH * sampling_rate))]
        return _Strip(name, max(_NAME_HEIGHT, _highest(under_name) + 1.0), part[0] / sampling_rate, curve)

    samples = np.arange(signal.shape[1])
    parts = [zip(names, np.array_split(samples, len(names)), strict=True) for names in _ROWS]
    return [[strip(name, part) for name, part in row if len(part)] for row in parts]


def _space(rows: list[list[_Strip]]) -> tuple[list[float], float]:
    """Return the heights of the baselines, from top to bottom, and of the paper, in mm, so that no row reaches another."""
    above = [max(max(_highest(s.curve), s.name_height + _NAME_SIZE) for s in strips) + _CLEAR for strips in rows]
    below = [max(_highest(-s.curve) for s in strips) for strips in rows]
    needed = [max(_ROW_HEIGHT / 2, above[0])]  # from the upper edge of the paper to the lower one
    needed += [max(_ROW_HEIGHT, low + high) for low, high in zip(below, above[1:], strict=False)]
    needed += [max(_ROW_HEIGHT / 2, below[-1] + _CLEAR)]
    heights = np.cumsum([_SQUARE * math.ceil(millimetres / _SQUARE) for millimetres in reversed(needed)])
    return heights[-2::-1].tolist(), float(heights[-1])


def _layout_figure(duration: float, height: float, title: str, with_attention: bool) -> tuple[Figure, Axes, Axes | None]:
    """Return the figure, its paper, and the axis for attention under it; automatic layouts would change the scale."""
    paper = ((duration + _MARK_ROOM) * MM_PER_SECOND / _MM_PER_INCH, height / _MM_PER_INCH)
    before = _LEFT_OF_NUMBERS if with_attention else _LEFT
    width = max(_NARROWEST, before + paper[0] + _RIGHT)
    lines = textwrap.wrap(title, round(width * _LETTERS_PER_INCH))
    under = _BELOW + (_ATTENTION + _GAP if with_attention else 0.0)
    total = under + paper[1] + 0.15 + _LINE * len(lines)
    figure, axes = new_figure(width, total, nrows=2 if with_attention else 1, sharex=True, squeeze=False)
    figure.set_layout_engine("none")
    left = max(before, (width - paper[0]) / 2)
    axis, below = axes[0, 0], axes[1, 0] if with_attention else None
    axis.set_position((left / width, under / total, paper[0] / width, paper[1] / total))
    if below is not None:
        below.set_position((left / width, _BELOW / total, paper[0] / width, _ATTENTION / total))
    axis.set_title("\n".join(lines), fontsize=10, parse_math=False)
    axis.set(xlim=(-_MARK_ROOM, duration), ylim=(0, height), aspect=1 / MM_PER_SECOND)
    # Plain lines, because hundreds of ticks, one per millimetre, take seconds.
    for millimetres, color, linewidth in ((1, "#F4D5D5", 0.3), (5, "#E3A5A5", 0.6)):
        times = np.arange(-_MARK_ROOM, duration + 1e-9, millimetres / MM_PER_SECOND)
        axis.vlines(times, 0, height, color=color, linewidth=linewidth, zorder=0.5)
        axis.hlines(np.arange(0, height + 1e-9, millimetres), -_MARK_ROOM, duration, color=color, linewidth=linewidth, zorder=0.5)
    axis.xaxis.set_major_locator(MultipleLocator(1.0))
    axis.tick_params(length=0, labelleft=False, labelbottom=below is None)
    return figure, axis, below


@torch.no_grad()
def attention_over_time(model: EcgJepaForSequenceClassification, crops: torch.Tensor, starts: Sequence[int]) -> np.ndarray:
    """
    Return the attention of the pooling query to each patch of a record, averaged over heads and over the crops of the patch:
    (patches,), shares that sum to 1, without what the query gives to registers.
    Takes crops (crops, leads, samples) of the normalised record and the first sample of each; raises `ValueError` unless
    `classifier_pooling="attentive"`.
    """
    if model.pooling is None:
        raise ValueError(f"classifier_pooling={model.config.classifier_pooling!r} has no query whose attention could be shown.")
    model.eval()
    hidden_states = model.mix_layers(model.encode(crops.to(model.device)))
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the others do not return weights
    try:
        _, weights = model.pooling(hidden_states)
    finally:
        model.set_attn_implementation(implementation)
    patch, length = model.config.patch_size, crops.shape[-1]
    per_patch = weights.float().mean(dim=1)[:, 0, -(length // patch) :].cpu().numpy()
    # Crops need not start at multiples of a patch: add up per sample, then average over the samples of each patch.
    sums, counts = np.zeros((2, starts[-1] + length))
    for start, row in zip(starts, per_patch, strict=True):
        sums[start : start + length] += np.repeat(row, patch)
        counts[start : start + length] += 1
    whole = len(sums) // patch * patch
    shares = (sums / counts)[:whole].reshape(-1, patch).mean(axis=1)
    return shares / shares.sum()

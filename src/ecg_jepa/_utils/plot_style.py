"""Style of all plots: colours of Okabe and Ito (2008), which colour-blind readers can tell apart; lines differ in style, too."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.text import Text

from .files import replacing

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # without the yellow, pale on white
_LINES = cycler(color=COLORS) + cycler(linestyle=("-", "--", "-.", ":", "-", "--", "-."))


def new_figure(width: float, height: float, **layout: Any) -> tuple[Figure, Any]:
    """Return a figure of `width` by `height` inches and its axes, laid out as `Figure.subplots` does."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(**layout)
    for axis in np.atleast_1d(axes).ravel():
        axis.set_prop_cycle(_LINES)
    return figure, axes


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG and make its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(as_png(figure))
    return path


def as_png(figure: Figure) -> bytes:
    """Return the content of a PNG file."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names of labels are not TeX
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def in_legend(name: str) -> str:
    """Return a name as the label of a curve: Matplotlib leaves out labels that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def shortened(name: str, letters: int) -> str:
    """Return a name in one line, and with an ellipsis if it is longer than `letters`."""
    name = " ".join(name.splitlines())
    return name if len(name) <= letters else name[: letters - 1] + "\N{HORIZONTAL ELLIPSIS}"

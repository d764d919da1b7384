"""
What all pictures share.

Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart; lines differ in style, too.
"""

from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.text import Text

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # without the yellow, pale on white
_LINE_STYLES = ("-", "--", "-.", ":")


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_png(figure))
    return path


def as_png(figure: Figure) -> bytes:
    """The content of a PNG file."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names of labels are not TeX
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def new_figure(width: float, height: float, **layout: Any) -> tuple[Figure, Any]:
    """A figure of `width` by `height` inches and its axes, laid out as `Figure.subplots` does."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(**layout)
    styles = list(islice(cycle(_LINE_STYLES), len(COLORS)))
    for axis in np.atleast_1d(axes).ravel():
        axis.set_prop_cycle(cycler(color=COLORS) + cycler(linestyle=styles))
    return figure, axes


def in_legend(name: str) -> str:
    """A name as the label of a curve: Matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def shortened(name: str, letters: int) -> str:
    """A name that leaves room for the picture: what is longer is cut and ends in an ellipsis; line breaks are spaces."""
    name = " ".join(name.splitlines())
    return name if len(name) <= letters else name[: letters - 1] + "\N{HORIZONTAL ELLIPSIS}"

"""HTML of the page. markupsafe escapes the text of files and checkpoints wherever it is formatted in."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ..formats.ecg import Ecg

NO_DEVICE = "Not a medical device: for research, not for decisions about patients."

_DECLARATIONS = {"sampling_rate": "the sampling rate", "unit": "the unit", "lead_names": "the leads"}

CSS = """
.ecg-scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
.ecg-scroll img { min-width: 800px; width: 100%; max-width: none; background: white; }
.ecg-refusal { border-left: 4px solid #D55E00; padding: 0.5em 1em; overflow-wrap: anywhere; }
.ecg-note { border-left: 4px solid #0072B2; padding: 0.5em 1em; overflow-wrap: anywhere; }
table.ecg-labels { width: 100%; border-collapse: collapse; }
table.ecg-labels td, table.ecg-labels th { padding: 0.25em 0.5em; text-align: left; }
table.ecg-labels .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
table.ecg-labels .bar { width: 40%; min-width: 4em; }
table.ecg-labels .bar div { height: 0.8em; background: #0072B2; }
table.ecg-labels tr.decided td { font-weight: bold; }
table.ecg-labels tr.decided .bar div { background: #D55E00; }
"""


def refusal(error: object) -> Markup:
    """Return why a record was refused."""
    return Markup('<div class="ecg-refusal" role="alert"><b>This record was refused.</b> {}</div>').format(str(error))


def note(name: str, ecg: Ecg, missing: Sequence[str]) -> Markup:
    """Return leads, rate, unit and length of a record, and what is missing."""
    (num_leads, samples), rate = ecg.signal.shape, ecg.sampling_rate
    known = [
        f"{num_leads} leads" + (f" ({', '.join(ecg.lead_names)})" if ecg.lead_names else " without names"),
        f"{rate:g} Hz" if rate else "no sampling rate",
        "amplitudes in mV" if ecg.unit else "no unit",
        f"{samples / rate:.4g} s" if rate else f"{samples:,} samples",
    ]
    text = Markup("<b>{}</b>: {}.").format(name, ", ".join(known))
    if missing:
        asked = " and ".join(_DECLARATIONS[name] for name in missing)
        text += Markup(" <b>The file does not say {}: fill in what is missing, and analyse.</b>").format(asked)
    return Markup('<div class="ecg-note">{}</div>').format(text)


def image(png: bytes, text: str) -> Markup:
    """Return an image, which is scrolled on narrow screens, and its alternative text."""
    data = base64.b64encode(png).decode()
    return Markup('<div class="ecg-scroll"><img alt="{}" src="data:image/png;base64,{}"></div>').format(text, data)


def table(labels: Sequence[dict[str, Any]], exclusive: bool, descriptions: Mapping[str, str] | None = None) -> Markup:
    """Return labels with descriptions, probabilities and, where the checkpoint has any, thresholds."""
    rows = Markup().join(_row(label, (descriptions or {}).get(label["label"], "")) for label in labels)
    kind = "Exactly one of these applies." if exclusive else "Any number of these may apply."
    if any(label.get("threshold") is not None for label in labels):
        decisions = "Bold: at or above the threshold, which was chosen on validation records."
    else:
        decisions = "This classifier brings no thresholds along: what counts as present is not decided."
    return Markup(
        '<table class="ecg-labels"><thead><tr><th>label</th><th class="bar" colspan="2">probability</th>'
        '<th class="number">threshold</th></tr></thead><tbody>{}</tbody></table><p>{} {} {}</p>'
    ).format(rows, kind, decisions, NO_DEVICE)


def _row(label: dict[str, Any], description: str) -> Markup:
    threshold = label.get("threshold")
    return Markup(
        '<tr class="{}"><td>{} <small>{}</small></td><td class="bar"><div style="width:{:.1f}%"></div></td>'
        '<td class="number">{:.3f}</td><td class="number">{}</td></tr>'
    ).format(
        "decided" if label.get("decision") else "",
        label["label"],
        description,
        100 * label["score"],
        label["score"],
        "" if threshold is None else f"{threshold:.3f}",
    )

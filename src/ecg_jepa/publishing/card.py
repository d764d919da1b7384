"""Model cards from the templates in `model_cards/`."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup

from .._utils.files import shipped

TAGS = ("ecg_jepa", "ecg", "electrocardiogram", "self-supervised", "biosignals")


@dataclass(frozen=True)
class CardResult:
    """A figure on a card: for people with its interval, and for the Hub's model index."""

    name: str
    metric_type: str  # as the Hub names it
    value: float
    interval: tuple[float, float] | None = None


def write_model_card(
    path: str | Path, template: str, model_name: str, eval_results: Sequence[EvalResult] = (), **values: Any
) -> None:
    """
    Render a template.

    Args:
        path: of the card, usually `README.md` of a model's directory.
        template: name of a file in `model_cards/`; it may include others.
        model_name: in the model index.
        eval_results: for the model index.
        values: for the template; one that it needs and that is missing is an error.
    """
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        tags=list(TAGS),
        model_name=model_name if eval_results else None,
        eval_results=list(eval_results) or None,
    )
    ModelCard(render(template, metadata=Markup(metadata.to_yaml()), **values)).save(path)


def render(template: str, **values: Any) -> str:
    """A template of `model_cards/`, in which text is escaped but for `Markup`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped("model_cards")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
        finalize=_escape,
    )
    environment.filters["cells"] = lambda names: Markup(" | ".join(map(_escape, names)))
    environment.filters["figure"] = _figure
    environment.globals["link"] = _link
    return environment.get_template(template).render(**values)


# Of Markdown as the Hub renders it: underscores within words and single colons are none.
_MARKUP = re.compile(r"[&<>|`\[\]\\*~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)


def _escape(value: Any) -> Any:
    """
    Text that a template puts onto a card, names of labels for example, as what it is and nothing else: it cannot end a row of a
    table or a code span, open a link or an HTML element, be set in italics or bold, or begin a line.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(value.split()))


def _link(name: str, page: str | None) -> Markup:
    """A name that leads to its page, if that is one of the web."""
    if page is None or not re.fullmatch(r"https?://[^\s()<>|]+", page):
        return Markup(_escape(name))
    return Markup(f"[{_escape(name)}]({page})")


def _figure(entry: Mapping[str, Any]) -> str:
    """A `value` and its `interval`, of `metrics.json`, as a cell of a table."""
    if entry["value"] is None:
        return "-"
    bounds = "" if entry["interval"] is None else " ({:.3f} to {:.3f})".format(*entry["interval"])
    return f"{entry['value']:.3f}{bounds}"


def classifier_results(metrics: dict[str, Any]) -> list[CardResult]:
    """The figures of a classifier's `metrics.json` that go on its card; what could not be measured is left out."""
    kinds = {
        "macro AUROC": ("roc_auc", "test_macro_auroc"),
        "macro average precision": ("average_precision", "test_macro_average_precision"),
        "macro F1": ("f1", "test_macro_f1"),
        "accuracy": ("accuracy", "test_accuracy"),
        "macro F1 of the likeliest class": ("f1", "test_exclusive_macro_f1"),
    }
    parts = [
        CardResult(f"macro AUROC of {name}", "roc_auc", part["macro_auroc"], _as_pair(part["interval"]))
        for name, part in metrics.get("test_parts", {}).items()
        if part["macro_auroc"] is not None
    ]
    return parts + [
        CardResult(name, metric_type, metrics[key], _as_pair(metrics.get(f"{key}_interval")))
        for name, (metric_type, key) in kinds.items()
        if metrics.get(key) is not None and math.isfinite(metrics[key])
    ]


def _as_pair(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return (bounds[0], bounds[1]) if bounds else None


def as_eval_results(results: Sequence[CardResult], task: str, database: str) -> list[EvalResult]:
    """Figures on the test records of a task, for the model index; intervals stand in the metric's name and arguments."""
    return [
        EvalResult(
            task_type="ecg-classification",
            task_name=f"ECG classification ({task})",
            dataset_type=database,
            dataset_name=database,
            dataset_config=task,
            dataset_split="test",
            metric_type=result.metric_type,
            metric_name=result.name + (" (95% interval {:.4f} to {:.4f})".format(*result.interval) if result.interval else ""),
            metric_value=result.value,
            metric_args={"confidence_level": 0.95, "interval": list(result.interval)} if result.interval else None,
        )
        for result in results
    ]

"""Model cards from the templates in `model_cards/`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markupsafe import Markup

from .._utils.files import shipped
from ..evaluation.bootstrap import as_text

_TAGS = ["ecg_jepa", "ecg", "electrocardiogram", "self-supervised", "biosignals"]

# Metrics of a classifier on its card: key in metrics.json, name, and name on the Hub.
_METRICS = (
    ("auroc", "macro AUROC", "roc_auc"),
    ("average_precision", "macro average precision", "average_precision"),
    ("f1", "macro F1", "f1"),
)
_EXCLUSIVE_METRICS = (
    ("test_accuracy", "accuracy", "accuracy"),
    ("test_exclusive_macro_f1", "macro F1 of the likeliest class", "f1"),
)

# Characters with a meaning in the Hub's Markdown; underscores within words and single colons have none.
_MARKUP = re.compile(r"[&<>|`\[\]\\*~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)


class CardResult(NamedTuple):
    """A metric on the test records; `metric_type` is the Hub's name for it."""

    name: str
    metric_type: str
    value: float
    interval: Sequence[float] | None = None


def write_model_card(
    path: str | Path, template: str, model_name: str, eval_results: Sequence[EvalResult] = (), **values: Any
) -> None:
    """Write a card from a template of `model_cards/`, to which no value may be missing; results are for the Hub's model index."""
    index: dict[str, Any] = {"model_name": model_name, "eval_results": list(eval_results)} if eval_results else {}
    metadata = ModelCardData(license="apache-2.0", library_name="transformers", tags=_TAGS, **index)
    ModelCard(render(template, metadata=Markup(metadata.to_yaml()), **values)).save(path)


def render(template: str, **values: Any) -> str:
    """Return a template of `model_cards/` with its values, which are escaped unless they are `Markup`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped("model_cards")), undefined=jinja2.StrictUndefined, finalize=_escape
    )
    environment.filters["cells"] = lambda names: Markup(" | ".join(map(_escape, names)))
    environment.filters["metric"] = as_text
    environment.globals["link"] = _link
    return environment.get_template(template).render(**values)


def _escape(value: Any) -> Any:
    """Escape text, such as names of labels, so that it cannot end a table row or code span, link, or begin a line."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(value.split()))


def _link(name: str, page: str | None) -> Markup:
    """Return a link, or the name alone if there is no web page."""
    is_page = page is not None and re.fullmatch(r"https?://[^\s()<>|]+", page)
    return Markup(f"[{_escape(name)}]({page})" if is_page else _escape(name))


def classifier_results(metrics: dict[str, Any]) -> list[CardResult]:
    """Return the metrics of a `metrics.json` that go on the card; those that could not be measured are left out."""
    macro, parts = metrics["test_metrics"]["macro"], metrics.get("test_parts", {})
    found = [
        *((f"macro AUROC of {name}", "roc_auc", part["macro_auroc"], part["interval"]) for name, part in parts.items()),
        *((name, kind, macro[key]["value"], macro[key]["interval"]) for key, name, kind in _METRICS),
        *((name, kind, metrics.get(key), metrics.get(f"{key}_interval")) for key, name, kind in _EXCLUSIVE_METRICS),
    ]
    return [CardResult(*result) for result in found if result[2] is not None]


def as_eval_results(results: Sequence[CardResult], task: str, database: str) -> list[EvalResult]:
    """Return metrics on the test records of a task for the model index, with intervals in their names and arguments."""
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

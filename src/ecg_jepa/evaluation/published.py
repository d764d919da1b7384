"""Results of the paper (Weimann & Conrad 2024, tables of PTB-XL): macro AUROC, mean of ten runs, and standard deviation."""

from typing import Any, NamedTuple


class PublishedResult(NamedTuple):
    """A figure of the paper; `std` is `None` where it gives none."""

    auroc: float
    std: float | None


# (size, corpus) -> (all fine-tuned, all "linear", ST-MEM fine-tuned, ST-MEM "linear"); the paper's linear is our attentive.
_COLUMNS = (("finetune", "all"), ("attentive", "all"), ("finetune", "ST-MEM"), ("attentive", "ST-MEM"))
_TABLE: dict[tuple[str, str], tuple[tuple[float, float | None], ...]] = {
    ("b", "all"): ((0.940, 0.001), (0.935, 0.001), (0.928, 0.003), (0.920, 0.002)),
    ("s", "all"): ((0.945, 0.001), (0.938, 0.002), (0.935, 0.002), (0.928, 0.003)),
    ("s", "mimic"): ((0.944, 0.001), (0.940, 0.002), (0.932, 0.002), (0.921, 0.003)),
    ("s", "ptb-xl"): ((0.930, 0.001), (0.926, 0.002), (0.929, 0.002), (0.917, 0.001)),
    ("xs", "all"): ((0.939, 0.000), (0.933, 0.002), (0.930, 0.001), (0.924, 0.002)),
    ("xs", "mimic"): ((0.943, 0.001), (0.933, 0.003), (0.928, 0.002), (0.920, 0.002)),
    ("xs", "ptb-xl"): ((0.940, 0.001), (0.931, 0.002), (0.928, 0.002), (0.919, 0.002)),
    ("b", "random"): ((0.837, None), (0.867, None)),
    ("s", "random"): ((0.883, None), (0.833, None)),
    ("xs", "random"): ((0.911, None), (0.815, None)),
}

ALL_DATABASES = 10

# Records of the tasks in PTB-XL 1.0.3; some may be rejected, but results on a part of it are not comparable.
_RECORDS = {"all": 21_799, "ST-MEM": 16_244}
_SHARE_NEEDED = 0.95


def corpus_of(encoder: dict[str, Any]) -> str | None:
    """The paper's name for what an encoder learned from (`encoder` of `metrics.json`); `None` if it has none."""
    databases = encoder["databases"]
    if encoder["path"].startswith("random:"):
        return "random"
    if len(databases) == ALL_DATABASES:
        return "all"
    return {"mimic-iv-ecg": "mimic", "ptb-xl": "ptb-xl"}.get(databases[0]) if len(databases) == 1 else None


def published_result(metrics: dict[str, Any]) -> PublishedResult | None:
    """
    The paper's figure for a run with this `metrics.json`, or `None`: it has some for the whole of PTB-XL, all labels, two tasks.

    Fine-tuning after a probe is set beside the paper's fine-tuning, too.
    """
    if metrics["database"] != "ptb-xl" or metrics["label_fraction"] != 1.0 or metrics["labels_per_class"] is not None:
        return None
    encoder = metrics["encoder"]
    row = _TABLE.get((encoder.get("size"), corpus_of(encoder) or ""))
    protocol = "finetune" if metrics["protocol"] == "finetune_after_probe" else metrics["protocol"]
    if row is None or (protocol, metrics["task"]) not in _COLUMNS[: len(row)]:
        return None
    if sum(metrics["records"].values()) < _SHARE_NEEDED * _RECORDS[metrics["task"]]:
        return None
    return PublishedResult(*row[_COLUMNS.index((protocol, metrics["task"]))])


def published_rows(size: str, corpus: str) -> list[dict[str, Any]]:
    """All figures of an encoder (of [`corpus_of`]), with `protocol` (ours), `task`, `auroc` and `std`."""
    figures = _TABLE[(size, corpus)]
    return [
        {"protocol": protocol, "task": task, "auroc": auroc, "std": std}
        for (protocol, task), (auroc, std) in zip(_COLUMNS, figures, strict=False)
    ]

"""Results of the paper (Weimann & Conrad 2024, tables of PTB-XL): macro AUROC, mean of ten runs, and standard deviation."""

from typing import Any

from .._utils.files import RANDOM_PREFIX
from ..data.record_statistics import PUBLISHED

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

# Shipped configuration -> size and corpus of the paper's run that it is.
_CONFIGURATIONS = {
    **{f"vit_{size}_all": (size, "all") for size in ("b", "s", "xs")},
    **{f"vit_{size}_mimic": (size, "mimic") for size in ("s", "xs")},
    **{f"vit_{size}_ptbxl": (size, "ptb-xl") for size in ("s", "xs")},
}

# Records of the tasks in PTB-XL 1.0.3; some may be rejected, but results on a part of it are not comparable.
_RECORDS = {"all": 21_799, "ST-MEM": 16_244}
_SHARE_NEEDED = 0.95


def paper_run(configuration: str | None) -> tuple[str, str] | None:
    """Return size and corpus of the paper's run that a shipped configuration is, or `None`."""
    return _CONFIGURATIONS.get(configuration or "")


def published_rows(size: str, corpus: str) -> list[dict[str, Any]]:
    """Return all results of an encoder (of [`paper_run`]): `protocol` (ours), `task`, `auroc` and `std`, `None` if not given."""
    results = zip(_COLUMNS, _TABLE.get((size, corpus), ()), strict=False)
    return [{"protocol": protocol, "task": task, "auroc": auroc, "std": std} for (protocol, task), (auroc, std) in results]


def published_result(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """
    Return the paper's result for a run with this `metrics.json`, one of [`published_rows`], or `None`.

    The paper has two tasks on the whole of PTB-XL with all labels. A run is compared only if encoder and classifier were trained
    by the shipped configurations, which are the paper's, on complete databases. Fine-tuning after a probe is compared with the
    paper's fine-tuning.
    """
    encoder, protocol, task = metrics["encoder"], metrics["protocol"], metrics["task"]
    whole_task = metrics["database"] == "ptb-xl" and metrics["label_fraction"] == 1.0 and metrics["labels_per_class"] is None
    records = sum(metrics["records"].values())
    if not whole_task or metrics["configuration"] != protocol or records < _SHARE_NEEDED * _RECORDS.get(task, 0):
        return None
    if encoder["path"].startswith(RANDOM_PREFIX):
        rows = published_rows(encoder["size"] or "", "random")
    else:
        run = paper_run(encoder["configuration"])
        complete = all(
            database["name"] in PUBLISHED and database["records"] >= _SHARE_NEEDED * PUBLISHED[database["name"]].records
            for database in encoder["databases"]
        )
        rows = published_rows(*run) if run is not None and encoder["size"] == run[0] and complete else []
    wanted = (protocol.removesuffix("_after_probe"), task)
    return next((row for row in rows if (row["protocol"], row["task"]) == wanted), None)

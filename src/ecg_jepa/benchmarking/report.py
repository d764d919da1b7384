"""From measurements to figures: medians with their range, shares, and ratios of each round; as plain values, and as a table."""

import statistics
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from .measuring import Measured, Measurements
from .step import PARTS

# What stands in the first column of a table, in its order.
_PART_NAMES = {
    "loader": "loader: read a batch",
    "masks": "masks",
    "inputs": "copy, normalise",
    "forward": "forward",
    "target_forward": "- target encoder",
    "context_forward": "- context encoder",
    "predictor_forward": "- predictor",
    "backward": "backward",
    "gradient_norm": "gradient norm",
    "optimizer": "optimiser",
    "ema": "moving average",
    "monitor": "monitor",
}
_MISSING = "-"


def summarise(measurements: Measurements) -> dict[str, Any]:
    """All of a configuration's measurements and what follows from them, as plain values."""
    peaks = {
        name: {"gflop_per_second": max(max(rates.values()) for rates in rounds), "rounds": rounds}
        for name, rounds in measurements.peaks.items()
    }
    first = measurements.variants[0]
    variants = []
    for measured in measurements.variants:
        summary = _summary(measured, peaks)
        summary["ratios"] = _ratios(first, measured)
        summary["ratio"] = _spread(summary["ratios"])
        variants.append(summary)
    return {"configuration": measurements.config, "order": measurements.order, "peaks": peaks, "variants": variants}


def _summary(measured: Measured, peaks: dict[str, Any]) -> dict[str, Any]:
    recipe = measured.recipe
    kind = "model_step" if measured.is_reference else "step"
    names = [name for name in ("step", "model_step", "log") if name in measured.turns[0]]
    seconds: dict[str, Any] = {name: [turn[name] for turn in measured.turns] for name in names}
    parts: dict[str, list[float]] = {}
    for name in PARTS if "parts" in measured.turns[0] else ():
        taken = [turn["parts"][name] for turn in measured.turns if name in turn["parts"]]
        if taken:
            parts[name] = taken
    per_step = _records(measured)
    rate = per_step / statistics.median(seconds[kind])
    # A step of the recipe has more records than one that is measured on a CPU.
    step_of_recipe = recipe.batch_size * recipe.gradient_accumulation_steps / rate
    peak = peaks[recipe.mixed_precision]["gflop_per_second"]
    cost = measured.facts["gflop_per_record"]
    loop = measured.loop
    return {
        "label": measured.label,
        "is_reference": measured.is_reference,
        "changes": measured.changes,
        "mixed_precision": recipe.mixed_precision,
        **measured.facts,
        "records_of_recipe": recipe.batch_size * recipe.gradient_accumulation_steps,
        "seconds": {**seconds, "parts": parts},
        "medians": {
            **{name: _spread(values) for name, values in seconds.items()},
            "parts": {name: _spread(values) for name, values in parts.items()},
        },
        "records_per_second": rate,
        "gflop_per_second": cost * rate,
        "share_of_peak": cost * rate / peak,
        "peak_memory_bytes": measured.memory,
        "loop": loop,
        "loader_stall": sum(loop["waits"]) / sum(loop["steps"]) if loop else None,
        "loop_records_per_second": per_step * len(loop["steps"]) / sum(loop["steps"]) if loop else None,
        "logging_share": _share(seconds.get("log"), recipe.logging_steps, step_of_recipe),
        "checkpoint": measured.checkpoint,
        "checkpoint_share": _share([measured.checkpoint["seconds"]], recipe.save_steps, step_of_recipe)
        if measured.checkpoint
        else None,
        "projected_hours": recipe.max_steps * step_of_recipe / 3600,
        "profile": measured.profile,
    }


def _share(seconds: list[float] | None, every: int, step: float) -> float | None:
    """Of the time of `every` steps of `step` seconds, what is done once in them takes so much more."""
    return statistics.median(seconds) / (every * step) if seconds else None


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}


def _ratios(first: Measured, other: Measured) -> list[float]:
    """How many times as fast as the first variant, per record, round by round; beside the reference, by steps of the model."""
    kind = "model_step" if other.is_reference else "step"
    per_record = [
        (ours[kind] / _records(first), theirs[kind] / _records(other))
        for ours, theirs in zip(first.turns, other.turns, strict=True)
    ]
    return [ours / theirs for ours, theirs in per_record]


def _records(measured: Measured) -> int:
    """Of a step that was measured."""
    return measured.facts["records_per_batch"] * measured.facts["batches_per_step"]


def as_table(summary: dict[str, Any]) -> str:
    """A configuration's figures for people: a row per part and figure, a column per variant."""
    variants = summary["variants"]
    rows = [[name, *(_milliseconds(v["medians"]["parts"].get(part)) for v in variants)] for part, name in _PART_NAMES.items()]
    for name, kind in (("whole step", "step"), ("step of the model alone", "model_step"), ("a log line", "log")):
        if any(kind in v["medians"] for v in variants):
            rows.append([name, *(_milliseconds(v["medians"].get(kind)) for v in variants)])
    rows += [
        ["records/s", *(_digits(v["records_per_second"]) for v in variants)],
        ["times as fast as the first", *(_times(v["ratio"]) for v in variants)],
        ["GFLOP a record", *(_digits(v["gflop_per_record"]) for v in variants)],
        ["share of the peak", *(_percent(v["share_of_peak"]) for v in variants)],
        ["peak memory", *(f"{v['peak_memory_bytes'] / 1e9:.2f} GB" for v in variants)],
        ["waits for the loader", *(_percent(v["loader_stall"]) for v in variants)],
        ["logging", *(_percent(v["logging_share"]) for v in variants)],
        ["checkpoints", *(_percent(v["checkpoint_share"]) for v in variants)],
        ["hours of the recipe", *(_digits(v["projected_hours"]) for v in variants)],
    ]
    names = {"no": "float32", "bf16": "bfloat16"}
    peaks = ", ".join(f"{names[name]} {peak['gflop_per_second']:.4g} GFLOP/s" for name, peak in summary["peaks"].items())
    ours = variants[0]
    measured = f"{ours['records_per_batch']} records x {ours['batches_per_step']} a step"
    lines = [
        f"{summary['configuration']}: {measured} (the recipe: {ours['records_of_recipe']}); matrix products at best: {peaks}",
        "",
        tabulate(rows, headers=["ms: median (range)", *(v["label"] for v in variants)], tablefmt="github", disable_numparse=True),
    ]
    reasons = {
        f"{_PART_NAMES[part].removeprefix('- ')}: {why}": None for v in variants for part, why in v["not_measured"].items()
    }
    lines += ["", *(f"not measured: {reason}" for reason in reasons)] if reasons else []
    for variant in variants:
        if variant["profile"]:
            top = [
                [row["name"], row["calls"], _digits(1e3 * row["seconds"]), f"{row['share']:.1%}"] for row in variant["profile"]
            ]
            table = tabulate(
                top, headers=["operation", "calls", "ms of its own", "share"], tablefmt="github", disable_numparse=True
            )
            lines += ["", f"{variant['label']}: most time is spent in", "", table]
    return "\n".join(lines)


def _milliseconds(spread: dict[str, float] | None) -> str:
    if spread is None:
        return _MISSING
    low, middle, high = (_digits(1e3 * spread[name]) for name in ("smallest", "median", "largest"))
    return f"{middle} ({low} to {high})"


def _times(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['smallest']:.2f} to {spread['largest']:.2f})"


def _digits(value: float) -> str:
    """Three digits that count, and no exponents."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "0"


def _percent(share: float | None) -> str:
    if share is None:
        return _MISSING
    return f"{share:.2%}" if share >= 0.0001 or not share else "< 0.01%"

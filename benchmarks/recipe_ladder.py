"""
Measure what each change of the pre-training recipe is worth: one at a time, at equal cost, scored on validation records.

    ecg-jepa prepare --database ptb-xl --sampling_rate 100 --amplitude_free --data_dir RAW --output_dir PREPARED
    python benchmarks/recipe_ladder.py run --data_dir PREPARED --output_dir LADDER [--rungs ...] [--seeds 0 1 2]
    python benchmarks/recipe_ladder.py table --data_dir PREPARED --output_dir LADDER

The same at a larger scale, where the paper's recipe collapses, and the course of these runs side by side:

    python benchmarks/recipe_ladder.py run --scale long --rungs paper plus --data_dir PREPARED --output_dir LONG
    python benchmarks/recipe_ladder.py curves --rungs paper plus --output_dir LONG

Finished runs are not run again; several processes may share a folder, and each takes runs that no other has begun. Every encoder
is scored by logistic regression on mean tokens and by an attentive probe, on three tasks. Test records are read by `--split test`
only.

Tables and curves can be made of ranks of scores and logs alone, as they are kept in the folders `ladder` and `long` of
benchmarks/results/2026-11-25-recipe. `keep` adds runs to such a folder:

    python benchmarks/recipe_ladder.py keep --output_dir LONG --keep_dir benchmarks/results/2026-11-25-recipe/long
"""

import functools
import itertools
import math
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from matplotlib.figure import Figure
from scipy.stats import rankdata

from ecg_jepa._utils.files import read_lines
from ecg_jepa._utils.plot_style import COLORS, new_figure, save
from ecg_jepa._utils.settings import make_settings, option, parse_settings, settings
from ecg_jepa.cli import run_command
from ecg_jepa.data.records import find_database
from ecg_jepa.data.task_data import TaskData
from ecg_jepa.evaluation.bootstrap import Interval, interval, resample_counts
from ecg_jepa.evaluation.linear_probe import probe_scores
from ecg_jepa.evaluation.metrics import auroc, macro
from ecg_jepa.model.configuration_ecg_jepa import EcgJepaConfig
from ecg_jepa.model.modeling_ecg_jepa import EcgJepaForSequenceClassification, EcgJepaModel
from ecg_jepa.pretraining.objectives.jepa import JepaRecipe
from ecg_jepa.pretraining.progress_plots import PANELS

TASKS = ("superdiagnostic", "form", "rhythm")
PROBES = ("logistic", "attentive")
MEASURES = tuple(f"{probe}/{task}" for probe in PROBES for task in TASKS)
DATABASE = "ptb-xl"

# Budgets, declared before the first run: this many records in the paper's recipe. The ladder has half of ViT-XS's width and three
# quarters of its depth, patches of 100 ms and crops of 5 s (2 minutes on one core); the long runs have ViT-XS, patches of 50 ms
# and crops of 10 s (an hour).
BUDGET_RECORDS = {"ladder": 25_600, "long": 76_800}
COMMON: dict[str, Any] = {
    **{"size": "xs", "databases": f"{DATABASE}=1.0", "mixed_precision": "bf16"},
    **{"learning_rate": 1e-3, "warmup_start_learning_rate": 1e-6, "logging_steps": 20},
}
FAST: dict[str, Any] = {"ema_momentum": 0.99, "final_ema_momentum": 0.999}
SLOW: dict[str, Any] = {"ema_momentum": 0.9995, "final_ema_momentum": 0.9995}
PAPER: dict[str, dict[str, Any]] = {
    "ladder": {
        **{"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4},
        **{"pred_hidden_size": 48, "pred_num_hidden_layers": 4, "pred_num_attention_heads": 4},
        **{"patch_size": 10, "crop_duration": 5.0, "batch_size": 64, "save_steps": 100_000},
        **{"ema_momentum": 0.998, "final_ema_momentum": 0.9995},
    },
    "long": {
        **{"patch_size": 5, "crop_duration": 10.0, "batch_size": 128, "save_steps": 50},
        **{"eval_steps": 100, "probe_task": "superdiagnostic", "probe_seeds": 0, **FAST},
    },
}
# Shortest hidden block of the paper: 10 patches of 50 ms.
BLOCK_MS = 500
ROTARY: dict[str, Any] = {"position_encoding": "rotary"}
CENTRED: dict[str, Any] = {"center_targets": True, "normalize_targets": True}
SPREAD: dict[str, Any] = {"variance_weight": 1.0, "variance_floor": 0.5, "covariance_weight": 0.5, "spread_of": "records"}
OF_TOKENS: dict[str, Any] = {"variance_weight": 1.0, "variance_floor": 1.0, "covariance_weight": 0.1, "spread_of": "tokens"}
# All three terms of VICReg, on the mean token, ten times as heavy as the JEPA's own loss.
INVARIANT: dict[str, Any] = {**SPREAD, "invariance_weight": 10.0, "variance_weight": 10.0, "covariance_weight": 2.0}
# The middle of the ladder: two changes that need each other, because rotary positions alone collapse with a fast EMA.
MIDDLE: dict[str, Any] = {**ROTARY, **SPREAD, **FAST}

RUNGS: dict[str, dict[str, Any]] = {
    "paper": {},
    # Candidates for PAPER of the ladder (seed 0): the best of them is what others must beat.
    "ema.99-.999": FAST,
    "ema.9995": SLOW,
    "lr3e-4": {"learning_rate": 3e-4, **SLOW},
    "lr3e-3": {"learning_rate": 3e-3, **SLOW},
    # One change of the paper's recipe at a time.
    "rotary": ROTARY,
    "rotary-fast": {**ROTARY, **FAST},
    "spread": {**SPREAD, **FAST},
    "invariant": {**INVARIANT, **FAST},
    "normalized": {"normalize_targets": True},
    "centred": CENTRED,
    "layers4": {"target_layers": 4},
    "masks4": {"masks_per_record": 4},
    "uniform": {"uniform_mask_positions": True},
    "block200": {"block_ms": 200},
    "block1000": {"block_ms": 1000},
    "context": {"context_loss_weight": 0.5},
    "constant": {"final_learning_rate": "constant"},
    "readout4": {"readout_layers": 4},
    # One change of the middle at a time.
    "middle": MIDDLE,
    "middle+invariant": {**MIDDLE, **INVARIANT},
    "middle+invariant+visible": {**MIDDLE, **INVARIANT, "min_keep_ratio": 0.3, "max_keep_ratio": 0.4},
    "middle+invariant+context": {**MIDDLE, **INVARIANT, "context_loss_weight": 0.5},
    "middle+tokens": {**MIDDLE, **OF_TOKENS},
    "middle+centred": {**MIDDLE, **CENTRED},
    "middle+layers4": {**MIDDLE, "target_layers": 4},
    "middle+masks2": {**MIDDLE, "masks_per_record": 2},
    "middle+masks4": {**MIDDLE, "masks_per_record": 4},
    "middle+uniform": {**MIDDLE, "uniform_mask_positions": True},
    "middle+block200": {**MIDDLE, "block_ms": 200},
    "middle+visible": {**MIDDLE, "min_keep_ratio": 0.3, "max_keep_ratio": 0.4},
    "middle+visible+uniform": {**MIDDLE, "min_keep_ratio": 0.3, "max_keep_ratio": 0.4, "uniform_mask_positions": True},
    "middle+context": {**MIDDLE, "context_loss_weight": 0.5},
    "middle+ema.9-.99": {**MIDDLE, "ema_momentum": 0.9, "final_ema_momentum": 0.99},
    "middle+lr5e-4": {**MIDDLE, "learning_rate": 5e-4},
    "middle+constant": {**MIDDLE, "final_learning_rate": "constant"},
    "middle+readout4": {**MIDDLE, "readout_layers": 4},
    # All that helped, together.
    "plus": {**MIDDLE, **INVARIANT, "min_keep_ratio": 0.3, "max_keep_ratio": 0.4, "context_loss_weight": 0.5},
}
# Untrained encoders are rungs, too: they show which part of a gain is the architecture's.
UNTRAINED: dict[str, dict[str, Any]] = {"random": {}, "random-rotary": ROTARY}

# The backward computes each product of the forward twice: for inputs and for weights.
_FORWARD_AND_BACKWARD = 3

HEAD_STEPS, HEAD_BATCH, HEAD_LEARNING_RATE, HEAD_WEIGHT_DECAY = 300, 128, 1e-3, 0.1


@settings
class Arguments:
    """Arguments of this script."""

    action: Literal["run", "table", "curves", "keep"] = option(text="run, table, curves or keep", positional=True)
    scale: Literal["ladder", "long"] = option("ladder", "of the runs")
    data_dir: str = option("data/prepared", "folder of the prepared database")
    output_dir: str = option("runs/ladder", "of all runs")
    rungs: list[str] = option([], "names of RUNGS; default: all")
    seeds: list[int] = option([0, 1, 2], "of pre-training")
    split: Literal["validation", "test"] = option("validation", "which is scored")
    base: str = option("paper", "rung that others are compared with")
    keep_dir: str = option("benchmarks/results/2026-11-25-recipe/ladder", "where `keep` writes")


def recipe_of(rung: str, seed: int, arguments: Arguments) -> JepaRecipe:
    """Return the recipe of a rung, with as many steps as its budget allows."""
    base = {**COMMON, **PAPER[arguments.scale], "data_dir": arguments.data_dir, "seed": seed}
    base |= {"output_dir": f"{arguments.output_dir}/{rung}-{seed}", "resume_from_checkpoint": "latest"}
    base["min_block_size"] = BLOCK_MS // (10 * base["patch_size"])  # of 10 ms each
    paper = make_settings(JepaRecipe, base)
    changed = {name: value for name, value in {**RUNGS, **UNTRAINED}[rung].items() if name != "readout_layers"}
    if block_ms := changed.pop("block_ms", None):
        changed["min_block_size"] = block_ms // (10 * paper.patch_size)
    if changed.get("final_learning_rate") == "constant":
        changed["final_learning_rate"] = paper.learning_rate
    recipe = make_settings(JepaRecipe, {**base, **changed})
    steps = round(BUDGET_RECORDS[arguments.scale] * flops(paper) / flops(recipe) / recipe.batch_size)
    changed = {"warmup_steps": round(0.1 * steps), **changed, "max_steps": steps}
    return make_settings(JepaRecipe, {**base, **changed})


def flops(recipe: JepaRecipe) -> float:
    """
    Return the floating-point operations per record and step in matrix products and attention; a multiplication and an addition
    count as two.
    """
    config = recipe.model_config(100, True)
    patches = config.num_patches
    visible = patches * (recipe.min_keep_ratio + recipe.max_keep_ratio) / 2
    width, narrow, registers = config.hidden_size, config.pred_hidden_size, config.num_register_tokens
    per_patch = 2.0 * len(config.lead_names) * config.patch_size * width

    def encoder(tokens: float) -> float:
        return _layers(tokens + registers, width, config.num_hidden_layers, config.mlp_ratio) + patches * per_patch

    predictor = _layers(patches, narrow, config.pred_num_hidden_layers, config.mlp_ratio) + 2.0 * patches * width * narrow
    each_mask = encoder(visible) + predictor
    return encoder(patches) + recipe.masks_per_record * _FORWARD_AND_BACKWARD * each_mask


def _layers(tokens: float, width: int, depth: int, mlp_ratio: float) -> float:
    """Return the operations of a forward through transformer layers."""
    projections = 2.0 * tokens * width**2 * (4 + 2 * mlp_ratio)
    attention = 4.0 * tokens**2 * width
    return depth * (projections + attention)


def flags(recipe: JepaRecipe) -> list[str]:
    """Return settings as words of a command line."""
    words = []
    for name, value in vars(recipe).items():
        if value is not None and value != []:
            words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


@torch.no_grad()
def encode(encoder: EcgJepaModel, data: TaskData, rows: np.ndarray, num_layers: int) -> torch.Tensor:
    """Return tokens of records in crops without overlap, (records, crops, layers, tokens, width) bfloat16."""
    encoder.eval()
    length = encoder.config.signal_length
    parts = []
    for crops, _ in data.strided_crops(rows, length, length, max_crops=128):
        with torch.autocast("cpu", dtype=torch.bfloat16):  # as it was trained
            outputs = encoder.layer_outputs(crops, num_layers=num_layers)
        parts.append(torch.stack(outputs, dim=1).to(torch.bfloat16))
    tokens = torch.cat(parts)
    return tokens.view(len(rows), -1, *tokens.shape[1:])


def attentive_probe(config: EcgJepaConfig, tokens: list[torch.Tensor], labels: np.ndarray, seed: int) -> np.ndarray:
    """Train a head on the tokens of the first records and return its scores of the second."""
    torch.manual_seed(seed)
    layers = tokens[0].shape[2]
    options = {"num_labels": labels.shape[1], "problem_type": "multi_label_classification", "readout_layers": layers}
    model = EcgJepaForSequenceClassification(EcgJepaConfig(**{**config.to_dict(), **options}))
    head = [p for name, p in model.named_parameters() if not name.startswith("ecg_jepa.")]
    optimizer = torch.optim.AdamW(head, lr=HEAD_LEARNING_RATE, weight_decay=HEAD_WEIGHT_DECAY)
    targets = torch.from_numpy(labels).float()

    def logits(records: torch.Tensor) -> torch.Tensor:
        crops = records.flatten(0, 1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            of_crops = model.classify_tokens(crops if layers > 1 else crops[:, 0])
        return of_crops.float().view(*records.shape[:2], -1).mean(dim=1)

    for step in range(HEAD_STEPS):
        optimizer.param_groups[0]["lr"] = HEAD_LEARNING_RATE * (1 + math.cos(math.pi * step / HEAD_STEPS)) / 2
        chosen = torch.randint(len(targets), (HEAD_BATCH,))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits(tokens[0][chosen]), targets[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return torch.cat([logits(part) for part in tokens[1].split(64)]).numpy()


def score(encoder: EcgJepaModel, arguments: Arguments, num_layers: int, seed: int) -> dict[str, np.ndarray]:
    """Return the scores of both probes on all tasks: `<probe>/<task>` -> (records, classes)."""
    found = {}
    tasks = {task: TaskData.load(arguments.data_dir, task, DATABASE) for task in TASKS}
    rows = {
        split: np.unique(np.concatenate([data.splits[split] for data in tasks.values()])) for split in ("train", arguments.split)
    }
    any_data = TaskData.load(arguments.data_dir, "rhythm", DATABASE)
    tokens = {split: encode(encoder, any_data, numbers, num_layers) for split, numbers in rows.items()}
    registers = encoder.config.num_register_tokens
    means = {split: t[:, :, -1, registers:].float().mean(dim=(1, 2)).numpy() for split, t in tokens.items()}
    for task, data in tasks.items():
        places = {split: np.searchsorted(rows[split], data.splits[split]) for split in rows}
        labels = data.task.labels[data.splits["train"]]
        pair = [means[split][places[split]] for split in rows]
        found[f"logistic/{task}"] = np.nan_to_num(probe_scores(pair[0], labels, pair[1]))
        found[f"attentive/{task}"] = attentive_probe(encoder.config, [tokens[s][places[s]] for s in rows], labels, seed)
    return found


def run_one(rung: str, seed: int, arguments: Arguments) -> None:
    """Pre-train and score, unless that is done or another process is at it."""
    directory = Path(arguments.output_dir, f"{rung}-{seed}")
    scores_file = directory / f"{arguments.split}.npz"
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / f".{arguments.split}.lock")  # the system releases it when its process dies
    try:
        with lock.acquire(blocking=False):
            if not scores_file.is_file():
                train_and_score(rung, seed, arguments, directory, scores_file)
    except Timeout:
        return


def encoder_of(rung: str) -> str:
    """Return the rung whose encoder is scored: a change of the head needs no training of its own."""
    training = {name: value for name, value in RUNGS[rung].items() if name != "readout_layers"}
    return next(name for name, changed in RUNGS.items() if changed == training)


def train_and_score(rung: str, seed: int, arguments: Arguments, directory: Path, scores_file: Path) -> None:
    """Pre-train unless that is done, and write scores."""
    num_layers = 1
    if rung in UNTRAINED:
        torch.manual_seed(seed)
        encoder = EcgJepaModel(recipe_of(rung, seed, arguments).model_config(100, True))
    else:
        num_layers = RUNGS[rung].get("readout_layers", 1)
        trained = encoder_of(rung)
        recipe = recipe_of(trained, seed, arguments)
        with FileLock(Path(arguments.output_dir, f".{trained}-{seed}.lock")):
            if not Path(recipe.output_dir, "model.safetensors").is_file():
                run_command("pretrain", flags(recipe), "pretrain")
        encoder = EcgJepaModel.from_pretrained(recipe.output_dir)
    scores = score(encoder, arguments, num_layers, seed)
    np.savez_compressed(scores_file, **scores)
    labels = labels_of(arguments.data_dir, arguments.split)
    found = {}
    for name, values in scores.items():
        found[name] = round(float(macro(auroc(labels[name.split("/")[1]], values))), 4)
    print(rung, seed, found, flush=True)


@functools.cache
def labels_of(data_dir: str, split: str) -> dict[str, np.ndarray]:
    """Return the labels of the records of a split: task -> (records, classes)."""
    tasks = {task: TaskData.load(data_dir, task, DATABASE) for task in TASKS}
    return {task: data.task.labels[data.splits[split]] for task, data in tasks.items()}


def finished(arguments: Arguments, rung: str) -> dict[int, dict[str, np.ndarray]]:
    """Return the scores (or their ranks) of the finished seeds of a rung."""
    found = {}
    for seed in arguments.seeds:
        path = Path(arguments.output_dir, f"{rung}-{seed}", f"{arguments.split}.npz")
        if path.is_file():
            with np.load(path) as content:
                found[seed] = dict(content)
    return found


def keep(arguments: Arguments) -> None:
    """
    Copy the log of finished runs, and the ranks of their scores, which are smaller than the scores and give the same AUROC.
    """
    for scores_file in sorted(Path(arguments.output_dir).glob("*/*.npz")):
        kept = Path(arguments.keep_dir, scores_file.parent.name)
        kept.mkdir(parents=True, exist_ok=True)
        with np.load(scores_file) as scores:
            ranks = {name: rankdata(scores[name], method="dense", axis=0).astype(np.uint16) for name in MEASURES}
        np.savez_compressed(kept / scores_file.name, **ranks)
        if (log := scores_file.with_name("metrics.jsonl")).is_file():
            shutil.copy(log, kept)


def aurocs(runs: list[dict[str, np.ndarray]], measure: str, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the macro AUROC of every seed in every resample, (seeds, resamples)."""
    return np.stack([macro(auroc(labels, run[measure], counts)) for run in runs])


def gains_over(
    base: list[dict[str, np.ndarray]], runs: list[dict[str, np.ndarray]], task: str, labels: np.ndarray
) -> tuple[Interval, np.ndarray]:
    """Return what runs gain over others of the same seeds in a task, mean of both probes: paired over records, and by seed."""

    def difference(counts: np.ndarray) -> np.ndarray:
        pairs = [[aurocs(side, f"{probe}/{task}", labels, counts) for side in (runs, base)] for probe in PROBES]
        return np.mean([ours - theirs for ours, theirs in pairs], axis=0)

    by_seed = difference(np.ones((1, len(labels)), dtype=np.int32))[:, 0]
    resampled = difference(resample_counts(len(labels), 1000, 0)).mean(axis=0)
    return interval(float(by_seed.mean()), resampled), by_seed


def table(arguments: Arguments) -> pd.DataFrame:
    """
    Return a row per rung: cost, AUROC (mean over seeds), and gain over the base with the same seeds. A change is kept
    if the paired interval of its gain is above zero in two tasks, or its mean gain over tasks exceeds the spread (standard
    deviation) of that over seeds.
    """
    base, labels = finished(arguments, arguments.base), labels_of(arguments.data_dir, arguments.split)
    rows = []
    for rung in arguments.rungs or [*UNTRAINED, *RUNGS]:
        runs = finished(arguments, rung)
        if not runs:
            continue
        recipe = recipe_of(rung, 0, arguments)
        row: dict[str, Any] = {"rung": rung, "seeds": len(runs)}
        if rung in RUNGS:
            row |= {"steps": recipe.max_steps, "GFLOP a record": flops(recipe) / 1e9}
        for probe, task in itertools.product(PROBES, TASKS):
            ones = np.ones((1, len(labels[task])), dtype=np.int32)
            row[f"{probe} {task}"] = aurocs(list(runs.values()), f"{probe}/{task}", labels[task], ones).mean()
        shared = sorted(runs.keys() & base.keys())
        if rung != arguments.base and shared:
            pair = [[side[seed] for seed in shared] for side in (base, runs)]
            gains = {task: gains_over(*pair, task, labels[task]) for task in TASKS}
            row |= {f"gain {task}": f"{b.value:+.3f} ({b.low:+.3f} to {b.high:+.3f})" for task, (b, _) in gains.items()}
            by_seed = np.mean([each for _, each in gains.values()], axis=0)
            row["mean gain"] = by_seed.mean()
            if len(shared) > 1:
                row["spread"] = spread = by_seed.std(ddof=1)
                row["kept"] = "yes" if sum(b.low > 0 for b, _ in gains.values()) >= 2 or by_seed.mean() > spread else "no"
        rows.append(row)
    return pd.DataFrame(rows)


def plot_courses(arguments: Arguments) -> Figure:
    """Plot metrics over the course of runs: a colour per rung, a line per seed, dashes for the value before training."""
    logs = {
        rung: [
            pd.DataFrame(read_lines(path))
            for seed in arguments.seeds
            if (path := Path(arguments.output_dir, f"{rung}-{seed}", "metrics.jsonl")).is_file()
        ]
        for rung in arguments.rungs or RUNGS
    }
    found = set().union(*(log.columns for of_rung in logs.values() for log in of_rung))
    columns = {
        column: label for column, label in PANELS.items() if {column, f"eval_{column}"} & found and column != "learning_rate"
    }
    figure, axes = new_figure(11, 8, nrows=-(-len(columns) // 3), ncols=3, squeeze=False)
    for axis in axes.ravel()[len(columns) :]:
        axis.set_axis_off()
    for axis, (column, label) in zip(axes.ravel(), columns.items(), strict=False):
        for (rung, of_rung), color in zip(logs.items(), COLORS, strict=False):
            for number, log in enumerate(of_rung):
                source = column if column in log else f"eval_{column}"
                points = log[["step", source]].dropna()
                # Rungs differ in steps at equal cost.
                share = points["step"] / log["step"].max()
                axis.plot(share, points[source], color=color, label=None if number else rung, linewidth=1, linestyle="-")
                if (before := points[points["step"] == 0]).size:
                    axis.axhline(before[source].iloc[0], color=color, linestyle="--", linewidth=0.5)
        axis.set_ylabel(label)
        axis.grid(color="0.9")
        if column != "probe_auroc":
            axis.set_ylim(bottom=0)
    axes[0, 0].legend(fontsize=8)
    for axis in axes.ravel()[max(0, len(columns) - 3) : len(columns)]:
        axis.set_xlabel("share of the run")
    return figure


def main() -> None:
    """Run the action."""
    arguments = parse_settings(Arguments)
    if arguments.action == "table":
        found = table(arguments)
        name = f"{arguments.split}-over-{arguments.base}"
        found.to_csv(Path(arguments.output_dir, f"{name}.csv"), index=False)
        markdown = found.to_markdown(index=False, floatfmt=".3f", missingval="")
        Path(arguments.output_dir, f"{name}.md").write_text(markdown + "\n")
        print(markdown)
        return
    if arguments.action == "curves":
        print(save(plot_courses(arguments), Path(arguments.output_dir, "courses.png")))
        return
    if arguments.action == "keep":
        keep(arguments)
        return
    find_database(arguments.data_dir, DATABASE)
    for seed in arguments.seeds:
        for rung in arguments.rungs or [*UNTRAINED, *RUNGS]:
            run_one(rung, seed, arguments)


if __name__ == "__main__":
    main()

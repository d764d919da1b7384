"""`ecg-jepa pretrain`: prepared databases -> an encoder."""

import dataclasses
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed

from .._utils.files import TRAINING_INFO_FILE, read_json
from .._utils.fsdp import is_sharded
from .._utils.hardware import crops_at_once, describe_hardware, fastest_precision, set_up_cpu
from .._utils.interruption import end_with_launcher
from .._utils.json_lines import read_lines
from .._utils.logs import progress_bar
from .._utils.model_directory import weights_digest
from .._utils.plot_style import save
from .._utils.processes import connect_processes, on_main_process, start_accelerator
from .._utils.run_directory import check_own, left_in, own_directory
from .._utils.settings import read_yaml
from ..apps.embedding import embed
from ..data.records import find_database
from ..data.synthetic import Synthetic, generate_if_absent
from ..data.task_data import TaskData
from ..evaluation.linear_probe import ProbeResult, linear_probe
from ..evaluation.results import METRICS_FILE
from ..model.modeling_ecg_jepa import EcgJepaModel
from ..pretraining.objective import BatchKey
from ..pretraining.objectives import objective_class
from ..pretraining.pretraining_loop import EXPORTED, WRITTEN, PretrainingRun, open_corpus, train
from ..pretraining.progress_plots import plot_pretraining
from ..pretraining.recipe import PretrainingRecipe
from ..publishing.encoder import export_pretraining

logger = logging.getLogger(__name__)

_RECORDS_IN_PICTURES = 16


def run(recipe: PretrainingRecipe) -> None:
    """Train in a folder of its own, unless that is done."""
    end_with_launcher()
    if recipe.mixed_precision == "auto":
        recipe = dataclasses.replace(
            recipe, mixed_precision=on_main_process(connect_processes(), partial(choose_precision, recipe))
        )
    accelerator = start_accelerator(
        may_shard=True, mixed_precision=recipe.mixed_precision, log_with=recipe.report_to or None, project_dir=recipe.output_dir
    )
    with own_directory(recipe.output_dir, accelerator):
        if on_main_process(accelerator, partial(is_finished, recipe)):
            logger.info(f"The run in {recipe.output_dir} is finished: there is nothing to resume.")
        else:
            on_main_process(accelerator, partial(check_directory, recipe))
            pretrain(recipe, accelerator)
    accelerator.end_training()


def choose_precision(recipe: PretrainingRecipe) -> Any:
    """What `mixed_precision: auto` stands for: that of the run that is gone on with, or else what is faster on this machine."""
    resumed = recipe.resume_from_checkpoint
    folder = Path(recipe.output_dir) if resumed == "latest" else Path(resumed).parent if resumed else None
    if folder is not None and (config := folder / "training_config.yaml").is_file():
        earlier = read_yaml(str(config)).get("mixed_precision")
        if earlier in ("no", "bf16"):
            return earlier
    chosen = fastest_precision(PartialState().device)
    logger.info(f"mixed_precision: {chosen}, the faster one on this machine")
    return chosen


def is_finished(recipe: PretrainingRecipe) -> bool:
    """Whether the folder holds this very run, exported: what a cluster starts again may have come to its end."""
    path = Path(recipe.output_dir, TRAINING_INFO_FILE)
    if recipe.resume_from_checkpoint != "latest" or not path.is_file():
        return False
    info = read_json(path)
    if not isinstance(info, dict) or not isinstance(info.get("settings"), dict):
        return False
    settings = {**recipe.trained_by_default(), **info["settings"]}
    if any(settings[name] != value for name, value in recipe.what_trains().items()):
        return False
    try:
        weights = recipe.database_weights()
        records = {name: (weight, find_database(recipe.data_dir, name).info.identity) for name, weight in weights.items()}
        trained_on = {d.get("name"): (d.get("weight"), d.get("digest")) for d in info.get("databases", [])}
        return records == trained_on and info.get("weights") == weights_digest(recipe.output_dir)
    except (AttributeError, TypeError):  # of a file that somebody else wrote
        return False
    except FileNotFoundError:  # records or weights are not there: whoever needs them will say so
        return False


def check_directory(recipe: PretrainingRecipe) -> None:
    """
    See whether the folder of a run may be used; nothing in it is touched yet.

    Raises:
        FileExistsError: if it holds another run, unless this one goes on from it or replaces it.
    """
    directory, resumed = Path(recipe.output_dir), recipe.resume_from_checkpoint
    if (directory / METRICS_FILE).is_file():
        raise FileExistsError(f"{directory} holds a classifier and its results: choose another --output_dir for pre-training.")
    check_own(directory, (*EXPORTED, "metrics.jsonl"))
    if recipe.overwrite_output_dir:
        return
    if resumed == "latest":
        # What is left of a run that was killed before its first checkpoint is gone on with from the beginning; a model is not.
        model = left_in(directory, ("*.safetensors", TRAINING_INFO_FILE, "config.json"))
        left = [] if list(directory.glob("checkpoint-*")) else model
        remedy = "it has no checkpoint to go on from: "
    else:
        goes_on = resumed is not None and Path(resumed).resolve().parent == directory.resolve()
        left = [] if goes_on else left_in(directory, WRITTEN)
        remedy = "go on with --resume_from_checkpoint latest, "
    if left:
        names = ", ".join(str(path.relative_to(directory)) for path in left[:3]) + (", ..." if len(left) > 3 else "")
        raise FileExistsError(
            f"{directory} holds a run ({names}): {remedy}replace it with --overwrite_output_dir, or choose another --output_dir."
        )


def pretrain(recipe: PretrainingRecipe, accelerator: Accelerator) -> None:
    """Open the corpus, train, draw, export, and probe if asked to."""
    set_seed(recipe.seed)
    set_up_cpu(accelerator)
    with accelerator.main_process_first():
        if accelerator.is_local_main_process:
            make_synthetic_database(recipe)
    corpus = open_corpus(recipe)
    records = corpus.databases[0].info
    config = recipe.model_config(records.sampling_rate, records.amplitude_free)
    objective = objective_class(recipe.objective)(config, recipe)
    if not is_sharded(accelerator):  # or each process would hold all of it before it holds its part
        objective = objective.to(accelerator.device)
    output_dir = Path(recipe.output_dir)
    accelerator.init_trackers("ecg_jepa", {k: str(v) for k, v in vars(recipe).items()})

    probe = Probe.of(recipe) if recipe.probe_task else None
    online = probe if recipe.eval_steps else None
    training = PretrainingRun(recipe, accelerator, corpus, objective, output_dir, online)
    logger.info(
        f"{recipe.objective}: encoder of {objective.encoder.num_parameters():,} parameters, {config.num_patches} patches of "
        f"{config.patch_size} samples at {config.sampling_rate} Hz; {training.gflop_per_record:.3g} GFLOP a record; "
        f"{sum(map(len, corpus.records)):,} records of "
        f"{', '.join(database.name for database in corpus.databases)}; {describe_hardware(accelerator)}; into {output_dir}"
    )
    train(training)

    training = training.with_whole_weights()
    if accelerator.is_main_process:
        training.objective.to(accelerator.device)
        draw_pictures(training)
        export_pretraining(training, describe_hardware(accelerator))
        logger.info(f"Encoder exported to {output_dir}: load it with AutoModel.from_pretrained({str(output_dir)!r})")
        if probe is not None and recipe.probe_seeds:
            compare_with_untrained(recipe, training.objective.encoder, probe)


def make_synthetic_database(recipe: PretrainingRecipe) -> None:
    """Generate and prepare synthetic records if the recipe asks for some and there are none."""
    if not recipe.synthetic_records:
        return
    raw = Path(recipe.data_dir, f"synthetic-raw-{recipe.synthetic_records}")
    generate_if_absent(raw, recipe.synthetic_records, num_proc=2)
    Synthetic(data_dir=str(raw)).prepare(recipe.data_dir, num_proc=2)


@torch.no_grad()
def draw_pictures(training: PretrainingRun) -> None:
    """The course of the run, and what the objective shows of some records of its last batch."""
    recipe, objective, plots = training.recipe, training.objective, training.output_dir / "plots"
    lines = read_lines(training.metrics_file)
    if any("loss" in line for line in lines):  # somebody may have removed them
        save(plot_pretraining(pd.DataFrame(lines)), plots / "pretraining.png")
    last = max(1, recipe.max_steps) * recipe.gradient_accumulation_steps - 1
    batch = training.corpus.batch(last).first(_RECORDS_IN_PICTURES)
    input_values, drawn = training.inputs(batch, BatchKey(recipe.seed, last), slice(0, len(batch.signal)))
    objective.eval()
    for name, figure in objective.figures(batch, input_values, drawn).items():
        save(figure, plots / f"{name}.png")


class Probe:
    """
    Logistic regression on mean tokens, over as many crops of the encoder's length as cover each record, scored on the validation
    fold.

    Args:
        data: records and labels.
        num_records: of the training folds at most, evenly spread.
    """

    def __init__(self, data: TaskData, num_records: int):
        self.data = data
        train = data.splits["train"]
        chosen = train if len(train) <= num_records else train[np.linspace(0, len(train) - 1, num_records).astype(int)]
        self.parts = (chosen, data.splits["validation"])

    @classmethod
    def of(cls, recipe: PretrainingRecipe) -> "Probe":
        """The probe that a recipe asks for."""
        data = TaskData.load(recipe.data_dir, recipe.probe_task or "", next(iter(recipe.database_weights())))
        return cls(data, recipe.probe_records)

    def score(self, encoder: Any) -> ProbeResult:
        """
        Macro AUROC of an encoder, which is not trained.

        Raises:
            FloatingPointError: if what it computes is not finite.
        """
        length, data = encoder.config.signal_length, self.data
        crops = [data.strided_crops(rows, length, length, crops_at_once(encoder.device)) for rows in self.parts]
        features = [np.concatenate(list(embed(encoder, batches))) for batches in crops]
        if not all(np.isfinite(rows).all() for rows in features):
            raise FloatingPointError(
                "Embeddings of the encoder are not finite: resume from an earlier checkpoint with a lower learning rate "
                "(--allow_changes)."
            )
        labels = [data.task.labels[rows] for rows in self.parts]
        return linear_probe(features[0], labels[0], features[1], labels[1], data.task.class_names)

    def __call__(self, encoder: Any) -> dict[str, float]:
        """The same as a figure of the run."""
        return {"probe_auroc": self.score(encoder).macro_auroc}


def compare_with_untrained(recipe: PretrainingRecipe, encoder: EcgJepaModel, probe: Probe) -> None:
    """Print the linear-probe AUROC of the trained encoder beside encoders with random weights, on the validation fold."""
    trained = probe.score(encoder)
    untrained = []
    for seed in progress_bar(range(recipe.probe_seeds), desc="Probing untrained encoders"):
        set_seed(seed)
        random: torch.nn.Module = EcgJepaModel(encoder.config)
        untrained.append(probe.score(random.to(encoder.device)).macro_auroc)
    each = ", ".join(f"{value:.3f}" for value in untrained)
    print(
        f"Linear probe, {recipe.probe_task} of {probe.data.database.name}, macro AUROC on {len(probe.parts[1])} validation "
        f"records: trained {trained.macro_auroc:.3f}, untrained {np.mean(untrained):.3f} ({each})"
    )
    if trained.left_out:
        print(f"Not scored for lack of examples: {', '.join(trained.left_out)}")

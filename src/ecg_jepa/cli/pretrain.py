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
from markupsafe import Markup

from .._utils.files import read_lines
from .._utils.hardware import describe_hardware, fastest_precision, set_up_cpu
from .._utils.logs import progress_bar
from .._utils.plot_style import save
from .._utils.processes import are_several_on_cpus, on_main_process, start_accelerator
from .._utils.run_directory import own_directory
from .._utils.settings import read_yaml
from ..data.records import MICROVOLTS_PER_MILLIVOLT
from ..data.synthetic import Synthetic, generate_if_absent
from ..data.task_data import TaskData
from ..evaluation.linear_probe import Probe
from ..model.modeling_ecg_jepa import EcgJepaModel
from ..pretraining.checkpointing import check_directory, is_finished
from ..pretraining.monitoring import run_summary
from ..pretraining.objective import BatchKey, Objective
from ..pretraining.pretraining_loop import PretrainingRun, train
from ..pretraining.progress_plots import plot_pretraining
from ..pretraining.recipe import PretrainingRecipe
from ..publishing.directory import circumstances, export_encoder

logger = logging.getLogger(__name__)

_RECORDS_PLOTTED = 16


def run(recipe: PretrainingRecipe) -> None:
    """Train in a directory of its own, unless the run is finished."""
    if recipe.mixed_precision == "auto":
        precision = on_main_process(PartialState(cpu=are_several_on_cpus()), partial(choose_precision, recipe))
        recipe = dataclasses.replace(recipe, mixed_precision=precision)
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
    """Return what `mixed_precision: auto` stands for: the precision of the run to resume, or the faster one on this machine."""
    if resumed := recipe.resume_from_checkpoint:
        config = Path(recipe.output_dir if resumed == "latest" else Path(resumed).parent, "training_config.yaml")
        earlier = read_yaml(str(config)).get("mixed_precision") if config.is_file() else None
        if earlier in ("no", "bf16"):
            return str(earlier)
    chosen = fastest_precision(PartialState().device)
    logger.info(f"mixed_precision: {chosen}, the faster one on this machine")
    return chosen


def pretrain(recipe: PretrainingRecipe, accelerator: Accelerator) -> None:
    """Train, plot, export, and probe if the recipe asks for it."""
    set_seed(recipe.seed)
    set_up_cpu(accelerator)
    with accelerator.main_process_first():
        if accelerator.is_local_main_process:
            make_synthetic_database(recipe)
    training = PretrainingRun(recipe, accelerator)
    accelerator.init_trackers("ecg_jepa", {name: str(value) for name, value in vars(recipe).items()})
    probe = None
    if recipe.probe_task:
        database = next(iter(recipe.database_weights()))
        probe = Probe(TaskData.load(recipe.data_dir, recipe.probe_task, database), recipe.probe_records)
        training.probe = lambda encoder: {"probe_auroc": probe.score(encoder).macro_auroc}
    corpus, config, num_parameters = training.corpus, training.objective.config, training.objective.encoder.num_parameters()
    logger.info(
        f"{recipe.objective}: encoder of {num_parameters:,} parameters, {config.num_patches} patches of {config.patch_size} "
        f"samples at {config.sampling_rate} Hz; {training.gflop_per_record:.3g} GFLOP a record; "
        f"{sum(map(len, corpus.records)):,} records of {', '.join(database.name for database in corpus.databases)}; "
        f"{describe_hardware(accelerator)}; into {training.output_dir}"
    )
    train(training)
    objective = training.whole_objective()
    if accelerator.is_main_process:
        objective.to(accelerator.device)
        write_plots(training, objective)
        export(training, objective)
        if probe is not None and recipe.probe_seeds:
            compare_with_untrained(recipe, objective.encoder, probe)


def make_synthetic_database(recipe: PretrainingRecipe) -> None:
    """Generate and prepare synthetic records if the recipe asks for some and there are none."""
    if recipe.synthetic_records:
        raw = Path(recipe.data_dir, f"synthetic-raw-{recipe.synthetic_records}")
        generate_if_absent(raw, recipe.synthetic_records, num_proc=2)
        Synthetic(data_dir=str(raw)).prepare(recipe.data_dir, num_proc=2)


@torch.no_grad()
def write_plots(training: PretrainingRun, objective: Objective) -> None:
    """Plot the course of the run, and the objective's own plots of a few records of its last batch."""
    recipe, plots = training.recipe, training.output_dir / "plots"
    lines = read_lines(training.metrics_file)
    if any("loss" in line for line in lines):  # there is none without training
        save(plot_pretraining(pd.DataFrame(lines)), plots / "pretraining.png")
    last = max(1, recipe.max_steps) * recipe.gradient_accumulation_steps - 1
    batch = training.corpus.batch(last).first(_RECORDS_PLOTTED)
    inputs = training.inputs(batch, BatchKey(recipe.seed, last), slice(0, len(batch.signal)))
    objective.eval()
    for name, figure in objective.plots(batch.signal / MICROVOLTS_PER_MILLIVOLT, inputs.pop("input_values"), inputs).items():
        save(figure, plots / f"{name}.png")


def export(training: PretrainingRun, objective: Objective) -> None:
    """Write the directory of the encoder, and all networks to `pretraining/` in it."""
    recipe, directory = training.recipe, training.output_dir
    encoder = EcgJepaModel(objective.config)  # the trained one may be of another class
    encoder.load_state_dict(objective.encoder.state_dict())
    summary = run_summary(read_lines(training.metrics_file))
    known = {
        "configuration": recipe.configuration(),
        "num_processes": training.accelerator.num_processes,
        "changes": training.changes,
        "gflop_per_record": training.gflop_per_record,
        "skipped_steps": summary["skipped_steps"],
        **circumstances(describe_hardware(training.accelerator), summary["seconds"]),
    }
    export_encoder(
        *(directory, encoder, objective.model, training.corpus, dataclasses.asdict(recipe), known),
        summary=Markup(objective.summary),
        exported_weights=recipe.exported_weights,
        metrics=summary["metrics"],
        untrained=summary["untrained_metrics"],
    )
    logger.info(f"Encoder exported to {directory}: load it with AutoModel.from_pretrained({str(directory)!r})")


def compare_with_untrained(recipe: PretrainingRecipe, encoder: EcgJepaModel, probe: Probe) -> None:
    """Print the linear-probe AUROC of the trained encoder beside encoders with random weights, on the validation fold."""
    trained = probe.score(encoder)
    untrained = []
    for seed in progress_bar(range(recipe.probe_seeds), desc="Probing untrained encoders"):
        set_seed(seed)
        random: Any = EcgJepaModel(encoder.config)
        random.to(encoder.device)
        untrained.append(probe.score(random).macro_auroc)
    each = ", ".join(f"{value:.3f}" for value in untrained)
    print(
        f"Linear probe, {recipe.probe_task} of {probe.data.database.name}, macro AUROC on {len(probe.parts[1])} validation "
        f"records: trained {trained.macro_auroc:.3f}, untrained {np.mean(untrained):.3f} ({each})"
    )
    if trained.left_out:
        print(f"Not scored for lack of examples: {', '.join(trained.left_out)}")

"""The pre-training loop. It knows objectives only through the interface in `objective.py`."""

import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator

from .._utils.fsdp import is_sharded, shard
from .._utils.hardware import use_faster_attention
from .._utils.interruption import StopSignals, exit_code
from .._utils.optimization import adamw, gradient_norm, set_schedules
from .._utils.processes import on_main_process, send_no_constants, share_of_batch
from ..data.corpus import BatchNormalizer, Corpus, CorpusBatch
from ..data.records import MICROVOLTS_PER_MILLIVOLT, find_database
from ..model.modeling_ecg_jepa import EcgJepaModel
from .checkpointing import SHARDED, Checkpoints
from .monitoring import Monitor, collapse_measures
from .objective import BatchKey, Objective, StepOutput, count_flops
from .objectives import make_objective
from .output_directory import METRICS_LOG, prepare_directory
from .recipe import PretrainingRecipe

logger = logging.getLogger(__name__)

Inputs = dict[str, torch.Tensor]


@dataclass
class PretrainingRun:
    """
    Everything that a run works with.

    Args:
        probe: returns metrics of the encoder at evaluations, beside loss and collapse measures; it must not train it.
        changes: of settings and records since the run was begun.
    """

    recipe: PretrainingRecipe
    accelerator: Accelerator
    corpus: Corpus
    objective: Objective
    probe: Callable[[EcgJepaModel], dict[str, float]] | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.output_dir = Path(self.recipe.output_dir)
        self.metrics_file = self.output_dir / METRICS_LOG
        self.gflop_per_record = count_flops(self.objective) / 1e9
        self.normalize = BatchNormalizer(*self.corpus.lead_statistics()).to(self.accelerator.device)
        self.share = self.accelerator.process_index, self.accelerator.num_processes
        rows = share_of_batch(self.recipe.batch_size, self.accelerator.num_processes)
        self.own_rows = slice(self.share[0] * rows, (self.share[0] + 1) * rows)

    @classmethod
    def from_recipe(cls, recipe: PretrainingRecipe, accelerator: Accelerator) -> "PretrainingRun":
        """Open the databases of a recipe and make its objective, with random weights."""
        weights = recipe.database_weights()
        info = find_database(recipe.data_dir, next(iter(weights))).info
        config = recipe.model_config(info.sampling_rate, info.amplitude_free)
        sizes = {"batch_size": recipe.batch_size, "crop_length": config.signal_length}
        corpus = Corpus.from_weights(recipe.data_dir, weights, **sizes, seed=recipe.seed)
        objective = make_objective(config, recipe)
        if not is_sharded(accelerator):  # a process that holds a part of the weights may not have room for all of them
            objective = objective.to(accelerator.device)
        if not recipe.torch_compile:
            use_faster_attention(objective.model, config.num_patches + config.num_register_tokens, recipe.mixed_precision)
        return cls(recipe, accelerator, corpus, objective)

    def training(self) -> dict[str, Any]:
        """Return the plain values that decide the weights, which a checkpoint to resume from must share."""
        corpus = self.corpus
        return {
            "recipe": self.recipe.training_settings(),
            "databases": {
                database.name: {"weight": weight, "records": len(records), **database.info.what_models_see()}
                for database, weight, records in zip(corpus.databases, corpus.weights.tolist(), corpus.records, strict=True)
            },
            "num_processes": self.accelerator.num_processes,
            **({SHARDED: True} if is_sharded(self.accelerator) else {}),
        }

    def records_of(self, step: int) -> list[str]:
        """Return the names of the records of an optimiser step."""
        parts = self.recipe.gradient_accumulation_steps
        return [name for part in range(parts) for name in self.corpus.record_ids(step * parts + part)]

    def inputs(self, batch: CorpusBatch, key: BatchKey, rows: slice | None = None) -> Inputs:
        """
        Return the arguments of the objective's forward: normalised records of this process's part of a batch, and the draws for
        them; `rows` are those of the whole batch that `batch` holds, if it is another part.
        """
        drawn = self.objective.draw(key, self.recipe.batch_size)
        device, rows = self.accelerator.device, rows or self.own_rows
        inputs = {name: values[rows].to(device, non_blocking=True) for name, values in drawn.items()}
        batch = batch.to(device)
        if self.objective.needs_units:
            inputs["units_per_millivolt"] = MICROVOLTS_PER_MILLIVOLT / self.normalize.std[batch.database][:, :, None]
        return {"input_values": self.normalize(batch), **inputs}

    def latents(self, inputs: Inputs, output: StepOutput | None = None) -> torch.Tensor:
        """Return the latents of a forward's records, computed unless its `output` holds them."""
        if output is not None and output.latents is not None:
            return output.latents
        with self.accelerator.autocast():
            return self.objective.latents(inputs["input_values"])

    def whole_objective(self) -> Objective:
        """Return the objective; on the main process with all weights, if processes hold parts. All processes must call this."""
        if not is_sharded(self.accelerator):
            return self.objective
        weights = self.accelerator.get_state_dict(self.objective)
        if not self.accelerator.is_main_process:
            return self.objective
        with torch.random.fork_rng(devices=[]):  # initial weights must not advance the run's random numbers
            objective = make_objective(self.objective.config, self.recipe)
        objective.load_state_dict(weights)
        return objective.eval()


def train(run: PretrainingRun) -> None:
    """Train from the checkpoint that the recipe names, if any, to the last step."""
    recipe, accelerator, objective = run.recipe, run.accelerator, run.objective
    network, optimizer = prepare(recipe, accelerator, objective)
    evaluate = HeldOutEvaluation(run, network)
    checkpoints = Checkpoints(accelerator, run.output_dir, recipe.save_total_limit, run.training(), recipe.allow_changes)
    start = checkpoints.restore(recipe.resume_from_checkpoint, recipe.max_steps)
    run.changes = checkpoints.changes
    on_main_process(accelerator, partial(prepare_directory, recipe, checkpoints, start))
    source = checkpoints.resumed_from and checkpoints.resumed_from.parent / METRICS_LOG
    monitor = Monitor(accelerator, run.metrics_file, start, recipe.max_steps, recipe.stop_on_collapse, source)
    if start == 0:
        log_untrained(run, monitor, evaluate)
    accumulation = recipe.gradient_accumulation_steps
    batches = run.corpus.batches(start * accumulation, *run.share)
    network.train()
    with StopSignals(accelerator) as signals:
        for step in range(start, recipe.max_steps):
            set_schedules(optimizer, recipe.learning_rate_at(step), recipe.weight_decay_at(step))
            losses = []
            for part in range(accumulation):
                inputs = run.inputs(next(batches), BatchKey(recipe.seed, step * accumulation + part))
                with synchronization(accelerator, network, is_last=part + 1 == accumulation):
                    output: StepOutput = network(**inputs)
                    accelerator.backward(output.loss / accumulation)
                losses.append(output.loss.detach())
            norm = gradient_norm(accelerator, network, recipe.max_grad_norm)
            is_usable = bool(torch.isfinite(norm))
            if is_usable:
                optimizer.step()
                objective.after_step(step)
                monitor.update(step, torch.stack(losses).mean(), recipe.batch_size * accumulation)
            else:
                monitor.skip(step, run.records_of(step), run.latents(inputs, output))
            optimizer.zero_grad()

            stop = signals.agreed() if step + 1 < recipe.max_steps else 0
            # While steps are skipped, something is broken: earlier checkpoints are worth more.
            save = is_usable and (recipe.checkpoint_due(step) or stop > 0)
            if save or (is_usable and recipe.log_due(step)):
                rate = recipe.learning_rate_at(step)
                monitor.log(step, run.latents(inputs, output), **output.metrics, grad_norm=norm, learning_rate=rate)
            if recipe.evaluation_due(step) and not stop:  # a run that is asked to stop may have little time
                monitor.log_evaluation(step, evaluate)
            is_saved = save and checkpoints.save(step + 1)
            if stop:
                end_early(accelerator, stop, step + 1, is_saved)
            del output, inputs  # the next forward needs their memory
    monitor.close()


def prepare(recipe: PretrainingRecipe, accelerator: Accelerator, objective: Objective) -> tuple[Any, Any]:
    """Return the objective and its optimiser, prepared for the processes of a run."""
    optimizer = adamw([objective], recipe.learning_rate, (recipe.adam_beta1, recipe.adam_beta2), recipe.adam_epsilon)
    if recipe.gradient_checkpointing:
        # transformers renamed it in 5.23.
        getattr(objective.model, "activation_checkpointing_enable", objective.model.gradient_checkpointing_enable)()
    if recipe.torch_compile:
        objective.compile(dynamic=True)  # masks may change their shape from batch to batch
    if is_sharded(accelerator):
        if recipe.torch_compile:
            raise ValueError("torch_compile was not tried with FSDP: leave out one of them.")
        return shard(accelerator, objective, optimizer, ["latents"])
    send_no_constants(objective)
    return accelerator.prepare(objective, optimizer)


def synchronization(accelerator: Accelerator, network: Any, is_last: bool) -> contextlib.AbstractContextManager[Any]:
    """Return the context of a backward: gradients are averaged over processes at the last part of an optimiser step only."""
    return contextlib.nullcontext() if is_last or is_sharded(accelerator) else accelerator.no_sync(network)


def log_untrained(run: PretrainingRun, monitor: Monitor, evaluate: Callable[[], dict[str, float]]) -> None:
    """Log metrics of the untrained encoder, with which later ones are compared."""
    if run.recipe.evaluation_due(-1):
        monitor.log_evaluation(-1, evaluate)
    if run.recipe.max_steps:
        index = run.recipe.gradient_accumulation_steps - 1  # the last batch of the first step
        inputs = run.inputs(run.corpus.batch(index, *run.share), BatchKey(run.recipe.seed, index))
        monitor.log_untrained(run.latents(inputs), run.gflop_per_record)


def end_early(accelerator: Accelerator, number: int, steps_done: int, is_saved: bool) -> NoReturn:
    """End a run that a signal asked to stop, after its checkpoint."""
    kept = "its checkpoint is written" if is_saved else "its checkpoint could not be written"
    name = signal.Signals(number).name
    logger.warning(f"Stopped by {name} after {steps_done} steps, {kept}: go on with --resume_from_checkpoint latest.")
    accelerator.end_training()
    raise SystemExit(exit_code(number))


class HeldOutEvaluation:
    """
    Loss and collapse measures of records of the validation folds, always the same ones with the same draws, and the run's probe.

    Raises:
        ValueError: before training, if no database has a validation fold, but the recipe asks for evaluations.
    """

    def __init__(self, run: PretrainingRun, network: Any):
        self.run = run
        self.network = network
        count = run.recipe.eval_batches
        self.batches = run.corpus.validation_batches(count, *run.share) if run.recipe.eval_steps else []

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Return `loss`, [`collapse_measures`], and the metrics of the probe on the main process."""
        run = self.run
        self.network.eval()
        losses, latents = [], []
        for index, batch in enumerate(self.batches):
            inputs = run.inputs(batch, BatchKey.held_out(run.recipe.seed, index))
            output = self.network(**inputs)
            losses.append(output.loss)
            latents.append(run.latents(inputs, output))
        metrics = {"loss": run.accelerator.reduce(torch.stack(losses).mean(), "mean").item()}
        metrics |= collapse_measures(torch.cat(latents))
        if run.probe is not None:
            objective = run.whole_objective()
            if run.accelerator.is_main_process:
                with run.accelerator.autocast():  # in the precision of the run, which takes half the time
                    metrics |= run.probe(objective.encoder.to(run.accelerator.device))
        self.network.train()
        return metrics

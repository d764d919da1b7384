"""The pre-training loop. It knows objectives only through the interface in `objective.py`."""

import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .._utils.hardware import use_faster_attention
from .._utils.optimization import adamw, gradient_norm, set_schedules
from .._utils.processes import StopSignals, is_sharded, on_main_process, send_no_constants, shard, share_of_batch
from ..data.corpus import BatchNormalizer, Corpus, CorpusBatch
from ..data.records import MICROVOLTS_PER_MILLIVOLT, find_database
from ..model.modeling_ecg_jepa import EcgJepaModel
from .checkpointing import METRICS_LOG, SHARDED, Checkpoints, prepare_directory
from .monitoring import Monitor, collapse_measures
from .objective import BatchKey, Objective, StepOutput, count_flops
from .objectives import make_objective
from .recipe import PretrainingRecipe

logger = logging.getLogger(__name__)


class PretrainingRun:
    """What a run works with: the databases of a recipe, its objective, with random weights, and how processes share a batch."""

    def __init__(self, recipe: PretrainingRecipe, accelerator: Accelerator):
        self.recipe, self.accelerator = recipe, accelerator
        self.probe: Callable[[EcgJepaModel], dict[str, float]] | None = None  # returns metrics for evaluations, does not train
        self.changes: list[dict[str, Any]] = []  # of settings and records since the run was begun
        self.output_dir = Path(recipe.output_dir)
        self.metrics_file = self.output_dir / METRICS_LOG
        weights = recipe.database_weights()
        info = find_database(recipe.data_dir, next(iter(weights))).info
        config = recipe.model_config(info.sampling_rate, info.amplitude_free)
        sizes = {"batch_size": recipe.batch_size, "crop_length": config.signal_length, "seed": recipe.seed}
        self.corpus = Corpus.from_weights(recipe.data_dir, weights, **sizes)
        self.normalize = BatchNormalizer(*self.corpus.lead_statistics).to(accelerator.device)
        self.objective = make_objective(config, recipe)
        if not is_sharded(accelerator):  # a process that holds a part of the weights may not have room for all of them
            self.objective.to(accelerator.device)
        if not recipe.torch_compile:
            use_faster_attention(self.objective.model, config.num_patches + config.num_register_tokens, recipe.mixed_precision)
        self.gflop_per_record = count_flops(self.objective) / 1e9
        self.share = accelerator.process_index, accelerator.num_processes
        rows = share_of_batch(recipe.batch_size, accelerator.num_processes)
        self.own_rows = slice(self.share[0] * rows, (self.share[0] + 1) * rows)

    def training(self) -> dict[str, Any]:
        """Return the plain values that decide the weights, which a checkpoint to resume from must share."""
        corpus = self.corpus
        databases = {
            database.name: {"weight": weight, "records": len(records), **database.info.what_models_see()}
            for database, weight, records in zip(corpus.databases, corpus.weights.tolist(), corpus.records, strict=True)
        }
        processes = {"num_processes": self.accelerator.num_processes, **({SHARDED: True} if is_sharded(self.accelerator) else {})}
        return {"recipe": self.recipe.training_settings(), "databases": databases, **processes}

    def inputs(self, batch: CorpusBatch, key: BatchKey, rows: slice | None = None) -> dict[str, torch.Tensor]:
        """Return the arguments of a forward: normalised records, by default this process's `rows` of a batch, and their draws."""
        drawn = self.objective.draw(key, self.recipe.batch_size)
        device, rows = self.accelerator.device, rows or self.own_rows
        inputs = {name: values[rows].to(device, non_blocking=True) for name, values in drawn.items()}
        batch = batch.to(device)
        if self.objective.needs_units:
            inputs["units_per_millivolt"] = MICROVOLTS_PER_MILLIVOLT / self.normalize.std[batch.database][:, :, None]
        return {"input_values": self.normalize(batch), **inputs}

    def latents(self, inputs: dict[str, torch.Tensor], output: StepOutput | None = None) -> torch.Tensor:
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
    held_out = run.corpus.validation_batches(recipe.eval_batches, *run.share) if recipe.eval_steps else []
    checkpoints = Checkpoints(accelerator, run.output_dir, recipe.save_total_limit, run.training(), recipe.allow_changes)
    start = checkpoints.restore(recipe.resume_from_checkpoint, recipe.max_steps)
    run.changes = checkpoints.changes
    on_main_process(accelerator, partial(prepare_directory, recipe, checkpoints, start))
    monitor = Monitor(accelerator, run.metrics_file, start, recipe.max_steps, recipe.stop_on_collapse)
    accumulation = recipe.gradient_accumulation_steps
    if start == 0 and recipe.is_due(-1, recipe.eval_steps):
        monitor.log_evaluation(-1, partial(evaluate, run, network, held_out))
    if start == 0 < recipe.max_steps:
        first = run.corpus.batch(accumulation - 1, *run.share)  # the last batch of the first step
        latents = run.latents(run.inputs(first, BatchKey(recipe.seed, accumulation - 1)))
        monitor.write({"step": 0, **collapse_measures(latents), "gflop_per_record": run.gflop_per_record})
    batches = run.corpus.batches(start * accumulation, *run.share)
    network.train()
    with StopSignals(accelerator) as signals:
        for step in range(start, recipe.max_steps):
            set_schedules(optimizer, recipe.learning_rate_at(step), recipe.weight_decay_at(step))
            losses = []
            for part in range(accumulation):
                inputs = run.inputs(next(batches), BatchKey(recipe.seed, step * accumulation + part))
                # Gradients are averaged over processes once an optimiser step.
                waits = part + 1 < accumulation and not is_sharded(accelerator)
                with accelerator.no_sync(network) if waits else contextlib.nullcontext():
                    output: StepOutput = network(**inputs)
                    accelerator.backward(output.loss / accumulation)
                losses.append(output.loss.detach())
            norm = gradient_norm(accelerator, network, recipe.max_grad_norm)
            is_usable = bool(torch.isfinite(norm))
            if is_usable:
                optimizer.step()
                objective.after_step(step)
                monitor.update(torch.stack(losses).mean(), recipe.batch_size * accumulation)
            else:
                indices = range(step * accumulation, (step + 1) * accumulation)
                records = [name for index in indices for name in run.corpus.record_ids(index)]
                monitor.skip(step, records, run.latents(inputs, output))
            optimizer.zero_grad()

            stop = signals.agreed() if step + 1 < recipe.max_steps else 0
            # While steps are skipped, something is broken: earlier checkpoints are worth more.
            save = is_usable and (recipe.is_due(step, recipe.save_steps) or stop > 0)
            if save or (is_usable and recipe.is_due(step, recipe.logging_steps)):
                rate = recipe.learning_rate_at(step)
                monitor.log(step, run.latents(inputs, output), **output.metrics, grad_norm=norm, learning_rate=rate)
            if recipe.is_due(step, recipe.eval_steps) and not stop:  # a run that is asked to stop may have little time
                monitor.log_evaluation(step, partial(evaluate, run, network, held_out))
            is_saved = save and checkpoints.save(step + 1)
            if stop:
                fate = "is written" if is_saved else "could not be written"
                cause = f"{signal.Signals(stop).name} after {step + 1} steps, its checkpoint {fate}"
                logger.warning(f"Stopped by {cause}: go on with --resume_from_checkpoint latest.")
                accelerator.end_training()
                raise SystemExit(128 + stop)  # as shells have it: 143 for SIGTERM, 130 for SIGINT
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


@torch.no_grad()
def evaluate(run: PretrainingRun, network: Any, batches: Sequence[CorpusBatch]) -> dict[str, float]:
    """Return loss and collapse measures of batches, always with the same draws, and the probe's metrics on the main process."""
    network.eval()
    losses, latents = [], []
    for index, batch in enumerate(batches):
        inputs = run.inputs(batch, BatchKey.held_out(run.recipe.seed, index))
        output = network(**inputs)
        losses.append(output.loss)
        latents.append(run.latents(inputs, output))
    metrics = {"loss": run.accelerator.reduce(torch.stack(losses).mean(), "mean").item()}
    metrics |= collapse_measures(torch.cat(latents))
    if run.probe is not None:
        objective = run.whole_objective()
        if run.accelerator.is_main_process:
            with run.accelerator.autocast():  # in the precision of the run, which takes half the time
                metrics |= run.probe(objective.encoder.to(run.accelerator.device))
    network.train()
    return metrics

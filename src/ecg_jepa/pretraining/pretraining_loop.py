"""The pre-training loop. It names no objective: what it calls of one is in `objective.py`."""

import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator

from .._utils.fsdp import is_sharded, share_out
from .._utils.interruption import OWN_REASON, StopSignals, exit_code
from .._utils.optimization import adamw, gradient_norm, set_schedules
from .._utils.processes import on_main_process, send_no_constants, share_of_batch
from .._utils.run_directory import MODEL_FILES, clear
from .._utils.settings import write_yaml
from ..data.corpus import BatchNormalizer, Corpus, CorpusBatch
from ..data.records import MICROVOLTS_PER_MILLIVOLT, find_database
from ..model.modeling_ecg_jepa import EcgJepaModel
from .checkpointing import SHARDED, Checkpoints
from .flops import count_flops
from .monitoring import Monitor, collapse_measures
from .objective import BatchKey, Objective, StepOutput
from .objectives import objective_class
from .recipe import OF_ONE_START, PretrainingRecipe

logger = logging.getLogger(__name__)

# What a finished run leaves in its folder, in patterns, beside what it leaves on the way.
EXPORTED = ("training_info.json", *(f"pretraining/{name}" for name in MODEL_FILES), "plots/*.png", *MODEL_FILES)
WRITTEN = (*EXPORTED, "metrics.jsonl", "checkpoint-*", "unfinished-checkpoint-*", "abandoned-checkpoint-*")


@dataclass
class PretrainingRun:
    """
    What a run works with.

    Args:
        recipe: of the objective.
        accelerator: of the process.
        corpus: to learn from.
        objective: to learn; trained in place.
        output_dir: for checkpoints and `metrics.jsonl`.
        probe: what to measure of the encoder at evaluations beside loss and collapse, name -> value; it must not train it.
        changes: of settings and records, since the run was begun; filled in when it is resumed.
    """

    recipe: PretrainingRecipe
    accelerator: Accelerator
    corpus: Corpus
    objective: Objective
    output_dir: Path
    probe: Callable[[EcgJepaModel], dict[str, float]] | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.normalize = BatchNormalizer(*self.corpus.lead_statistics()).to(self.accelerator.device)
        rank = self.accelerator.process_index
        share = share_of_batch(self.recipe.batch_size, self.accelerator.num_processes)
        self.own_rows = slice(rank * share, (rank + 1) * share)

    @cached_property
    def gflop_per_record(self) -> float:
        """What a record costs in a training step, in units of 1e9 floating-point operations."""
        return count_flops(self.objective) / 1e9

    @property
    def metrics_file(self) -> Path:
        """The log."""
        return self.output_dir / "metrics.jsonl"

    def with_whole_weights(self) -> "PretrainingRun":
        """
        This run, but where processes hold parts of weights, with all of them on the main process, on the CPU. All processes must
        ask for it.
        """
        if not is_sharded(self.accelerator):
            return self
        weights = self.accelerator.get_state_dict(self.objective)
        if not self.accelerator.is_main_process:
            return self
        with torch.random.fork_rng(devices=[]):  # what is drawn for its first weights must not change what the run draws
            objective = objective_class(self.recipe.objective)(self.objective.config, self.recipe)
        objective.load_state_dict(weights)
        return replace(self, objective=objective.eval())

    def training(self) -> dict[str, Any]:
        """What decides what comes out of the run, as plain values: a checkpoint of another training is not gone on from."""
        weights = self.corpus.weights.tolist()
        return {
            "recipe": self.recipe.what_trains(),
            "databases": {
                d.name: {"weight": weight, "records": len(records), **d.info.what_models_see()}
                for d, weight, records in zip(self.corpus.databases, weights, self.corpus.records, strict=True)
            },
            "num_processes": self.accelerator.num_processes,
            **({SHARDED: True} if is_sharded(self.accelerator) else {}),
        }

    def begin(self, checkpoints: Checkpoints, start: int) -> None:
        """Now that the run is known to be possible: what it is goes into its folder, what it does not go on from goes out."""
        self.changes = checkpoints.changes

        def prepare_folder() -> None:
            clear(self.output_dir, EXPORTED[:-1])  # but for the last, which is replaced below
            if self.recipe.overwrite_output_dir:
                clear(self.output_dir, ("metrics.jsonl",))
                checkpoints.remove()
            checkpoints.leave_behind(start)
            write_yaml(self.recipe, self.output_dir / "training_config.yaml", leave_out=OF_ONE_START)

        on_main_process(self.accelerator, prepare_folder)

    def records_of(self, step: int) -> list[str]:
        """The records of a step's batches, for when it goes wrong."""
        parts = self.recipe.gradient_accumulation_steps
        return [name for part in range(parts) for name in self.corpus.record_ids(step * parts + part)]

    def inputs(
        self, batch: CorpusBatch, key: BatchKey, rows: slice | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """This process's part of a batch (or other `rows`) as the objective takes it: normalised, and what is drawn for it."""
        device = self.accelerator.device
        drawn = self.objective.draw(key, self.recipe.batch_size)
        own = {name: values[rows or self.own_rows].to(device, non_blocking=True) for name, values in drawn.items()}
        batch = batch.to(device)
        if self.objective.needs_units:
            own["units_per_millivolt"] = MICROVOLTS_PER_MILLIVOLT / self.normalize.std[batch.database][:, :, None]
        return self.normalize(batch), own

    def latents(self, output: StepOutput, input_values: torch.Tensor) -> torch.Tensor:
        """Tokens of the encoder meant for use, of the records that the output is of."""
        if output.latents is not None:
            return output.latents
        with self.accelerator.autocast():
            return self.objective.latents(input_values)


def open_corpus(recipe: PretrainingRecipe) -> Corpus:
    """The corpus, cropped to whole patches of the databases' sampling rate."""
    weights = recipe.database_weights()
    rate = find_database(recipe.data_dir, next(iter(weights))).info.sampling_rate
    return Corpus.from_weights(
        recipe.data_dir,
        weights,
        batch_size=recipe.batch_size,
        crop_length=recipe.model_config(rate).signal_length,
        seed=recipe.seed,
    )


def train(run: PretrainingRun) -> None:
    """Train from the last checkpoint, if the recipe asks for it, to the last step."""
    recipe, accelerator, objective = run.recipe, run.accelerator, run.objective
    network, optimizer = prepare(recipe, accelerator, objective)
    evaluate = HeldOut(run, network)
    checkpoints = Checkpoints(
        accelerator,
        run.output_dir,
        recipe.save_total_limit,
        run.training(),
        recipe.allow_changes,
        recipe.trained_by_default(),
    )
    start = checkpoints.restore(recipe.resume_from_checkpoint, recipe.max_steps)
    run.begin(checkpoints, start)
    source = run.metrics_file if checkpoints.resumed_from is None else checkpoints.resumed_from.parent / run.metrics_file.name
    monitor = Monitor(accelerator, run.metrics_file, start, recipe.max_steps, recipe.stop_on_collapse, source)
    accumulation = recipe.gradient_accumulation_steps
    batches = run.corpus.batches(start * accumulation, accelerator.process_index, accelerator.num_processes)

    if start == 0 and recipe.evaluation_due(-1):
        monitor.log_evaluation(-1, evaluate())
    network.train()
    with StopSignals(accelerator) as signals:
        for step in range(start, recipe.max_steps):
            set_schedules(optimizer, recipe.learning_rate_at(step), recipe.weight_decay_at(step))
            losses = []
            for part in range(accumulation):
                input_values, drawn = run.inputs(next(batches), BatchKey(recipe.seed, step * accumulation + part))
                is_complete = part + 1 == accumulation
                with contextlib.nullcontext() if is_complete or is_sharded(accelerator) else accelerator.no_sync(network):
                    output: StepOutput = network(input_values, **drawn)
                    accelerator.backward(output.loss / accumulation)
                losses.append(output.loss.detach())
            norm = gradient_norm(accelerator, network, recipe.max_grad_norm)
            usable = monitor.is_usable(step, norm, run.records_of)
            if step == 0:
                monitor.log_untrained(run.latents(output, input_values), run.gflop_per_record)
            if usable:
                optimizer.step()
                objective.after_step(step)
            optimizer.zero_grad()
            latents = partial(run.latents, output, input_values)  # most objectives compute them only when they are looked at
            monitor.update(step, torch.stack(losses).mean() if usable else None, recipe.batch_size * accumulation, latents)
            figures: dict[str, Any] = {**output.figures, "grad_norm": norm, "learning_rate": recipe.learning_rate_at(step)}
            if recipe.log_due(step) and usable:
                monitor.log(step, latents(), **figures)
            is_last = step + 1 == recipe.max_steps
            asked = signals.agreed(also=bool(monitor.reason_to_stop))
            if recipe.evaluation_due(step) and (not asked or is_last):  # who is asked to stop may have little time
                with monitor.paused():
                    monitor.log_evaluation(step, evaluate())
                asked = asked or signals.agreed(also=bool(monitor.reason_to_stop))
            if asked == OWN_REASON:
                raise FloatingPointError(monitor.reason_to_stop or "Stopped, as --stop_on_collapse asks.")
            written = False
            # While steps are skipped, something is broken: the checkpoints of before are worth more.
            if (asked or recipe.checkpoint_due(step)) and not monitor.skipped_in_a_row:
                if monitor.losses:  # of steps of which no line tells yet: whoever resumes no longer has them
                    monitor.log(step, latents(), **figures)
                written = checkpoints.save(step + 1)
            if asked and not is_last:
                end_early(accelerator, asked, step + 1, written)
            del output, latents, input_values, drawn  # the next forward has use for their memory
    monitor.close()


def prepare(recipe: PretrainingRecipe, accelerator: Accelerator, objective: Objective) -> tuple[Any, Any]:
    """The objective and an optimiser of it, as a run of the recipe uses them."""
    optimizer = adamw([objective], recipe.learning_rate, (recipe.adam_beta1, recipe.adam_beta2), recipe.adam_epsilon)
    network = _with_options(objective, recipe)
    if is_sharded(accelerator):
        if recipe.torch_compile:
            raise ValueError("torch_compile was not tried with FSDP: leave out one of them.")
        return share_out(accelerator, network, optimizer, ["latents"])
    send_no_constants(objective)
    return accelerator.prepare(network, optimizer)


def end_early(accelerator: Accelerator, number: int, steps_done: int, written: bool) -> NoReturn:
    """End a run that was asked to stop, after its checkpoint."""
    kept = "its checkpoint is written" if written else "its checkpoint could not be written"
    logger.warning(
        f"Stopped by {signal.Signals(number).name} after {steps_done} steps, {kept}: go on with --resume_from_checkpoint latest."
    )
    accelerator.end_training()
    raise SystemExit(exit_code(number))


def _with_options(objective: Objective, recipe: PretrainingRecipe) -> Objective:
    if recipe.gradient_checkpointing:
        # transformers renamed it in 5.23 and knows only the old name before.
        getattr(objective.model, "activation_checkpointing_enable", objective.model.gradient_checkpointing_enable)()
    if recipe.torch_compile:
        # What is drawn may change its shape from batch to batch, as masks do.
        objective.compile(dynamic=True)
    return objective


class HeldOut:
    """
    Loss and collapse measures on records of the validation folds, with what is drawn always the same, and the run's probe.

    Raises (when it is made, so that nothing has been trained in vain):
        ValueError: if no database has a validation fold, but the recipe asks for evaluations.
    """

    def __init__(self, run: PretrainingRun, network: Any):
        self.run = run
        self.network = network
        self.batches: list[CorpusBatch] = []
        if run.recipe.eval_steps:
            rank, num_processes = run.accelerator.process_index, run.accelerator.num_processes
            self.batches = run.corpus.validation_batches(run.recipe.eval_batches, rank, num_processes)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """`loss`, those of [`collapse_measures`], and what the probe measures."""
        self.network.eval()
        losses, latents = [], []
        for index, batch in enumerate(self.batches):
            input_values, drawn = self.run.inputs(batch, BatchKey.held_out(self.run.recipe.seed, index))
            output = self.network(input_values, **drawn)
            losses.append(output.loss)
            latents.append(self.run.latents(output, input_values))
        loss = self.run.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
        measures = collapse_measures(torch.cat(latents))
        figures = {"loss": loss, **measures}
        if self.run.probe is not None:
            run = self.run.with_whole_weights()
            if run.accelerator.is_main_process:
                with run.accelerator.autocast():  # in the precision of the run, which takes half the time
                    figures |= self.run.probe(run.objective.encoder.to(run.accelerator.device))
        self.network.train()
        return figures

"""
A training step under the clock: in parts, as a whole, and as it follows on others with a loader.

It is the step of `pretraining/loop.py` with marks between its parts; a test holds that both train the same weights.
"""

import contextlib
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from ..common.hardware import speed_up_cpu
from ..common.optimization import gradient_norm, set_schedules
from ..common.processes import share_of_batch
from ..data.corpus import Corpus, CorpusBatch
from ..data.records import MICROVOLTS_PER_MILLIVOLT
from ..pretraining.checkpointing import Checkpoints
from ..pretraining.loop import PretrainingRun, open_corpus, prepare
from ..pretraining.monitoring import Monitor
from ..pretraining.objective import BatchKey, Objective, StepOutput
from ..pretraining.objectives import objective_class
from ..pretraining.objectives.jepa import Jepa
from ..pretraining.recipe import PretrainingRecipe
from .machine import peak_memory, release, synchronize, take_threads

# In the order of a step. Those of a forward are within it, the others follow each other.
PARTS = (
    *("loader", "masks", "inputs", "forward", "target_forward", "context_forward", "predictor_forward"),
    *("backward", "gradient_norm", "optimizer", "ema", "monitor"),
)
OF_FORWARD = ("target_forward", "context_forward", "predictor_forward")

Mark = Callable[[str], AbstractContextManager[Any]]
Inputs = tuple[torch.Tensor, dict[str, torch.Tensor]]

_PROFILED = 10  # operations that take most time


@dataclass(frozen=True)
class Case:
    """
    What is measured.

    Args:
        recipe: with the number of records that a measured batch has.
        scratch_dir: for the log and a checkpoint; on the disk that runs write to.
        data_dir: with prepared databases; `None`: random signals.
        sampling_rate: of random signals in Hz.
        num_threads: of the CPU; `None`: all cores.
    """

    recipe: PretrainingRecipe
    scratch_dir: str
    data_dir: str | None = None
    sampling_rate: int = 500
    num_threads: int | None = None

    def corpus(self) -> Corpus:
        """The records to read, or what stands for them. Raises `FileNotFoundError` if a database is not there."""
        recipe = self.recipe
        if self.data_dir is None:
            config = recipe.model_config(self.sampling_rate)
            return RandomSignals(recipe.batch_size, len(config.lead_names), config.signal_length, recipe.seed)
        return open_corpus(dataclasses.replace(recipe, data_dir=self.data_dir))


class RandomSignals(Corpus):
    """
    Stands for prepared records where there are none: one batch of noise of 1 mV again and again, which costs nothing to read.

    Args:
        batch_size: records per batch.
        num_leads, crop_length: leads and samples of each.
        seed: of the noise.
    """

    def __init__(self, batch_size: int, num_leads: int, crop_length: int, seed: int = 0):
        # Without databases, there is nothing that the corpus itself could begin with.
        self.databases, self.records, self.weights = [], [], np.zeros(0)
        self.batch_size, self.crop_length, self.seed = batch_size, crop_length, seed
        noise = np.random.default_rng(seed).normal(0.0, MICROVOLTS_PER_MILLIVOLT, (batch_size, num_leads, crop_length))
        self.signal = torch.from_numpy(noise.astype(np.int16))
        if torch.cuda.is_available():
            self.signal = self.signal.pin_memory()

    def lead_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean 0 and standard deviation 1 mV, (1, leads) each."""
        shape = (1, self.signal.shape[1])
        return np.zeros(shape), np.ones(shape)

    def batch(self, index: int, rank: int = 0, num_processes: int = 1, patience: float = 0.0) -> CorpusBatch:
        """The batch, whatever its index."""
        share = share_of_batch(self.batch_size, num_processes)
        rows = slice(rank * share, (rank + 1) * share)
        return CorpusBatch(self.signal[rows], torch.zeros(share, dtype=torch.long))

    def batches(self, start: int = 0, rank: int = 0, num_processes: int = 1) -> Iterator[CorpusBatch]:
        """The batch, without end."""
        while True:
            yield self.batch(start, rank, num_processes)

    def record_ids(self, index: int) -> list[str]:
        """None: noise has no names."""
        return []


class Stopwatch:
    """Seconds between marks, summed up by name in `seconds`; a GPU is waited for at each."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done meanwhile."""
        begun = self.now()
        yield
        self.seconds[name] += self.now() - begun

    def now(self) -> float:
        """Seconds on a clock, once all is done that was asked for."""
        synchronize(self.device)
        return time.perf_counter()


def unmarked(name: str) -> AbstractContextManager[Any]:
    """A mark that nobody looks at: a step as it always is."""
    return contextlib.nullcontext()


class MeasuredStep:
    """
    Objective, optimiser, monitor and corpus of a case, whose steps can be timed. Each of them trains.

    Args:
        case: to measure.
    """

    def __init__(self, case: Case):
        recipe = case.recipe
        self.case = case
        self.recipe = recipe
        self.accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
        take_threads(self.accelerator, case.num_threads)
        speed_up_cpu(self.accelerator)
        set_seed(recipe.seed)
        self.corpus = case.corpus()
        info = self.corpus.databases[0].info if self.corpus.databases else None
        rate, amplitude_free = (info.sampling_rate, info.amplitude_free) if info else (case.sampling_rate, False)
        config = recipe.model_config(rate, amplitude_free)
        self.objective: Objective = objective_class(recipe.objective)(config, recipe).to(self.accelerator.device)
        self.directory = Path(case.scratch_dir)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.run = PretrainingRun(recipe, self.accelerator, self.corpus, self.objective, self.directory)
        self.gflop_per_record = self.run.gflop_per_record  # now, while the objective is as it was made
        self.network, self.optimizer = prepare(recipe, self.accelerator, self.objective)
        self.network.train()
        self.monitor = Monitor(self.accelerator, self.run.metrics_file, 0, recipe.max_steps)
        self.monitor.bar.close()  # of a run that is none

    def describe(self) -> dict[str, Any]:
        """What is known without measuring: cost, and which parts are not measured and why."""
        reasons = {}
        if self.case.data_dir is None:
            reasons["loader"] = "random signals: name prepared databases with --data_dir"
        if self._why_not_apart:
            reasons |= dict.fromkeys(OF_FORWARD, self._why_not_apart)
        return {
            "gflop_per_record": self.gflop_per_record,
            "parameters": self.objective.encoder.num_parameters(),
            "records_per_batch": self.recipe.batch_size,
            "batches_per_step": self.recipe.gradient_accumulation_steps,
            "not_measured": reasons,
        }

    @property
    def _why_not_apart(self) -> str:
        """Why the networks of a forward cannot be told apart; empty if they can."""
        if not isinstance(self.objective, Jepa):
            return f"the objective {self.recipe.objective} has no such part"
        return "compiled, a forward is one" if self.recipe.torch_compile else ""

    def warm_up(self, steps: int) -> None:
        """Take steps of which nothing is kept."""
        for number in range(steps):
            self.step(number, self.corpus.batch)
        release(self.accelerator.device)

    def turn(self, number: int, with_model_step: bool = False) -> dict[str, Any]:
        """
        Time step `number`, which draws the same masks in every variant.

        Args:
            number: of the step.
            with_model_step: also time a step without reading, drawing, copying and logging.

        Returns:
            Seconds: of its `parts` by name, each waited for; of the whole `step`, not waited for in between and its batch in
            memory, as in a run whose loader keeps up; of a `log` line; and of the `model_step`.
        """
        device = self.accelerator.device
        self.step(number, self.corpus.batch)  # the processor was another's meanwhile, and memory was given back
        watch = Stopwatch(device)
        parts, (output, input_values, norm) = self.step_in_parts(number)
        rate = self.recipe.learning_rate_at(self._scheduled(number))
        figures: dict[str, Any] = {**output.figures, "grad_norm": norm, "learning_rate": rate}
        with watch("log"):
            self.monitor.log(number, self.run.latents(output, input_values), **figures)
        del output, input_values, norm
        batches = {index: self.corpus.batch(index) for index in self._indices(number)}
        with watch("step"):
            self.step(number, batches.pop)
        measured = {"parts": parts, "step": watch.seconds["step"], "log": watch.seconds["log"]}
        if with_model_step:
            inputs = [self.run.inputs(self.corpus.batch(index), self._key(index)) for index in self._indices(number)]
            with watch("model_step"):
                self._learn(inputs, number, unmarked)
            measured["model_step"] = watch.seconds["model_step"]
            del inputs
        release(device)
        return measured

    def step_in_parts(self, number: int) -> tuple[dict[str, float], tuple[StepOutput, torch.Tensor, torch.Tensor]]:
        """Step `number` with a mark around each part. Returns seconds by name of the part, and what `step` does."""
        watch = Stopwatch(self.accelerator.device)
        with self._told_apart(watch):
            result = self.step(number, self.corpus.batch, watch)
        parts = dict(watch.seconds)
        parts["inputs"] -= parts["masks"]  # which are drawn there
        if self.case.data_dir is None:
            del parts["loader"]
        return parts, result

    def follow(self, steps: int) -> dict[str, list[float]]:
        """
        Take steps one after the other with batches of the loader's threads, as a run does. Returns seconds: of each `step`, and
        of what it `waits` for a batch. The first is not counted, for which nothing was read ahead.
        """
        batches = self.corpus.batches()
        waits, seconds = [], []
        for number in range(steps + 1):
            watch = Stopwatch(self.accelerator.device)

            def read(index: int, watch: Stopwatch = watch) -> CorpusBatch:
                begun = time.perf_counter()
                batch = next(batches)
                watch.seconds["wait"] += time.perf_counter() - begun
                return batch

            with watch("step"):
                self.step(number, read)
            waits.append(watch.seconds["wait"])
            seconds.append(watch.seconds["step"])
        release(self.accelerator.device)
        return {"waits": waits[1:], "steps": seconds[1:]}

    def write_checkpoint(self) -> dict[str, Any]:
        """Write one. Returns `seconds` and `bytes`. Raises `OSError` if it could not be written."""
        checkpoints = Checkpoints(self.accelerator, self.directory, keep=1, training=self.run.training())
        watch = Stopwatch(self.accelerator.device)
        with watch("checkpoint"):
            written = checkpoints.save(1)
        if not written:
            raise OSError(f"A checkpoint could not be written to {self.directory}: see the warning above.")
        size = sum(path.stat().st_size for path in checkpoints.existing()[0].rglob("*") if path.is_file())
        return {"seconds": watch.seconds["checkpoint"], "bytes": size}

    def memory(self) -> int:
        """Bytes, at most so far."""
        return peak_memory(self.accelerator.device)

    def profile(self, number: int) -> list[dict[str, Any]]:
        """The operations that step `number` spends most time in: name, calls, seconds of their own, and their share of all."""
        from torch.profiler import ProfilerActivity, profile

        on_gpu = self.accelerator.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as profiler:
            self.step(number, self.corpus.batch)
            synchronize(self.accelerator.device)
        release(self.accelerator.device)
        kind = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, kind))
        total = sum(getattr(event, kind) for event in events)
        return [
            {
                "name": event.key,
                "calls": event.count,
                "seconds": getattr(event, kind) / 1e6,
                "share": getattr(event, kind) / total if total else 0.0,
            }
            for event in events[:_PROFILED]
        ]

    def step(
        self, number: int, read: Callable[[int], CorpusBatch], mark: Mark = unmarked
    ) -> tuple[StepOutput, torch.Tensor, torch.Tensor]:
        """
        Step `number` of the loop, from reading to the monitor's count.

        Args:
            number: of the step, by which batches and schedules go.
            read: index of a batch -> the batch.
            mark: what stands around each part.

        Returns:
            What the last batch led to, the batch itself, normalised, and the norm of gradients.
        """

        def inputs() -> Iterator[Inputs]:
            for index in self._indices(number):
                with mark("loader"):
                    batch = read(index)
                with mark("inputs"):
                    made = self.run.inputs(batch, self._key(index))
                yield made

        output, input_values, losses, norm, usable = self._learn(inputs(), number, mark)
        with mark("monitor"):
            loss = torch.stack(losses).mean() if usable else None
            count = self.recipe.batch_size * self.recipe.gradient_accumulation_steps
            self.monitor.update(number, loss, count, partial(self.run.latents, output, input_values))
        return output, input_values, norm

    def _learn(
        self, inputs: Iterable[Inputs], number: int, mark: Mark
    ) -> tuple[StepOutput, torch.Tensor, list[torch.Tensor], torch.Tensor, bool]:
        """From the batches of a step to new weights."""
        recipe, losses, place = self.recipe, [], self._scheduled(number)
        set_schedules(self.optimizer, recipe.learning_rate_at(place), recipe.weight_decay_at(place))
        for input_values, drawn in inputs:
            with mark("forward"):
                output: StepOutput = self.network(input_values, **drawn)
            with mark("backward"):
                self.accelerator.backward(output.loss / recipe.gradient_accumulation_steps)
            losses.append(output.loss.detach())
        with mark("gradient_norm"):
            norm = gradient_norm(self.accelerator, self.network, recipe.max_grad_norm)
            usable = self.monitor.is_usable(number, norm, self.run.records_of)
        if usable:
            with mark("optimizer"):
                self.optimizer.step()
            with mark("ema"):
                self.objective.after_step(place)
        with mark("optimizer"):
            self.optimizer.zero_grad()
        return output, input_values, losses, norm, usable

    def _indices(self, number: int) -> range:
        """Of the batches of a step."""
        parts = self.recipe.gradient_accumulation_steps
        return range(number * parts, (number + 1) * parts)

    def _key(self, index: int) -> BatchKey:
        return BatchKey(self.recipe.seed, index)

    def _scheduled(self, number: int) -> int:
        """A step that the schedules know, where more are measured than the recipe has."""
        return min(number, self.recipe.max_steps - 1)

    @contextlib.contextmanager
    def _told_apart(self, watch: Stopwatch) -> Iterator[None]:
        """Meanwhile, what the objective does within a part is timed on its own where that can be told."""
        objective: Any = self.objective
        objective.draw = _timed(objective.draw, watch, "masks")
        hooks = []
        if not self._why_not_apart:
            objective.encode_targets = _timed(objective.encode_targets, watch, "target_forward")
            hooks += _timed_module(objective.model.context_encoder, watch, "context_forward")
            hooks += _timed_module(objective.model.predictor, watch, "predictor_forward")
        try:
            yield
        finally:
            # The attributes of the object go, and those of its class are seen again.
            del objective.draw
            objective.__dict__.pop("encode_targets", None)
            for hook in hooks:
                hook.remove()


def _timed(function: Callable[..., Any], watch: Stopwatch, name: str) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        with watch(name):
            return function(*args, **kwargs)

    return timed


def _timed_module(module: torch.nn.Module, watch: Stopwatch, name: str) -> list[Any]:
    """Hooks that time the forward of a module."""
    begun: list[float] = []
    before = module.register_forward_pre_hook(lambda *_: begun.append(watch.now()))

    def end(*_: Any) -> None:
        watch.seconds[name] += watch.now() - begun.pop()

    return [before, module.register_forward_hook(end)]

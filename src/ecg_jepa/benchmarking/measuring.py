"""The variants of a configuration in turn (A B A B ...), and the machine's peak between the rounds."""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..common.hardware import fastest_precision
from ..common.settings import make_settings
from ..pretraining.recipe import PretrainingRecipe
from .machine import matmul_rates
from .reference import ReferenceStep
from .settings import BenchmarkSettings
from .step import Case, MeasuredStep
from .variants import Variant, variants_of
from .workers import Worker

logger = logging.getLogger(__name__)

# On a CPU, a batch of more records takes longer, but hardly another time per record.
_RECORDS_ON_CPU = 32


@dataclass
class Measured:
    """
    What was measured of a variant.

    Args:
        label: of the variant.
        changes: in which it differs from the configuration.
        recipe: of the variant, as a run would take it.
        is_reference: whether it is the step of the reference implementation.
        facts: of `describe`.
        turns: of each round, in seconds: what `turn` returned.
        memory: peak in bytes.
        loop: steps one after the other; empty unless records are read.
        checkpoint: seconds and bytes of one; empty for the reference.
        profile: what a step spends most time in, if that was asked for.
    """

    label: str
    changes: dict[str, str]
    recipe: PretrainingRecipe
    is_reference: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)
    memory: int = 0
    loop: dict[str, list[float]] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    profile: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Measurements:
    """
    What was measured of a configuration.

    Args:
        config: its name.
        variants: in the order of their turns.
        peaks: precision -> of each round, rows of a square matrix -> GFLOP/s.
        order: of the turns, as they were: (round, label).
    """

    config: str
    variants: list[Measured]
    peaks: dict[str, list[dict[int, float]]] = field(default_factory=dict)
    order: list[tuple[int, str]] = field(default_factory=list)


def measure(settings: BenchmarkSettings, config: str, device: torch.device, scratch_dir: Path) -> Measurements:
    """
    Measure the variants of a configuration.

    Args:
        settings: of the benchmark.
        config: one of its configurations.
        device: that processes train on.
        scratch_dir: for what runs write; whoever calls removes it.

    Raises:
        FileNotFoundError: if records are not there.
        ValueError: if there is no model for a variant's settings, or the checkout is none.
        OSError: if the process of a variant died.
    """
    variants = [_on_this_machine(v, device) for v in variants_of(config, settings.settings, settings.variants)]
    measurements = Measurements(config, [])
    precisions = dict.fromkeys([*(variant.recipe.mixed_precision for variant in variants), "no"])
    measurements.peaks = {precision: [] for precision in precisions}
    with contextlib.ExitStack() as stack:
        workers: list[Worker] = []
        for number, variant in enumerate(variants):
            case = _case(settings, variant, device, scratch_dir / str(number))
            workers.append(stack.enter_context(Worker(variant.label, MeasuredStep, case)))
            measurements.variants.append(Measured(variant.label, variant.changes, variant.recipe))
        for variant in _references(variants) if settings.against is not None else ():
            case = _case(settings, variant, device, scratch_dir / "reference")
            workers.append(stack.enter_context(Worker(variant.label, ReferenceStep, case, settings.against)))
            measurements.variants.append(Measured(variant.label, variant.changes, variant.recipe, is_reference=True))
        pairs = list(zip(measurements.variants, workers, strict=True))
        for measured, worker in pairs:
            measured.facts = worker.call("describe")
            if measured.is_reference:  # whose networks are those of the variant with its recipe
                ours = next(other for other in measurements.variants if other.recipe is measured.recipe)
                measured.facts["gflop_per_record"] = ours.facts["gflop_per_record"]
            worker.call("warm_up", settings.warmup)
        for number in range(settings.rounds):
            for measured, worker in pairs:
                # Steps go on from those of warming up.
                measured.turns.append(worker.call("turn", settings.warmup + number, settings.against is not None))
                measurements.order.append((number, measured.label))
            for precision, rates in measurements.peaks.items():
                rates.append(matmul_rates(device, precision, settings.matmul_sizes))
            logger.info(f"{config}: round {number + 1} of {settings.rounds} is measured")
        for measured, worker in pairs:
            measured.memory = worker.call("memory")
            if not measured.is_reference:
                if settings.data_dir is not None:
                    measured.loop = worker.call("follow", settings.rounds)
                if settings.profile:
                    measured.profile = worker.call("profile", settings.warmup + settings.rounds)
                measured.checkpoint = worker.call("write_checkpoint")
    return measurements


def _on_this_machine(variant: Variant, device: torch.device) -> Variant:
    """A variant with what `mixed_precision: auto` stands for."""
    if variant.recipe.mixed_precision != "auto":
        return variant
    precision: Any = fastest_precision(device)
    recipe = dataclasses.replace(variant.recipe, mixed_precision=precision)
    return dataclasses.replace(variant, label=f"{variant.label} ({precision})", recipe=recipe)


def _case(settings: BenchmarkSettings, variant: Variant, device: torch.device, scratch_dir: Path) -> Case:
    records = variant.recipe.batch_size
    if "batch_size" not in variant.changes:  # which is what is compared
        on_cpu = device.type == "cpu"
        records = settings.batch_size or (min(records, _RECORDS_ON_CPU) if on_cpu else records)
    values = {name: value for name, value in dataclasses.asdict(variant.recipe).items() if value is not None}
    recipe = make_settings(type(variant.recipe), values | {"batch_size": records, "report_to": []})
    return Case(recipe, str(scratch_dir), settings.data_dir, settings.sampling_rate, settings.num_threads)


def _references(variants: Sequence[Variant]) -> list[Variant]:
    """The reference in each precision in which a variant computes."""
    first = {variant.recipe.mixed_precision: variant for variant in reversed(variants)}
    ordered = dict.fromkeys(variant.recipe.mixed_precision for variant in variants)
    return [
        Variant(f"reference, mixed_precision={precision}", first[precision].changes, first[precision].recipe)
        for precision in ordered
    ]

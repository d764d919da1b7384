"""Settings that all objectives share, by default the paper's for a ViT-S on PTB-XL. Each objective adds its own, beside it."""

import logging
from typing import Any, ClassVar, Literal

from .._utils.optimization import cosine_schedule, linear_schedule, warmup_cosine_schedule
from .._utils.settings import check_at_least, check_seed, check_share, deciding_values, option, settings, shipped_configuration
from ..data.tasks import TaskName
from ..model.configuration_ecg_jepa import EcgJepaConfig

logger = logging.getLogger(__name__)


@settings
class PretrainingRecipe:
    """Settings of every pre-training run, and schedules that follow from them. Steps are optimiser steps, counted from 0."""

    LEAST_STEPS: ClassVar[int] = 1

    # Data
    data_dir: str = option("data/prepared", "folder with prepared databases", run_only=True)
    databases: list[str] = option(["ptb-xl=1.0"], "NAME=WEIGHT of each database; weights sum to 1")
    synthetic_records: int = option(0, "generate and prepare this many synthetic records if there are none yet")
    crop_duration: float = option(10.0, "seconds of signal that the model sees; shorter records are left out")

    # Model
    size: Literal["xs", "s", "b"] = option("s", "published size; the next six override its numbers")
    hidden_size: int | None = option(None, "width of the encoder")
    num_hidden_layers: int | None = option(None, "depth of the encoder")
    num_attention_heads: int | None = option(None, "heads of the encoder")
    pred_hidden_size: int | None = option(None, "width of the predictor")
    pred_num_hidden_layers: int | None = option(None, "depth of the predictor")
    pred_num_attention_heads: int | None = option(None, "heads of the predictor")
    patch_size: int = option(25, "samples per patch")
    position_encoding: Literal["sinusoidal", "rotary"] = option(
        "sinusoidal", "sinusoidal: fixed positions added to tokens; rotary: attention turns with distance, and tokens carry none"
    )

    # Optimisation
    max_steps: int = option(100_000, "optimiser steps of the run; schedules end there")
    batch_size: int = option(2048, "records per batch over all processes")
    gradient_accumulation_steps: int = option(1, "batches per optimiser step")
    learning_rate: float = option(1e-3, "after warm-up")
    final_learning_rate: float = option(1e-6, "at the last step (cosine)")
    warmup_start_learning_rate: float = option(1e-6, "at step 0 (linear warm-up)")
    warmup_steps: int = option(10_000, "optimiser steps of warm-up")
    weight_decay: float = option(0.01, "at step 0")
    final_weight_decay: float = option(0.1, "at the last step (cosine)")
    adam_beta1: float = option(0.9, "AdamW")
    adam_beta2: float = option(0.99, "AdamW")
    adam_epsilon: float = option(1e-6, "AdamW")
    max_grad_norm: float = option(0.0, "clip gradients to this norm; 0 does not clip")

    # The moving average of the encoder, which some objectives learn from
    ema_momentum: float = option(0.998, "of the average at step 0")
    final_ema_momentum: float = option(0.9995, "of the average at the end (linear)")
    exported_weights: Literal["ema", "trained"] = option("ema", "of the encoder that is meant for use: the average, or the last")

    # Run
    output_dir: str = option("runs/pretrain", "folder for checkpoints, logs and the exported encoder", run_only=True)
    resume_from_checkpoint: str | None = option(None, "'latest' or the path of a checkpoint-<step> folder", run_only=True)
    allow_changes: bool = option(False, "resume with other settings or records than before, and record changes", run_only=True)
    stop_on_collapse: bool = option(False, "end the run at a sign of collapse or divergence, not only warn of it", run_only=True)
    overwrite_output_dir: bool = option(False, "remove what another run left in output_dir", run_only=True)
    seed: int = option(0, "of initial weights, crops and masks")
    mixed_precision: Literal["auto", "no", "bf16"] = option(
        "auto", "bf16: compute in bfloat16, weights stay float32; auto: so where this machine is faster with it"
    )
    torch_compile: bool = option(False, "compile the model", run_only=True)
    gradient_checkpointing: bool = option(False, "recompute activations to save memory", run_only=True)
    save_steps: int = option(5_000, "optimiser steps between checkpoints", run_only=True)
    save_total_limit: int = option(2, "checkpoints to keep; older ones are deleted", run_only=True)
    logging_steps: int = option(50, "optimiser steps between log lines", run_only=True)
    eval_steps: int = option(0, "optimiser steps between losses on records of the validation folds; 0 for none", run_only=True)
    eval_batches: int = option(4, "batches of the validation folds, always the same", run_only=True)
    report_to: list[str] = option([], "trackers of Accelerate: tensorboard, wandb, ...", run_only=True)
    probe_task: TaskName | None = option(
        None, "linear-probe this PTB-XL task at every evaluation, and after training beside untrained encoders", run_only=True
    )
    probe_records: int = option(3000, "training records of a linear probe during training, at most", run_only=True)
    probe_seeds: int = option(3, "untrained encoders to compare with", run_only=True)

    objective: str = option("jepa", "what is learned: jepa, mae, ... (docs/reference); --objective NAME --help has its settings")

    def __post_init__(self) -> None:
        self.database_weights()
        counts = ("batch_size", "gradient_accumulation_steps", "save_steps", "save_total_limit", "logging_steps", "eval_batches")
        check_at_least(self, self.LEAST_STEPS, "max_steps")
        check_at_least(self, 1, "patch_size", "probe_records", *counts)
        rates = ("learning_rate", "final_learning_rate", "warmup_start_learning_rate", "weight_decay", "final_weight_decay")
        check_at_least(self, 0, "warmup_steps", "eval_steps", "synthetic_records", "max_grad_norm", "probe_seeds", *rates)
        check_share(self, "adam_beta1", "adam_beta2", below_one=True)
        check_share(self, "ema_momentum", "final_ema_momentum")
        check_seed(self, "seed")
        if self.crop_duration <= 0 or self.adam_epsilon <= 0:
            raise ValueError(f"crop_duration={self.crop_duration} and adam_epsilon={self.adam_epsilon} must be positive.")
        if self.overwrite_output_dir and self.resume_from_checkpoint is not None:
            raise ValueError("overwrite_output_dir removes what resume_from_checkpoint goes on from: choose one of them.")
        if self.warmup_steps >= self.max_steps > 0:
            steps = f"warmup_steps={self.warmup_steps}, max_steps={self.max_steps}"
            rate = self.learning_rate_at(self.max_steps - 1)
            logger.warning(f"The run ends within its warm-up ({steps}), at a learning rate of {rate:.2g}: lower --warmup_steps.")

    def database_weights(self) -> dict[str, float]:
        """Return `databases` as name -> weight. Raise `ValueError` if an entry is not NAME=WEIGHT."""
        weights: dict[str, float] = {}
        for entry in self.databases:
            name, _, text = entry.partition("=")
            try:
                weight = float(text)
            except ValueError:
                weight = 0.0
            if name in weights or not weight > 0:
                raise ValueError(f"databases: {entry!r} is not NAME=WEIGHT with a positive weight, each name once.")
            weights[name] = weight
        if abs(sum(weights.values()) - 1.0) > 1e-6:
            raise ValueError(f"databases: the weights sum to {sum(weights.values()):g}, not to 1.")
        return weights

    def training_settings(self) -> dict[str, Any]:
        """Return the settings that decide the weights, without the databases: their digests say which records they hold."""
        return {name: value for name, value in deciding_values(self).items() if name not in ("databases", "synthetic_records")}

    def configuration(self) -> str | None:
        """Return the shipped configuration that trains the same, whatever the seed and precision; `None` if none does."""
        return shipped_configuration(self, apart_from=("seed", "mixed_precision"))

    def model_config(self, sampling_rate: int, amplitude_free: bool = False) -> EcgJepaConfig:
        """Return the model's configuration for records at `sampling_rate` Hz. Raise `ValueError` if it is inconsistent."""
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads")
        names = [*sizes, *(f"pred_{name}" for name in sizes), "patch_size", "position_encoding"]
        return EcgJepaConfig.from_size(
            self.size,
            sampling_rate=sampling_rate,
            signal_length=whole_patches(self, "crop_duration", self.patch_size, sampling_rate),
            amplitude_free=amplitude_free,
            **{name: getattr(self, name) for name in names if getattr(self, name) is not None},
        )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then cosine."""
        rates = self.learning_rate, self.final_learning_rate
        return warmup_cosine_schedule(step, self.max_steps, *rates, self.warmup_steps, self.warmup_start_learning_rate)

    def weight_decay_at(self, step: int) -> float:
        """Return the weight decay of a step: cosine."""
        return cosine_schedule(step, self.max_steps, self.weight_decay, self.final_weight_decay)

    def momentum_at(self, step: int) -> float:
        """Return the momentum of the average before forward `step`, which follows optimiser step `step - 1`: linear."""
        return linear_schedule(step, self.max_steps, self.ema_momentum, self.final_ema_momentum)

    def is_due(self, step: int, every: int) -> bool:
        """Return whether to do after optimiser step `step` what is done every so many steps (0: never), and after the last."""
        return every > 0 and ((step + 1) % every == 0 or step + 1 == self.max_steps)


def whole_patches(recipe: PretrainingRecipe, name: str, patch_size: int, sampling_rate: int) -> int:
    """Return the duration of that name in samples. Raise `ValueError` unless that is a whole number of patches."""
    seconds = getattr(recipe, name)
    length = round(seconds * sampling_rate)
    if length % patch_size:
        use = f"use {max(1, length // patch_size) * patch_size / sampling_rate:g} s"
        samples = f"{length} samples at {sampling_rate} Hz, no whole number of patches of patch_size={patch_size} samples"
        raise ValueError(f"{name}={seconds} s is {samples}: {use}.")
    return length

"""
Everything that a pre-training run can be told. The defaults are the paper's recipe for a ViT-S, on PTB-XL.

Each objective has a recipe: the common settings and its own, all flat keys of one YAML file. This module imports nothing heavy,
so that `--help` is quick; recipes of other objectives than the default one stand with these, in `objectives/`.
"""

import dataclasses
import logging
import typing
from typing import Any, ClassVar, Literal

from .._utils.schedules import cosine_schedule, linear_schedule, warmup_cosine_schedule
from .._utils.settings import check_at_least, check_seed, check_share, make_settings, option, settings, shipped_configuration
from ..data.task_names import TaskName

if typing.TYPE_CHECKING:
    from ..model.configuration_ecg_jepa import EcgJepaConfig

logger = logging.getLogger(__name__)

# Settings that say how it is started this time, and are not for the next.
OF_ONE_START = frozenset({"resume_from_checkpoint", "allow_changes", "overwrite_output_dir"})

# Settings that say where a run lies and what it tells, not what it trains.
RUN_ONLY = frozenset(
    {
        *("data_dir", "output_dir", "seed", "save_steps", "save_total_limit", "logging_steps"),
        *OF_ONE_START,
        "stop_on_collapse",
        *("eval_steps", "eval_batches", "report_to", "probe_task", "probe_records", "probe_seeds", "torch_compile"),
        "gradient_checkpointing",
    }
)


@settings
class PretrainingRecipe:
    """
    What every objective can be told, and what follows from it at a step.

    Steps count optimiser steps, from 0. Raises `ValueError` for values that do not fit together.
    """

    LEAST_STEPS: ClassVar[int] = 1

    # Data
    data_dir: str = option("data/prepared", "folder with prepared databases")
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
    output_dir: str = option("runs/pretrain", "folder for checkpoints, logs and the exported encoder")
    resume_from_checkpoint: str | None = option(None, "'latest' or the path of a checkpoint-<step> folder")
    allow_changes: bool = option(False, "resume with other settings or records than before, and record what was changed")
    stop_on_collapse: bool = option(False, "end the run at a sign of collapse or divergence instead of warning of it")
    overwrite_output_dir: bool = option(False, "remove what another run left in output_dir")
    seed: int = option(0, "of initial weights, crops and masks")
    mixed_precision: Literal["auto", "no", "bf16"] = option(
        "auto", "bf16: compute in bfloat16, weights stay float32; auto: so where this machine is faster with it"
    )
    torch_compile: bool = option(False, "compile the model")
    gradient_checkpointing: bool = option(False, "recompute activations to save memory")
    save_steps: int = option(5_000, "optimiser steps between checkpoints")
    save_total_limit: int = option(2, "checkpoints to keep; older ones are deleted")
    logging_steps: int = option(50, "optimiser steps between log lines")
    eval_steps: int = option(0, "optimiser steps between losses on records of the validation folds; 0 for none")
    eval_batches: int = option(4, "batches of the validation folds, always the same")
    report_to: list[str] = option([], "trackers of Accelerate: tensorboard, wandb, ...")
    probe_task: TaskName | None = option(
        None, "linear-probe this PTB-XL task at every evaluation, and after training beside untrained encoders"
    )
    probe_records: int = option(3000, "training records of a linear probe during training, at most")
    probe_seeds: int = option(3, "untrained encoders to compare with")

    # What is learned; each objective has settings of its own.
    objective: str = option("jepa", "what is learned: jepa, mae, ... (docs/reference); --objective NAME --help has its settings")

    def __post_init__(self) -> None:
        self.database_weights()
        counts = ("batch_size", "gradient_accumulation_steps", "save_steps", "save_total_limit", "logging_steps", "eval_batches")
        check_at_least(self, self.LEAST_STEPS, "max_steps")
        check_at_least(self, 1, "patch_size", "probe_records", *counts)
        rates = ("learning_rate", "final_learning_rate", "warmup_start_learning_rate", "weight_decay", "final_weight_decay")
        check_at_least(self, 0, "warmup_steps", "eval_steps", "synthetic_records", "max_grad_norm", "probe_seeds", "seed", *rates)
        check_share(self, "adam_beta1", "adam_beta2", below_one=True)
        check_share(self, "ema_momentum", "final_ema_momentum")
        check_seed(self, "seed")
        if self.crop_duration <= 0 or self.adam_epsilon <= 0:
            raise ValueError(f"crop_duration={self.crop_duration} and adam_epsilon={self.adam_epsilon} must be positive.")
        if self.overwrite_output_dir and self.resume_from_checkpoint is not None:
            raise ValueError("overwrite_output_dir removes what resume_from_checkpoint goes on from: choose one of them.")
        if self.warmup_steps >= self.max_steps > 0:
            logger.warning(
                f"The run ends within its warm-up (warmup_steps={self.warmup_steps}, max_steps={self.max_steps}), at a learning "
                f"rate of {self.learning_rate_at(self.max_steps - 1):.2g}: lower --warmup_steps for more than a try."
            )

    def database_weights(self) -> dict[str, float]:
        """`databases` as name -> weight. Raises `ValueError` if an entry is not NAME=WEIGHT."""
        weights: dict[str, float] = {}
        for entry in self.databases:
            name, _, weight = entry.partition("=")
            try:
                weights[name] = float(weight) if name not in weights else float("nan")
            except ValueError:
                weights[name] = float("nan")
            if not weights[name] > 0:
                raise ValueError(f"databases: {entry!r} is not NAME=WEIGHT with a positive weight, each name once.")
        if abs(sum(weights.values()) - 1.0) > 1e-6:
            raise ValueError(f"databases: the weights sum to {sum(weights.values()):g}, not to 1.")
        return weights

    def what_trains(self) -> dict[str, Any]:
        """The settings that decide what comes out; of the records, their digests do."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in RUN_ONLY or f.name == "seed"]
        return {name: getattr(self, name) for name in names if name not in ("databases", "synthetic_records")}

    @classmethod
    def trained_by_default(cls) -> dict[str, Any]:
        """[`what_trains`] of the defaults."""
        return make_settings(cls, {}).what_trains()

    def model_config(self, sampling_rate: int, amplitude_free: bool = False) -> "EcgJepaConfig":
        """
        Configuration of the model for records of `sampling_rate` Hz, in mV or amplitude-free. Raises `ValueError` if it is
        inconsistent.
        """
        from ..model.configuration_ecg_jepa import EcgJepaConfig

        overrides = ("hidden_size", "num_hidden_layers", "num_attention_heads")
        names = [*overrides, *(f"pred_{name}" for name in overrides)]
        numbers = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        length = whole_patches(self, "crop_duration", self.patch_size, sampling_rate)
        return EcgJepaConfig.from_size(
            self.size,
            sampling_rate=sampling_rate,
            signal_length=length,
            patch_size=self.patch_size,
            position_encoding=self.position_encoding,
            amplitude_free=amplitude_free,
            **numbers,
        )

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then cosine."""
        return warmup_cosine_schedule(
            step,
            self.max_steps,
            self.learning_rate,
            self.final_learning_rate,
            self.warmup_steps,
            self.warmup_start_learning_rate,
        )

    def weight_decay_at(self, step: int) -> float:
        """Cosine."""
        return cosine_schedule(step, self.max_steps, self.weight_decay, self.final_weight_decay)

    def momentum_at(self, step: int) -> float:
        """Momentum of the average before forward `step`, which is the one after optimiser step `step - 1` (linear)."""
        return linear_schedule(step, self.max_steps, self.ema_momentum, self.final_ema_momentum)

    def log_due(self, step: int) -> bool:
        """Whether to log after optimiser step `step`."""
        return self._due(step, self.logging_steps)

    def checkpoint_due(self, step: int) -> bool:
        """Whether to save after optimiser step `step`."""
        return self._due(step, self.save_steps)

    def evaluation_due(self, step: int) -> bool:
        """Whether to evaluate on records of the validation folds after optimiser step `step`."""
        return self.eval_steps > 0 and self._due(step, self.eval_steps)

    def _due(self, step: int, every: int) -> bool:
        return (step + 1) % every == 0 or step + 1 == self.max_steps

    def configuration(self) -> str | None:
        """The shipped configuration that trains what this recipe does; `None` if none does."""
        return shipped_configuration(self, RUN_ONLY | {"mixed_precision"})


def whole_patches(recipe: PretrainingRecipe, name: str, patch_size: int, sampling_rate: int) -> int:
    """The duration of that name in samples. Raises `ValueError` unless that is a whole number of patches."""
    seconds = getattr(recipe, name)
    length = round(seconds * sampling_rate)
    if length % patch_size:
        fitting = max(1, length // patch_size) * patch_size / sampling_rate
        raise ValueError(
            f"{name}={seconds} s is {length} samples at {sampling_rate} Hz, no whole number of patches of "
            f"patch_size={patch_size} samples: use {fitting:g} s."
        )
    return length


@settings
class BlockMaskRecipe(PretrainingRecipe):
    """Of objectives that hide blocks of patches, as the paper's does."""

    min_keep_ratio: float = option(0.15, "smallest share of visible patches")
    max_keep_ratio: float = option(0.25, "largest share of visible patches")
    min_block_size: int = option(10, "shortest hidden block, in patches")
    uniform_mask_positions: bool = option(False, "hide all positions equally often, unlike the paper")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_keep_ratio <= self.max_keep_ratio < 1:
            raise ValueError(
                f"min_keep_ratio={self.min_keep_ratio} and max_keep_ratio={self.max_keep_ratio} must lie between 0 and 1, "
                "the first no larger than the second."
            )
        check_at_least(self, 1, "min_block_size")


@settings
class JepaRecipe(BlockMaskRecipe):
    """The paper's objective: `objectives/jepa.py`."""

    masks_per_record: int = option(1, "masks of each record that share one pass of the target encoder")

    # Targets and loss; the paper has none of these
    normalize_targets: bool = option(False, "LayerNorm without parameters on targets")
    target_layers: int = option(1, "targets are the average of the last layers, each normalised, and normalised once more")
    center_targets: bool = option(False, "take the mean over records at the same position out of targets")
    context_loss_weight: float = option(0.0, "of the loss on visible patches, beside that on hidden ones")
    variance_weight: float = option(0.0, "of a penalty on channels of the context encoder that vary less than variance_floor")
    variance_floor: float = option(1.0, "standard deviation below which that penalty begins")
    covariance_weight: float = option(0.0, "of a penalty on what channels of the context encoder have in common (VICReg)")
    spread_of: Literal["tokens", "records"] = option("tokens", "what both penalties look at: visible tokens, or their mean")
    invariance_weight: float = option(
        0.0, "of the squared distance between the mean of visible tokens and that of all tokens of the target encoder"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "masks_per_record", "target_layers")
        check_at_least(self, 0, "context_loss_weight", "variance_weight", "variance_floor", "covariance_weight")
        check_at_least(self, 0, "invariance_weight")
        coupled = self.center_targets or self.variance_weight or self.covariance_weight
        if self.gradient_accumulation_steps > 1 and coupled:
            raise ValueError(
                "center_targets, variance_weight and covariance_weight look at all records of an optimiser step together: use a "
                "larger batch_size instead of gradient_accumulation_steps."
            )

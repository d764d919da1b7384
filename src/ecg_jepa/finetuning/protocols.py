"""Protocols of fine-tuning: the settings of a run, and what follows from them."""

from typing import Literal

from .._utils.optimization import warmup_cosine_schedule
from .._utils.settings import check_at_least, check_seed, check_share, option, settings, shipped_configuration
from ..data.tasks import TASKS, parts_of

PROTOCOLS = ("linear", "attentive", "finetune", "finetune_after_probe")

FAILURE_FILE = "not_scored.json"  # of a sweep, beside a run that it could not score


@settings
class FinetuneSettings:
    """Settings of `ecg-jepa finetune`, by default the attentive probe's; `training/configs/` has each protocol's (paper, §4)."""

    # What
    # The digest of the weights counts instead.
    model_name_or_path: str = option("", "directory or Hub repository; untrained: random:xs|s|b, random:DIRECTORY", run_only=True)
    protocol: Literal["linear", "attentive", "finetune", "finetune_after_probe"] = option(
        "attentive",
        "linear: frozen encoder, mean token -> Linear; attentive: frozen, learned query over all tokens; finetune: all "
        "weights, register -> Linear; finetune_after_probe: all weights, from the directory of a probe",
    )
    task: str = option(
        "all", f"PTB-XL task ({', '.join(TASKS)}), or several joined (superdiagnostic+rhythm); 'all': statements of any database"
    )
    data_dir: str = option("data/prepared", "prepared database, or a folder of several", run_only=True)
    database: str | None = option(None, "which one, if data_dir has several")
    output_dir: str = option("runs/finetune", "folder of the classifier", run_only=True)
    overwrite_output_dir: bool = option(False, "remove what a finished run left in output_dir", run_only=True)

    # Labels
    label_fraction: float = option(1.0, "of the training records of each class, by patient; validation and test stay whole")
    labels_per_class: int | None = option(None, "or so many training records per class")
    min_class_records: int = option(10, "databases other than PTB-XL: statements with fewer records are no classes")
    split_seed: int = option(0, "databases without folds: of the split by patient")

    # Crops, in s
    crop_duration: float = option(2.5, "of training and evaluation crops")
    crop_stride: float = option(1.25, "between evaluation crops, whose logits are averaged")

    readout_layers: int | None = option(None, "last layers whose learned average the head sees; default: 1, or the probe's")

    # Optimisation
    max_steps: int = option(5000, "optimiser steps")
    batch_size: int = option(128, "records per step over all processes")
    learning_rate: float = option(1e-3, "after warm-up")
    final_learning_rate: float = option(1e-3, "at the last step (cosine)")
    warmup_steps: int = option(0, "steps of linear warm-up from 1e-6")
    weight_decay: float = option(0.1, "on weights of Linear and Conv1d layers")
    adam_beta1: float = option(0.9, "AdamW")
    adam_beta2: float = option(0.999, "AdamW")
    dropout: float = option(0.0, "on residual branches and before the classifier")
    max_grad_norm: float = option(1.0, "clip gradients to this norm; 0 does not clip")

    # After training
    calibrate: bool = option(False, "fit a temperature on validation records; it travels with the checkpoint")

    # Run
    eval_steps: int = option(100, "steps between validations; the best checkpoint is kept")
    patience: int = option(5000, "stop after this many steps without a better validation")
    seed: int = option(0, "of the head, crops and order of records")
    mixed_precision: Literal["no", "bf16"] = option("no", "compute in bfloat16")
    report_to: list[str] = option([], "trackers of Accelerate: tensorboard, wandb, ...", run_only=True)

    def __post_init__(self) -> None:
        parts_of(self.task)
        check_at_least(self, 1, "max_steps", "batch_size", "eval_steps", "patience", "min_class_records", "readout_layers")
        rates = ("learning_rate", "final_learning_rate", "weight_decay", "max_grad_norm")
        check_at_least(self, 0, "warmup_steps", *rates)
        check_share(self, "adam_beta1", "adam_beta2", "dropout", below_one=True)
        check_seed(self, "seed", "split_seed")
        duration, stride = self.crop_duration, self.crop_stride
        if duration <= 0 or stride < 0.02:  # a sample at 50 Hz, the lowest rate
            raise ValueError(f"crop_duration={duration} must be positive and crop_stride={stride} at least 0.02 s.")
        if not 0 < self.label_fraction <= 1:
            raise ValueError(f"label_fraction={self.label_fraction} must be more than 0 and at most 1.")
        if self.labels_per_class is not None and (self.labels_per_class < 1 or self.label_fraction != 1.0):
            raise ValueError("labels_per_class must be at least 1, and not be combined with label_fraction.")
        if not self.model_name_or_path:
            raise ValueError("model_name_or_path is missing: name a pre-trained directory, or random:xs, random:s, random:b.")
        if self.pooling is None and self.readout_layers is not None:
            raise ValueError("finetune_after_probe keeps the head of the probe: readout_layers cannot be changed.")
        if self.pooling is None and self.model_name_or_path.startswith("random:"):
            raise ValueError("finetune_after_probe starts from the directory of a probe, not from random weights.")

    @property
    def frozen(self) -> bool:
        """Return whether the encoder stays as it is."""
        return self.protocol in ("linear", "attentive")

    @property
    def pooling(self) -> str | None:
        """Return the head's pooling; `None` keeps the one of the probe."""
        return {"linear": "mean", "attentive": "attentive", "finetune": "register"}.get(self.protocol)

    def learning_rate_at(self, step: int) -> float:
        """Return the rate of linear warm-up, then cosine (constant if both ends are the same)."""
        return warmup_cosine_schedule(step, self.max_steps, self.learning_rate, self.final_learning_rate, self.warmup_steps)

    def configuration(self) -> str | None:
        """Return the shipped configuration of a protocol with these settings, whatever they are applied to; `None` for others."""
        data = ("task", "database", "label_fraction", "labels_per_class", "min_class_records", "split_seed")
        return shipped_configuration(self, apart_from=(*data, "seed", "mixed_precision", "calibrate"))

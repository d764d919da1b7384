"""
The reference implementation's own step (github.com/kweimann/ECG-JEPA), from a checkout of it, on the records and masks of ours.

What runs is what its `pretrain.py` does with a batch that its loader has brought: forward, which moves the target encoder first,
backward, the loss as a number, optimiser. Nothing of it is part of this package. It runs in a process of its own, where its
modules, which have names such as `data`, meet no others.
"""

import dataclasses
import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from ..data.corpus import BatchNormalizer, Corpus
from ..pretraining.objective import BatchKey
from ..pretraining.objectives.jepa import Jepa
from .machine import peak_memory, release, take_threads
from .step import Case, Stopwatch

_EXPECTED = "configs/pretrain/__init__.py with a class Config, and models/__init__.py with a class JEPA"


class ReferenceStep:
    """
    The reference's model and optimiser with the sizes and settings of a case.

    Args:
        case: of the variant that it stands beside; the objective is `jepa`.
        directory: a checkout of the reference implementation.

    Raises:
        ValueError: if the directory is no such checkout, or of another revision than what was read for this.
    """

    def __init__(self, case: Case, directory: str):
        recipe = case.recipe
        self.case = case
        self.accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
        take_threads(self.accelerator, case.num_threads)
        device = self.accelerator.device
        set_seed(recipe.seed)
        self.corpus: Corpus = case.corpus()
        rate = self.corpus.databases[0].info.sampling_rate if self.corpus.databases else case.sampling_rate
        # Draws the same masks.
        self.masks = Jepa(recipe.model_config(rate), recipe)  # type: ignore[arg-type]
        self.normalize = BatchNormalizer(*self.corpus.lead_statistics()).to(device)
        config_class, model_class = _find(directory)
        on_gpu = device.type == "cuda"
        if on_gpu:  # as its script does; of this process alone
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        try:
            config = config_class(**_configuration(self.masks, config_class))
            momentum = itertools.repeat(recipe.ema_momentum)
            self.model = model_class(config=config, momentum_schedule=momentum, use_sdp_kernel=on_gpu).to(device)
            self.optimizer = self.model.get_optimizer(fused=on_gpu)
        except (TypeError, AttributeError) as error:
            raise ValueError(
                f"against: {directory} is of another revision of the reference implementation than 504b4e5, for which this was "
                f"written: {error}"
            ) from error
        self.model.train()

    def describe(self) -> dict[str, Any]:
        """What is known without measuring: as for a [`MeasuredStep`], whose networks compute the same."""
        return {
            "parameters": sum(p.numel() for p in self.model.encoder.parameters()),
            "records_per_batch": self.case.recipe.batch_size,
            "batches_per_step": self.case.recipe.gradient_accumulation_steps,
            "not_measured": {},
        }

    def warm_up(self, steps: int) -> None:
        """Take steps of which nothing is kept."""
        for number in range(steps):
            self._learn(self._inputs(number))
        release(self.accelerator.device)

    def turn(self, number: int, with_model_step: bool = True) -> dict[str, Any]:
        """Seconds of a `model_step`, on the masks that step `number` has in every variant."""
        device = self.accelerator.device
        inputs = self._inputs(number)
        self._learn(inputs)  # as our own, not measured
        watch = Stopwatch(device)
        with watch("model_step"):
            self._learn(inputs)
        del inputs
        release(device)
        return {"model_step": watch.seconds["model_step"]}

    def memory(self) -> int:
        """Bytes, at most so far."""
        return peak_memory(self.accelerator.device)

    def _inputs(self, number: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Records, visible and hidden patches of the batches of a step."""
        recipe, device, made = self.case.recipe, self.accelerator.device, []
        parts = recipe.gradient_accumulation_steps
        for index in range(number * parts, (number + 1) * parts):
            drawn = self.masks.draw(BatchKey(recipe.seed, index), recipe.batch_size)
            signal = self.normalize(self.corpus.batch(index).to(device))
            made.append((signal, drawn["context_mask"].to(device), drawn["target_mask"].to(device)))
        return made

    def _learn(self, inputs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        for signal, visible, hidden in inputs:
            with self.accelerator.autocast():  # on CPUs, too, where its script always computes in float32
                loss = self.model(signal, visible, hidden) / len(inputs)
            loss.backward()
            loss.item()  # it reads every loss at once
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def check_checkout(directory: str) -> None:
    """Raise `ValueError` unless a directory looks like a checkout of the reference implementation; nothing of it is run."""
    missing = [name for name in ("configs/pretrain/__init__.py", "models/__init__.py") if not Path(directory, name).is_file()]
    if missing:
        raise ValueError(
            f"against: {directory} is no checkout of the reference implementation (github.com/kweimann/ECG-JEPA), which has "
            f"{_EXPECTED}: there is no {' nor '.join(missing)}."
        )


def _find(directory: str) -> tuple[Any, Any]:
    """Its classes of settings and of the model."""
    check_checkout(directory)
    sys.path.insert(0, str(Path(directory).resolve()))
    try:
        configs, models = importlib.import_module("configs.pretrain"), importlib.import_module("models")
        return configs.Config, models.JEPA
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ValueError(
            f"against: {directory} cannot be imported as the reference implementation (github.com/kweimann/ECG-JEPA), which has "
            f"{_EXPECTED}: {error}"
        ) from error
    finally:
        sys.path.pop(0)


def _configuration(objective: Jepa, config_class: type) -> dict[str, Any]:
    """Our settings under the reference's names, as far as its class of settings knows them."""
    config, recipe = objective.config, objective.recipe
    values = {
        "sampling_frequency": config.sampling_rate,
        "channels": tuple(config.lead_names),
        "channel_size": config.signal_length,
        "patch_size": config.patch_size,
        "min_block_size": recipe.min_block_size,
        "min_keep_ratio": recipe.min_keep_ratio,
        "max_keep_ratio": recipe.max_keep_ratio,
        "datasets": recipe.database_weights(),
        "dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "pred_dim": config.pred_hidden_size,
        "pred_depth": config.pred_num_hidden_layers,
        "pred_num_heads": config.pred_num_attention_heads,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "dropout": config.hidden_dropout_prob,
        "attn_dropout": config.attention_probs_dropout_prob,
        "num_registers": config.num_register_tokens,
        "bias": config.use_bias,
        "norm_eps": config.layer_norm_eps,
        "layer_scale_eps": config.layerscale_value,
        "steps": recipe.max_steps,
        "batch_size": recipe.batch_size,
        "encoder_momentum": recipe.ema_momentum,
        "final_encoder_momentum": recipe.final_ema_momentum,
        "learning_rate": recipe.learning_rate,
        "final_learning_rate": recipe.final_learning_rate,
        "learning_rate_warmup_steps": recipe.warmup_steps,
        "weight_decay": recipe.weight_decay,
        "final_weight_decay": recipe.final_weight_decay,
        "opt_betas": (recipe.adam_beta1, recipe.adam_beta2),
        "opt_eps": recipe.adam_epsilon,
        "gradient_clip": recipe.max_grad_norm,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "checkpoint_interval": recipe.save_steps,
    }
    names = {field.name for field in dataclasses.fields(config_class)}
    return {name: value for name, value in values.items() if name in names}

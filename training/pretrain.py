"""
Pre-train ECG-JEPA.

    accelerate launch training/pretrain.py --config training/configs/demo.yaml
    accelerate launch training/pretrain.py --config training/configs/vit_s_all.yaml --data_dir PREPARED --output_dir RUN
"""

import contextlib
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from ecg_jepa import EcgJepaForPreTraining, EcgJepaModel
from ecg_jepa.arguments import inputs_of, parse_arguments, write_yaml
from ecg_jepa.cores import describe_hardware, use_all_cores
from ecg_jepa.data.corpus import BatchNormalizer, Corpus
from ecg_jepa.data.records import MICROVOLTS_PER_MILLIVOLT, find_database
from ecg_jepa.data.synthetic import Synthetic, generate_if_absent
from ecg_jepa.evaluation.linear_probe import held_out_records, linear_probe
from ecg_jepa.evaluation.plots import plot_masked_prediction, plot_pretraining, save
from ecg_jepa.evaluation.task_data import TaskData
from ecg_jepa.pretraining.checkpointing import Checkpoints
from ecg_jepa.pretraining.export import export_pretraining
from ecg_jepa.pretraining.monitoring import Monitor, patch_errors
from ecg_jepa.pretraining.optimization import parameter_groups, set_schedules
from ecg_jepa.pretraining.recipe import PretrainingRecipe


def main() -> None:
    recipe = parse_arguments(PretrainingRecipe, description=__doc__)
    output_dir = Path(recipe.output_dir)
    accelerator = Accelerator(
        mixed_precision=recipe.mixed_precision, log_with=recipe.report_to or None, project_dir=recipe.output_dir
    )
    set_seed(recipe.seed)
    use_all_cores(accelerator)
    with accelerator.main_process_first():
        make_synthetic_database(recipe, accelerator)
    with inputs_of("pretrain.py"):
        corpus = open_corpus(recipe)
    config = recipe.model_config(corpus.databases[0].info.sampling_rate)
    model = EcgJepaForPreTraining(config)
    if accelerator.is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_yaml(recipe, output_dir / "training_config.yaml")
    accelerator.init_trackers("ecg_jepa", {k: str(v) for k, v in vars(recipe).items()})

    last_metrics = train(recipe, accelerator, corpus, model, output_dir)

    if accelerator.is_main_process:
        export_pretraining(output_dir, model, corpus, recipe, last_metrics, describe_hardware(accelerator))
        draw_pictures(recipe, corpus, model, output_dir)
        print(f"Encoder exported to {output_dir}: load it with AutoModel.from_pretrained({str(output_dir)!r})")
        if recipe.probe_task:
            compare_with_untrained(recipe, model.ecg_jepa)
    accelerator.end_training()


def make_synthetic_database(recipe: PretrainingRecipe, accelerator: Accelerator) -> None:
    """Generate and prepare synthetic records if the recipe asks for some and there are none."""
    if not recipe.synthetic_records or not accelerator.is_local_main_process:
        return
    raw = Path(recipe.data_dir, f"synthetic-raw-{recipe.synthetic_records}")
    generate_if_absent(raw, recipe.synthetic_records, num_proc=2)
    Synthetic(data_dir=str(raw)).prepare(recipe.data_dir, num_proc=2)


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


def train(
    recipe: PretrainingRecipe, accelerator: Accelerator, corpus: Corpus, model: EcgJepaForPreTraining, output_dir: Path
) -> dict[str, float]:
    """Train `model` in place from the last checkpoint, if asked to, to the last step; return the last log line."""
    optimizer = torch.optim.AdamW(
        parameter_groups([model.context_encoder, model.predictor]),
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
    )
    normalize = BatchNormalizer(*corpus.lead_statistics()).to(accelerator.device)
    if recipe.gradient_checkpointing:
        # transformers renamed it in 5.23 and knows only the old name before.
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    if recipe.torch_compile:
        # The number of visible patches changes from batch to batch.
        model.compile(dynamic=True)
    network, optimizer = accelerator.prepare(model, optimizer)
    checkpoints = Checkpoints(accelerator, output_dir, recipe.save_total_limit)
    start = checkpoints.restore(recipe.resume_from_checkpoint)
    monitor = Monitor(accelerator, output_dir / "metrics.jsonl", start, recipe.max_steps)
    accumulation, rank = recipe.gradient_accumulation_steps, accelerator.process_index
    batches = corpus.batches(start * accumulation, rank, accelerator.num_processes)
    num_patches = model.config.num_patches
    last_metrics: dict[str, float] = {}

    network.train()
    for step in range(start, recipe.max_steps):
        set_schedules(optimizer, recipe.learning_rate_at(step), recipe.weight_decay_at(step))
        losses = []
        for part in range(accumulation):
            batch = next(batches).to(accelerator.device)
            masks = recipe.masks(step * accumulation + part, rank, len(batch.signal), num_patches)
            context_mask, target_mask = (mask.to(accelerator.device) for mask in masks)
            is_last = part + 1 == accumulation
            with contextlib.nullcontext() if is_last else accelerator.no_sync(network):
                output = network(normalize(batch), context_mask, target_mask)
                accelerator.backward(output.loss / accumulation)
            losses.append(output.loss.detach())
        if recipe.max_grad_norm > 0:
            accelerator.clip_grad_norm_(network.parameters(), recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        # The reference moves the target encoder in every forward; here once per optimiser step.
        model.update_target_encoder(recipe.momentum_at(step + 1))
        monitor.update(step, torch.stack(losses).mean(), recipe.batch_size * accumulation)
        if recipe.log_due(step):
            last_metrics = monitor.log(step, output, learning_rate=recipe.learning_rate_at(step))
        if recipe.checkpoint_due(step):
            checkpoints.save(step + 1)
    monitor.close()
    return last_metrics


@torch.no_grad()
def draw_pictures(recipe: PretrainingRecipe, corpus: Corpus, model: EcgJepaForPreTraining, output_dir: Path) -> None:
    """The course of the run; the masks of some records of its last batch, with the error at each hidden patch."""
    save(plot_pretraining(pd.read_json(output_dir / "metrics.jsonl", lines=True)), output_dir / "plots" / "pretraining.png")
    last = recipe.max_steps * recipe.gradient_accumulation_steps - 1
    batch = corpus.batch(last).first(16).to(model.device)
    masks = recipe.masks(last, 0, len(batch.signal), model.config.num_patches)
    context_mask, target_mask = (mask.to(model.device) for mask in masks)
    normalize = BatchNormalizer(*corpus.lead_statistics()).to(model.device)
    model.eval()
    errors = patch_errors(model(normalize(batch), context_mask, target_mask), target_mask, model.config.num_patches)
    lead = model.config.lead_names.index("II") if "II" in model.config.lead_names else 0
    figure = plot_masked_prediction(
        batch.signal[0, lead].cpu().numpy() / MICROVOLTS_PER_MILLIVOLT,
        model.config.sampling_rate,
        model.config.lead_names[lead],
        errors.cpu().numpy(),
        f"Masks and prediction error after {recipe.max_steps} steps",
    )
    save(figure, output_dir / "plots" / "masks.png")


def compare_with_untrained(recipe: PretrainingRecipe, encoder: EcgJepaModel) -> None:
    """Print the linear-probe AUROC of the trained encoder beside encoders with random weights."""
    data = TaskData.load(recipe.data_dir, recipe.probe_task, next(iter(recipe.database_weights())))
    trained = linear_probe(encoder, data)
    untrained = []
    for seed in tqdm(range(recipe.probe_seeds), desc="Probing untrained encoders"):
        set_seed(seed)
        untrained.append(linear_probe(EcgJepaModel(encoder.config).to(encoder.device), data).macro)
    each = ", ".join(f"{value:.3f}" for value in untrained)
    print(
        f"Linear probe, {recipe.probe_task} of {data.database.name}, macro AUROC on {len(held_out_records(data))} held-out "
        f"records: trained {trained.macro:.3f}, untrained {sum(untrained) / len(untrained):.3f} ({each})"
    )
    if trained.left_out:
        print(f"Not scored for lack of examples: {', '.join(trained.left_out)}")


if __name__ == "__main__":
    main()

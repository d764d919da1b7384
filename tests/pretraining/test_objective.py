"""What objectives share, and a new one, as somebody would add it: it works without changes elsewhere."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from ecg_jepa import EcgJepaModel
from ecg_jepa._utils.settings import option, settings
from ecg_jepa.pretraining.objective import Objective, StepOutput, count_flops
from ecg_jepa.pretraining.objectives import OBJECTIVES
from ecg_jepa.pretraining.recipe import PretrainingRecipe


@settings
class PatchMeansRecipe(PretrainingRecipe):
    noise: float = option(0.5, "standard deviation of what is added to the input")


class PatchMeans(Objective[PatchMeansRecipe]):
    """Predict the mean of each patch and lead from a noisy record."""

    summary = "pre-trained by predicting the means of patches"

    def __init__(self, config, recipe):
        super().__init__(config, recipe)
        self.decoder = torch.nn.Linear(config.hidden_size, len(config.lead_names))

    def draw(self, key, batch_size):
        generator = torch.Generator().manual_seed(key.seed + key.index)
        return {"noise": torch.randn(batch_size, len(self.config.lead_names), self.config.signal_length, generator=generator)}

    def forward(self, input_values, noise):
        means = input_values.unflatten(2, (-1, self.config.patch_size)).mean(-1).mT
        tokens = self.model.context_encoder(input_values + self.recipe.noise * noise).last_hidden_state
        loss = torch.nn.functional.mse_loss(self.decoder(self.model.without_registers(tokens)), means)
        return StepOutput(loss, metrics={"share_explained": 1 - loss.detach() / means.var()})


@pytest.fixture
def pretrain(run_script, prepared_dir, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "patch_means", (PatchMeansRecipe, PatchMeans))
    sizes = ("--hidden_size", 32, "--num_hidden_layers", 1, "--num_attention_heads", 4, "--crop_duration", 2.5)
    short = ("--max_steps", 30, "--warmup_steps", 1, "--batch_size", 16, "--learning_rate", 0.01, "--mixed_precision", "no")
    often = ("--save_steps", 15, "--logging_steps", 15, "--eval_steps", 15, "--eval_batches", 2, "--save_total_limit", 5)

    def run(output_dir, *flags):
        data = ("--data_dir", prepared_dir, "--databases", "synthetic=1.0", "--output_dir", output_dir)
        run_script("pretrain", "--objective", "patch_means", *data, *sizes, *short, *often, *flags)
        lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if line["step"] > 0]

    return run


def test_it_trains_exports_probes_and_resumes(pretrain, run_script, prepared_dir, tmp_path, capsys):
    lines = pretrain(tmp_path / "run", "--noise", 0.1, "--probe_task", "superdiagnostic", "--probe_seeds", 1)
    assert [line["step"] for line in lines] == [15, 15, 30, 30]
    assert lines[2]["loss"] < 0.8 * lines[0]["loss"]
    assert lines[3]["eval_loss"] < lines[1]["eval_loss"]
    assert lines[2]["share_explained"] > 0.2
    assert "Linear probe, superdiagnostic" in capsys.readouterr().out

    encoder = AutoModel.from_pretrained(tmp_path / "run")
    assert type(encoder) is EcgJepaModel
    info = json.loads((tmp_path / "run" / "training_info.json").read_text())
    assert (info["objective"], info["settings"]["noise"]) == ("patch_means", 0.1)
    assert (
        "pre-trained by predicting the means of patches, without labels (objective `patch_means`)"
        in (tmp_path / "run" / "README.md").read_text()
    )
    assert {path.name for path in (tmp_path / "run" / "plots").iterdir()} == {"pretraining.png"}
    # The decoder is trained and resumed, but stays at home.
    assert "decoder.weight" in load_file(tmp_path / "run" / "checkpoint-30" / "model.safetensors")
    assert not any("decoder" in name for name in load_file(tmp_path / "run" / "model.safetensors"))

    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-30")
    pretrain(tmp_path / "resumed", "--noise", 0.1, "--resume_from_checkpoint", "latest")
    for name, tensor in load_file(tmp_path / "run" / "model.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "resumed" / "model.safetensors")[name]), name

    task = ("--config", "linear", "--task", "rhythm", "--data_dir", prepared_dir, "--max_steps", 2, "--eval_steps", 1)
    start = ("--model_name_or_path", tmp_path / "run", "--output_dir", tmp_path / "probe", "--batch_size", 8)
    run_script("finetune", *task, *start)
    metrics = json.loads((tmp_path / "probe" / "metrics.json").read_text())
    assert metrics["encoder"]["objective"] == "patch_means"


def test_its_settings_are_flags_of_its_own(pretrain, tmp_path, capsys):
    for flags, message in (
        (("--min_keep_ratio", 0.1), "unknown flag: 'min_keep_ratio'"),
        (("--noise", "loud"), "invalid noise='loud'"),
        (("--objective", "patch_mean"), "there is no objective 'patch_mean': did you mean 'patch_means'?"),
    ):
        with pytest.raises(SystemExit):
            pretrain(tmp_path, *flags)
        assert message in capsys.readouterr().err


def by_hand(config, tokens, width, layers):
    """Forward: projections of attention and MLP, and attention itself; a multiplication and an addition are two."""
    return layers * (2 * tokens * width**2 * (4 + 2 * config.mlp_ratio) + 4 * tokens**2 * width)


def test_count_is_that_of_the_products_by_hand(make_objective):
    objective = make_objective("mae", min_block_size=5, min_keep_ratio=0.2, max_keep_ratio=0.2)
    config = objective.config
    projection = 2 * 10 * 120 * config.hidden_size  # of the visible patches alone
    encoder = by_hand(config, 10 + config.num_register_tokens, config.hidden_size, config.num_hidden_layers)
    predictor = by_hand(config, 50, config.pred_hidden_size, config.pred_num_hidden_layers)
    between = 2 * 50 * config.hidden_size * config.pred_hidden_size
    decoder = 2 * 40 * config.hidden_size * 120
    # Backward takes each product twice, but for the inputs of the first one, which need no gradient.
    expected = 3 * (projection + encoder + predictor + between + decoder) - projection
    assert count_flops(objective) == pytest.approx(expected, rel=0.02)


def test_counting_leaves_the_objective_as_it_was(make_objective):
    objective = make_objective("byol")
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    implementation = objective.config._attn_implementation
    assert count_flops(objective) > 0
    assert objective.config._attn_implementation == implementation
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_no_training_costs_nothing(make_objective):
    assert count_flops(make_objective("random")) == 0

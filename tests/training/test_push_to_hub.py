"""The whole circle: pre-train, fine-tune, export, push, pull without this package, classify."""

import json

import numpy as np
import pytest
from raw_databases import ecg
from transformers import pipeline


@pytest.fixture(scope="module")
def tiny_flags():
    encoder = ("--hidden_size", 32, "--num_hidden_layers", 1, "--num_attention_heads", 4, "--crop_duration", 2.5)
    return (*encoder, "--pred_hidden_size", 16, "--pred_num_hidden_layers", 1, "--pred_num_attention_heads", 2)


@pytest.mark.slow
def test_the_whole_circle(run_script, prepared_dir, tiny_flags, hub, foreign_python, tmp_path, monkeypatch, request, capsys):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    encoder, classifier = tmp_path / "encoder", tmp_path / "classifier"
    data = ("--data_dir", prepared_dir, "--batch_size", 8)
    short = ("--databases", "synthetic=1.0", "--max_steps", 2, "--warmup_steps", 1, "--min_block_size", 5)
    run_script("pretrain", *data, *short, *tiny_flags, "--mixed_precision", "no", "--output_dir", encoder)
    task = ("--config", "training/configs/attentive.yaml", "--task", "rhythm", "--max_steps", 4, "--eval_steps", 2)
    run_script("finetune", *data, *task, "--model_name_or_path", encoder, "--output_dir", classifier)

    run_script("push_to_hub", classifier, "--repo_id", "me/classifier", "--dry_run")
    assert "Nothing was uploaded" in capsys.readouterr().out
    assert not hub.repositories
    for directory in (encoder, classifier):
        run_script("push_to_hub", directory, "--repo_id", f"me/{directory.name}")
    assert "me/classifier (private)" in capsys.readouterr().out
    assert all(repository.private for repository in hub.repositories.values())
    for repository in hub.repositories.values():
        suffixes = {name.rpartition(".")[2] for name in repository.files}
        assert suffixes <= {"safetensors", "json", "jsonl", "yaml", "md", "py"}

    np.save(tmp_path / "record.npy", ecg(5000, 1) / 1000)
    expected = pipeline("ecg-classification", model=str(classifier))(ecg(5000, 1) / 1000, sampling_rate=500, unit="mV")
    code = f"""
import json
import numpy as np
from transformers import AutoModel, pipeline
encoder = AutoModel.from_pretrained("me/encoder", trust_remote_code=True)
classify = pipeline("ecg-classification", model="me/classifier", trust_remote_code=True)
record = np.load({str(tmp_path / "record.npy")!r})
print(json.dumps([encoder.num_parameters(), classify(record, sampling_rate=500, unit="mV")]))
"""
    result = foreign_python(code, **hub.environment())
    assert result.returncode == 0, result.stderr
    num_parameters, scores = json.loads(result.stdout.splitlines()[-1])
    assert num_parameters > 10_000
    assert [entry["label"] for entry in scores] == [entry["label"] for entry in expected]
    np.testing.assert_allclose([e["score"] for e in scores], [e["score"] for e in expected], atol=1e-6)

    assert foreign_python(code, **hub.environment(token="hf_another")).returncode != 0  # private


def test_mistakes_are_named(run_script, tmp_path, hub, capsys):
    with pytest.raises(SystemExit, match=r"push_to_hub\.py: There is no directory"):
        run_script("push_to_hub", tmp_path / "nothing", "--repo_id", "me/x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"cannot be published: config\.json is missing"):
        run_script("push_to_hub", tmp_path / "empty", "--repo_id", "me/x", "--dry_run")
    with pytest.raises(SystemExit):
        run_script("push_to_hub", tmp_path)
    assert "repo_id is missing" in capsys.readouterr().err

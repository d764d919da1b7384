"""The whole command on a tiny model: every variant and every part of it is measured, in turn, and written."""

import json

import pytest
import yaml
from reference_checkout import write_checkout

from ecg_jepa.benchmarking.step import OF_FORWARD, PARTS
from ecg_jepa.commands import main

TINY = {
    **{"size": "xs", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"pred_hidden_size": 16, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
    **{"databases": ["synthetic=1.0"], "crop_duration": 2.5, "min_block_size": 5, "batch_size": 8},
    **{"max_steps": 100, "warmup_steps": 10, "mixed_precision": "bf16"},
}
QUICK = ("--warmup", 1, "--rounds", 2, "--num_threads", 1, "--matmul_sizes", 32)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_records_variants_and_the_reference(run_script, config, prepared_dir, tmp_path, capsys):
    output = tmp_path / "new" / "benchmark.json"
    against = write_checkout(tmp_path / "reference")
    flags = ("--data_dir", prepared_dir, "--settings", "gradient_accumulation_steps=2", "--profile", "--against", against)
    run_script("benchmark", "--configs", config, *QUICK, *flags, "--output_file", output)
    assert [path.name for path in output.parent.iterdir()] == ["benchmark.json"]  # nothing else is left

    results = json.loads(output.read_text())
    assert {"hardware", "cpu", "cores", "threads", "torch", "date", "load_average"} <= set(results["machine"])
    assert results["machine"]["threads"] == 1
    assert results["settings"]["rounds"] == 2
    (summary,) = results["configurations"]
    labels = ["mixed_precision=bf16", "mixed_precision=no", "reference, mixed_precision=bf16", "reference, mixed_precision=no"]
    assert summary["order"] == [[number, label] for number in range(2) for label in labels]
    assert set(summary["peaks"]) == {"bf16", "no"}
    assert all(len(peak["rounds"]) == 2 and peak["gflop_per_second"] > 0 for peak in summary["peaks"].values())

    assert [variant["label"] for variant in summary["variants"]] == labels
    for variant in summary["variants"]:
        ours = not variant["is_reference"]
        assert (variant["records_per_batch"], variant["batches_per_step"], variant["records_of_recipe"]) == (8, 2, 16)
        assert list(variant["seconds"]["parts"]) == (list(PARTS) if ours else [])
        assert list(variant["seconds"]) == (["step", "model_step", "log", "parts"] if ours else ["model_step", "parts"])
        timed = {**variant["seconds"], **variant["seconds"]["parts"]}
        del timed["parts"]
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in timed.values())
        for name in variant["medians"]["parts"]:
            spread = variant["medians"]["parts"][name]
            assert spread["smallest"] <= spread["median"] <= spread["largest"]
        assert len(variant["ratios"]) == 2
        figures = ["records_per_second", "peak_memory_bytes", "projected_hours", "gflop_per_record", "share_of_peak"]
        if ours:
            figures += ["logging_share", "checkpoint_share", "loop_records_per_second"]
            assert 0 <= variant["loader_stall"] < 1
            assert len(variant["loop"]["steps"]) == len(variant["loop"]["waits"]) == 2
            assert variant["checkpoint"]["bytes"] > 0
            assert 0 < len(variant["profile"]) <= 10
            for parts in zip(*(variant["seconds"]["parts"][name] for name in ("forward", *OF_FORWARD)), strict=True):
                assert sum(parts[1:]) < parts[0]
        assert all(variant[name] > 0 for name in figures)
    assert summary["variants"][0]["ratios"] == [1, 1]

    printed = capsys.readouterr().out
    for words in (
        "tiny.yaml: 8 records x 2 a step (the recipe: 16)",
        "- target encoder",
        "share of the peak",
        "time is spent",
    ):
        assert words in printed
    assert "not measured" not in printed


def test_random_signals_and_an_objective_without_a_target_encoder(run_script, config, tmp_path, capsys):
    output = tmp_path / "benchmark.json"
    settings = ("--settings", "mixed_precision=no", "--sampling_rate", 100, "--batch_size", 4)
    variants = ("--variants", "objective=mae,patch_size=10", "objective=jepa,patch_size=10,batch_size=6")
    run_script("benchmark", "--configs", config, *QUICK, *settings, *variants, "--output_file", output)
    (summary,) = json.loads(output.read_text())["configurations"]
    mae, jepa = summary["variants"]
    assert set(PARTS) - set(mae["seconds"]["parts"]) == {"loader", *OF_FORWARD} == set(mae["not_measured"])
    assert set(PARTS) - set(jepa["seconds"]["parts"]) == {"loader"} == set(jepa["not_measured"])
    assert mae["loader_stall"] is None
    assert (mae["records_per_batch"], jepa["records_per_batch"]) == (4, 6)
    printed = capsys.readouterr().out
    assert "not measured: target encoder: the objective mae has no such part" in printed
    assert "name prepared databases with --data_dir" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--variants", "mixed_precison=no"], "unknown setting: 'mixed_precison'; did you mean 'mixed_precision'?"),
        (["--variants", "mixed_precision=fp8"], "with mixed_precision=fp8: invalid mixed_precision='fp8'"),
        (["--variants", "compiled"], "variants: 'compiled' is not NAME=VALUE"),
        (["--variants", "seed=1", "seed=1"], "name each once"),
        (["--settings", "objective=random", "max_steps=0"], "there is no step to measure"),
        (["--configs", "vit_xxl"], "no configuration file vit_xxl"),
        (["--against", ".", "--settings", "position_encoding=rotary"], "has position_encoding=sinusoidal only"),
        (["--against", "."], "is no checkout of the reference implementation (github.com/kweimann/ECG-JEPA), which has configs/"),
        (["--data_dir", "nowhere"], "No prepared database"),
        (["--output_file", "results.csv"], "must end in .json"),
    ],
)
def test_a_mistake_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["benchmark", *words])
    line = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err
    assert message in line
    assert len(line.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.json"))

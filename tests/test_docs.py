"""Do what the pages of `docs/` describe; `mkdocs build --strict` checks their links."""

import importlib
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from raw_databases import STANDARD, ecg, write_record

import ecg_jepa
from ecg_jepa.data.builders.own_records import OwnRecords
from ecg_jepa.data.records import find_database
from ecg_jepa.pretraining.objective import BatchKey

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
CHECKPOINT = "checkpoints/ecg-jepa-xs-100hz"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_reference_has_every_public_name_and_none_that_is_not_there():
    named = [
        name for page in sorted((DOCS / "reference").glob("*.md")) for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)
    ]
    assert {f"ecg_jepa.{name}" for name in ecg_jepa.__all__} <= set(named)
    assert len(set(named)) == len(named)
    for name in named:
        attribute = name.rpartition(".")[2]
        assert attribute in ecg_jepa.__all__ or importlib.import_module(name).__doc__, name


def test_every_page_is_in_the_navigation():
    text = (REPOSITORY / "mkdocs.yml").read_text()
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    listed = {page for section in yaml.safe_load(text)["nav"] for entry in section.values() for page in _leaves(entry)}
    assert pages <= listed
    made = listed - pages
    assert made == set(re.findall(r': "(\S+\.md)"', (DOCS / "site" / "pages.py").read_text()))


def _leaves(entry):
    return [entry] if isinstance(entry, str) else [page for item in entry for page in item.values()]


def test_the_table_of_the_guide_is_prepared_as_it_says(tmp_path, run_script, capsys):
    (text,) = blocks("guides/own_records.md", "csv")
    table = pd.read_csv(io.StringIO(text))
    (tmp_path / "raw" / "arrays").mkdir(parents=True)
    for number, path in enumerate(table["path"]):
        if path.endswith(".hea"):
            write_record(tmp_path / "raw" / path.removesuffix(".hea"), ecg(5000, number))
        else:
            np.save(tmp_path / "raw" / path, ecg(2500, number, rate=250))
    (tmp_path / "raw" / "records.csv").write_text(text)
    run_script("prepare_data", "--database", "own", "--data_dir", tmp_path / "raw", "--output_dir", tmp_path / "prepared")
    printed = capsys.readouterr().out
    said = (DOCS / "guides/own_records.md").read_text()
    for line in printed.splitlines()[1:4]:
        assert line in said
    assert "taken as labels" in printed.splitlines()[1]


@pytest.fixture
def own_database(tmp_path):
    rows = []
    (tmp_path / "raw").mkdir()
    for number in range(12):
        np.save(tmp_path / "raw" / f"a{number}.npy", ecg(5000, number))
        split = "train" if number < 8 else "test"
        layout = {"sampling_rate": 500, "unit": "uV", "lead_names": " ".join(STANDARD)}
        rows.append({"path": f"a{number}.npy", "split": split, **layout, "AF": number % 2, "LVH": number // 2 % 2})
    pd.DataFrame(rows).to_csv(tmp_path / "raw" / "records.csv", index=False)
    OwnRecords(data_dir=str(tmp_path / "raw"), sampling_rate=100, amplitude_free=True).prepare(tmp_path / "prepared")
    return find_database(tmp_path / "prepared")


def test_the_guide_to_trainer_trains(own_database, tmp_path):
    by_map, lazily = blocks("guides/trainer.md", "python")
    quiet = 'max_steps=1, per_device_train_batch_size=4, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True'
    names: dict[str, object] = {}
    for code in (by_map, lazily):
        for old, new in (
            ("data/prepared", tmp_path / "prepared"),
            (CHECKPOINT, REPOSITORY / CHECKPOINT),
            ("runs/", f"{tmp_path}/"),
        ):
            code = code.replace(f'"{old}', f'"{new}')
        assert "max_steps=100" in code
        exec(code.replace("max_steps=100", quiet), names)
    assert len(names["train"]) == 8
    assert "signal" not in names["train"].column_names
    assert names["model"].config.id2label == {0: "AF", 1: "LVH"}
    assert names["trainer"].state.global_step == 1
    np.testing.assert_array_equal(names["lazy"][3]["input_values"], names["dataset"][3]["input_values"])
    assert list(names["lazy"][3]["labels"]) == [1, 1]


def test_the_objective_of_the_guide_is_one(tiny_config, tmp_path):
    code, line = blocks("guides/objective.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    recipe = names["PatchMeansRecipe"](output_dir=str(tmp_path), noise=0.1)
    objective = names["PatchMeans"](tiny_config, recipe)
    drawn = objective.draw(BatchKey(0, 3), 4)
    assert torch.equal(drawn["noise"], objective.draw(BatchKey(0, 3), 4)["noise"])
    output = objective(torch.randn(4, 12, 500), **drawn)
    output.loss.backward()
    assert objective.decoder.weight.grad.abs().max() > 0
    assert line.strip().splitlines()[-1] == 'OBJECTIVES["patch_means"] = (PatchMeansRecipe, PatchMeans)'

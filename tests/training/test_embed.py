import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from clinical_formats import WRITERS
from raw_databases import ecg, write_challenge

from ecg_jepa import EcgJepaConfig, EcgJepaFeatureExtractor, EcgJepaModel
from ecg_jepa.data.records import find_database
from ecg_jepa.formats.wfdb_record import read_wfdb


@pytest.fixture
def encoder_dir(tmp_path):
    torch.manual_seed(0)
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    EcgJepaModel(config).save_pretrained(tmp_path / "encoder")
    EcgJepaFeatureExtractor.for_model(config, 0.1, 0.4).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def through_the_extractor(directory, signal, sampling_rate, **options):
    """As a user embeds one record."""
    extractor = EcgJepaFeatureExtractor.from_pretrained(directory)
    inputs = extractor(signal, sampling_rate=sampling_rate, return_tensors="pt", **options)
    with torch.no_grad():
        return EcgJepaModel.from_pretrained(directory)(**inputs)


def test_a_prepared_database(run_script, encoder_dir, prepared_dir, tmp_path, capsys):
    output = tmp_path / "new" / "vectors.parquet"
    run_script("embed", "--model_name_or_path", encoder_dir, "--data_dir", prepared_dir, "--output_file", output)
    assert "120 records as vectors of 32" in capsys.readouterr().out
    table, database = pd.read_parquet(output), find_database(prepared_dir)
    assert table["record_id"].tolist() == database.column("record_id").tolist()
    assert (table["num_crops"] == 1).all()
    outputs = through_the_extractor(encoder_dir, database.signal(7), 500, unit="uV")
    np.testing.assert_allclose(table["embedding"][7], outputs.pooler_output[0], atol=1e-5)
    assert pq.read_schema(output).metadata[b"model"] == str(encoder_dir).encode()
    assert [path.name for path in output.parent.iterdir()] == ["vectors.parquet"]

    crops = ("--crop_duration", 2.5, "--crop_stride", 1.25, "--pooling", "register")
    flags = ("--model_name_or_path", encoder_dir, "--data_dir", prepared_dir, *crops, "--output_file")
    with pytest.raises(SystemExit, match="is there already: replace it with --overwrite_output_file"):
        run_script("embed", *flags, output)
    with pytest.raises(SystemExit, match="is a folder: name a file in it"):
        run_script("embed", *flags, tmp_path)
    run_script("embed", *flags, output, "--overwrite_output_file")
    table = pd.read_parquet(output)
    assert (table["num_crops"] == 7).all()
    parts = [
        through_the_extractor(encoder_dir, database.signal(7, start, 1250), 500, unit="uV").last_hidden_state[0, 0]
        for start in range(0, 4375, 625)
    ]
    np.testing.assert_allclose(table["embedding"][7], torch.stack(parts).mean(0), atol=1e-5)


def test_crops_are_those_of_the_extractor(run_script, encoder_dir, prepared_dir, tmp_path):
    """As a classifier's are: its encoder has been fine-tuned on crops of that length."""
    extractor = EcgJepaFeatureExtractor.from_pretrained(encoder_dir, crop_duration=2.5, crop_stride=1.25)
    extractor.save_pretrained(encoder_dir)
    flags = ("--model_name_or_path", encoder_dir, "--data_dir", prepared_dir, "--output_file", tmp_path / "v.parquet")
    run_script("embed", *flags)
    assert (pd.read_parquet(tmp_path / "v.parquet")["num_crops"] == 7).all()
    run_script("embed", *flags, "--crop_duration", 5.0, "--overwrite_output_file")
    assert (pd.read_parquet(tmp_path / "v.parquet")["num_crops"] == 2).all()


def test_a_folder_of_wfdb_records(run_script, encoder_dir, tmp_path, capsys):
    raw = tmp_path / "raw"
    for number, samples in enumerate((5000, 4210, 9000, 10, 5000)):
        write_challenge(raw, "georgia", f"E{number:05d}", ecg(samples, number))
    broken = next(raw.rglob("E00004.mat"))
    broken.write_bytes(broken.read_bytes()[:1000])
    output = tmp_path / "vectors.parquet"
    run_script("embed", "--model_name_or_path", encoder_dir, "--records_dir", raw, "--output_file", output)
    printed = capsys.readouterr().out
    assert "3 records as vectors of 32" in printed
    assert "2 records cannot be used" in printed
    table = pd.read_parquet(output).set_index(pd.read_parquet(output)["record_id"].str[-6:])
    assert table.index.tolist() == ["E00000", "E00001", "E00002"]
    assert table["num_crops"].tolist() == [1, 1, 2]  # nothing is padded: the second is embedded as 8.4 s
    record = read_wfdb(next(raw.rglob("E00001.hea"))).ecg
    expected = through_the_extractor(encoder_dir, record.signal, 500, lead_names=record.lead_names)
    np.testing.assert_allclose(table["embedding"]["E00001"], expected.pooler_output[0], atol=1e-5)
    lines = [json.loads(line) for line in (tmp_path / "vectors.rejected.jsonl").read_text().splitlines()]
    assert [(line["record"][-6:], line["reason"]) for line in lines] == [
        ("E00003", "unusable signal"),
        ("E00004", "truncated signal file"),
    ]


def test_a_folder_of_all_formats(run_script, encoder_dir, tmp_path, caplog):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, write in WRITERS.items():
        write(raw / name, ecg(5000, 1), 500)
    (raw / "notes.txt").write_text("none")
    (raw / "table_of_patients.csv").write_text("id,age\n1,50\n")
    (raw / "other.xml").write_text("<html/>")
    (raw / "broken.edf").write_bytes(b"0       broken")
    output = tmp_path / "vectors.parquet"
    with caplog.at_level("WARNING"):
        run_script("embed", "--model_name_or_path", encoder_dir, "--records_dir", raw, "--output_file", output)
    vectors = pd.read_parquet(output).set_index("record_id")["embedding"]
    assert set(vectors.index) == {name.removesuffix(".hea") for name in WRITERS}
    for name in set(vectors.index) - {"muse.xml"}:  # which derives its limb leads from two others, as this record does not
        np.testing.assert_allclose(vectors[name], vectors["wfdb"], atol=1e-4, err_msg=name)
    lines = map(json.loads, (tmp_path / "vectors.rejected.jsonl").read_text().splitlines())
    assert {line["record"]: line["reason"] for line in lines} == {
        "broken.edf": "unknown format",
        "other.xml": "unknown XML",
        "table_of_patients.csv": "no header",
    }
    assert "left out: 1 .txt" in caplog.text


def test_mistakes_are_named(run_script, encoder_dir, prepared_dir, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_script("embed", "--model_name_or_path", encoder_dir)
    assert "name either data_dir" in capsys.readouterr().err
    flags = ("--model_name_or_path", encoder_dir, "--output_file", tmp_path / "vectors.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="has no ECG in it or below"):
        run_script("embed", *flags, "--records_dir", tmp_path / "empty")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.hea").write_text("nothing")
    with pytest.raises(SystemExit, match="None of 1 records can be used"):
        run_script("embed", *flags, "--records_dir", tmp_path / "bad")
    assert not list(tmp_path.glob("*vectors*"))
    with pytest.raises(SystemExit, match="expected whole patches of 25 samples"):
        run_script("embed", *flags, "--data_dir", prepared_dir, "--crop_duration", 0.03)
    config = EcgJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, sampling_rate=250)
    EcgJepaModel(config).save_pretrained(encoder_dir)
    EcgJepaFeatureExtractor.for_model(config, 0, 1).save_pretrained(encoder_dir)
    with pytest.raises(SystemExit, match="prepare it to match"):
        run_script("embed", *flags, "--data_dir", prepared_dir)


def test_implausible_records_are_left_out_unless_they_are_let_pass(run_script, encoder_dir, tmp_path):
    for name, factor in (("E00001", 1), ("E00002", 200)):
        write_challenge(tmp_path / "raw", "georgia", name, np.clip(ecg(5000, 1) * factor, -32767, 32767))
    output = tmp_path / "vectors.parquet"
    arguments = ("--model_name_or_path", encoder_dir, "--records_dir", tmp_path / "raw", "--output_file", output)
    run_script("embed", *arguments)
    assert len(pd.read_parquet(output)) == 1
    (line,) = map(json.loads, (tmp_path / "vectors.rejected.jsonl").read_text().splitlines())
    assert line["reason"] == "implausible amplitude"
    run_script("embed", *arguments, "--allow_implausible", "--overwrite_output_file")
    assert len(pd.read_parquet(output)) == 2


def test_the_extractor_of_another_encoder_is_refused(run_script, encoder_dir, prepared_dir, tmp_path):
    EcgJepaFeatureExtractor(sampling_rate=250).save_pretrained(encoder_dir)
    with pytest.raises(SystemExit, match="its sampling_rate is 250"):
        run_script("embed", "--model_name_or_path", encoder_dir, "--data_dir", prepared_dir, "--output_file", tmp_path / "v")

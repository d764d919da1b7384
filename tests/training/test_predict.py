"""`predict`: every record is in the table, or in the list of refusals with its reason."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from clinical_formats import WRITERS
from raw_databases import STANDARD, ecg, write_record
from tiny_classifier import LABELS, save_classifier
from transformers import pipeline

from ecg_jepa.apps import prediction


@pytest.fixture(scope="module")
def classifier_dir(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("classifier") / "model")


@pytest.fixture
def records(tmp_path):
    """Seven that can be read, in three formats, rates and lengths, and four that cannot."""
    folder = tmp_path / "records"
    for number in range(3):
        write_record(folder / "wfdb" / f"r{number}", ecg(5000, number))
    write_record(folder / "long", ecg(9000, 7))
    write_record(folder / "slow", ecg(2500, 8, rate=250.0), rate=250)
    for number in range(2):
        table = pd.DataFrame(ecg(5000, 20 + number).T / 1000, columns=[f"{name} (mV)" for name in STANDARD])
        table.insert(0, "time (s)", np.arange(5000) / 500)
        table.to_csv(folder / f"table{number}.csv", index=False)
    write_record(folder / "microvolts", ecg(5000, 9), gain="1.0(0)/mV")
    write_record(folder / "short", ecg(500, 10))
    write_record(folder / "torn", ecg(5000, 11))
    (folder / "torn.dat").write_bytes((folder / "torn.dat").read_bytes()[:100])
    (folder / "odd.csv").write_text("a,b\n1,2\n")
    return folder


GOOD = {"wfdb/r0", "wfdb/r1", "wfdb/r2", "long", "slow", "table0.csv", "table1.csv"}
REFUSED = {"microvolts": "implausible amplitude", "short": "too short", "torn": "", "odd.csv": ""}


def read_refused(path):
    lines = path.with_name(f"{path.name}.rejected.jsonl").read_text().splitlines()
    return {line["record"]: line["reason"] for line in map(json.loads, lines)}


def without_suffix(names):
    return {name.removesuffix(".hea") for name in names}


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_folder(run_script, classifier_dir, records, tmp_path, ending, capsys):
    output = tmp_path / f"labels{ending}"
    run_script("predict", "--model_name_or_path", classifier_dir, "--records_dir", records, "--output_file", output)
    table = pd.read_parquet(output) if ending == ".parquet" else pd.read_csv(output)
    assert list(table.columns) == ["record", "label", "probability", "threshold", "decision"]
    assert without_suffix(table["record"]) == GOOD
    assert (table.groupby("record")["label"].agg(set) == set(LABELS)).all()
    refused = read_refused(output)
    assert without_suffix(refused) == set(REFUSED)
    for name, reason in refused.items():
        assert REFUSED[name.removesuffix(".hea")] in reason
    assert "7 of 11 records" in (printed := capsys.readouterr().out)
    assert "1 refused: too short" in printed
    classify = pipeline("ecg-classification", model=str(classifier_dir))
    rows = table[table["record"] == next(name for name in table["record"] if name.startswith("long"))]
    expected = {entry["label"]: entry["score"] for entry in classify(str(records / "long"))}
    for row in rows.to_dict("records"):
        assert row["probability"] == pytest.approx(expected[row["label"]], abs=1e-5)
    by_label = table.drop_duplicates("label").set_index("label")
    assert by_label.loc["AF", "threshold"] == pytest.approx(0.01)
    assert (table[table["label"] == "AF"]["decision"]).all()
    assert pd.isna(by_label.loc["<b>odd</b>", "threshold"])
    assert pd.isna(by_label.loc["<b>odd</b>", "decision"])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("records", output.name, f"{output.name}.json", f"{output.name}.rejected.jsonl")
    }


def test_a_table_declares_what_files_do_not_say(run_script, classifier_dir, records, tmp_path):
    np.save(records / "bare.npy", ecg(2500, 30, rate=250.0))
    columns = {"record_id": ["first", "second"], "path": ["bare.npy", "wfdb/r0"]}
    columns |= {"sampling_rate": [250, None], "unit": ["uV", None], "lead_names": [" ".join(STANDARD), None]}
    pd.DataFrame(columns).to_csv(records / "list.csv", index=False)
    output = tmp_path / "labels.csv"
    run_script("predict", "--model_name_or_path", classifier_dir, "--table", records / "list.csv", "--output_file", output)
    assert list(pd.read_csv(output)["record"].unique()) == ["first", "second"]
    for change, message in (
        ({"unit": "Unit", "sampling_rate": "Sampling rate"}, "column 'Sampling rate': did you mean 'sampling_rate'"),
        ({"path": "file"}, "lacks the column path"),
    ):
        pd.DataFrame(columns).rename(columns=change).to_csv(records / "list.csv", index=False)
        with pytest.raises(SystemExit, match=message):
            run_script(
                "predict", "--model_name_or_path", classifier_dir, "--table", records / "list.csv", "--output_file", output
            )


def test_files_and_mistakes(run_script, classifier_dir, records, tmp_path):
    model = ("--model_name_or_path", classifier_dir, "--output_file", tmp_path / "labels.csv")
    files = [records / "wfdb" / "r1.hea", records / "table1.csv"]
    run_script("predict", *model, "--files", *files)
    assert list(pd.read_csv(tmp_path / "labels.csv")["record"].unique()) == list(map(str, files))
    with pytest.raises(SystemExit, match="of other records, settings or weights"):
        run_script("predict", *model, "--files", files[0])
    run_script("predict", *model, "--files", files[0], "--overwrite_output_file")
    assert list(pd.read_csv(tmp_path / "labels.csv")["record"].unique()) == [str(files[0])]
    with pytest.raises(SystemExit, match="given twice"):
        run_script("predict", *model, "--files", files[0], files[0])
    with pytest.raises(SystemExit) as end:
        run_script("predict", *model)
    assert end.value.code == 2


def test_goes_on_where_it_was_killed(run_script, classifier_dir, records, tmp_path, monkeypatch, capsys):
    flags = ("--model_name_or_path", classifier_dir, "--records_dir", records, "--output_file", tmp_path / "labels.csv")
    run_script("predict", *flags)
    whole = (tmp_path / "labels.csv").read_bytes(), read_refused(tmp_path / "labels.csv")
    run_script("predict", *flags)
    assert "there is nothing to do" in capsys.readouterr().out

    monkeypatch.setattr(prediction, "_RECORDS_A_PART", 3)
    flags = (*flags[:-1], tmp_path / "again.csv")
    write = prediction.PredictionFile.write_part

    def killed(self, number, *arguments):
        if number == 2:
            raise KeyboardInterrupt
        write(self, number, *arguments)

    monkeypatch.setattr(prediction.PredictionFile, "write_part", killed)
    with pytest.raises(SystemExit):
        run_script("predict", *flags)
    assert not (tmp_path / "again.csv").exists()
    monkeypatch.setattr(prediction.PredictionFile, "write_part", write)
    capsys.readouterr()
    run_script("predict", *flags)
    assert "6 had been looked at before" in capsys.readouterr().out
    assert ((tmp_path / "again.csv").read_bytes(), read_refused(tmp_path / "again.csv")) == whole


def test_parts_of_other_records_are_not_gone_on_with(run_script, classifier_dir, records, tmp_path, monkeypatch):
    flags = ("--model_name_or_path", classifier_dir, "--records_dir", records, "--output_file", tmp_path / "labels.csv")
    monkeypatch.setattr(prediction.PredictionFile, "finish", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(SystemExit, match="no space"):
        run_script("predict", *flags)
    monkeypatch.undo()
    changed = records / "table0.csv"
    os.utime(changed, (1, 1))
    with pytest.raises(SystemExit, match="of other records, settings or weights"):
        run_script("predict", *flags)
    run_script("predict", *flags, "--overwrite_output_file")
    assert (tmp_path / "labels.csv").is_file()


# Name of a fault -> what is done to a whole file of a record.
FAULTS = {
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 3]),
    "no-ecg": lambda path: path.write_bytes(b"\x7fELF" + bytes(2000)),
}


def write_sixty(folder):
    """Sixty records in nine formats, four rates and three lengths, of which 39 can be read; returns the names of these."""
    folder.mkdir()
    good = set()
    writers = list(WRITERS.items())
    for number in range(60):
        ending, write = writers[number % len(writers)]
        rate = (500, 250, 1000, 400)[number % 4]
        seconds = (10, 12, 20)[number % 3]
        path = folder / f"r{number:02}-{ending}"
        digital = ecg(round(rate * seconds), number, rate=rate)
        fault = None if number % 3 else ("uV", "short", *FAULTS)[number // 3 % 5]
        if number == 59:
            fault = "two leads"
        if fault == "uV":  # a thousand times as large as an ECG
            digital = np.clip(digital * 70, -32000, 32000).astype(np.int16)
            write(path, digital, rate, step=100.0)
        elif fault == "short":
            write(path, digital[:, : rate // 2], rate)
        elif fault == "two leads":
            write(path, digital[:2], rate, leads=["I", "V1"])
        else:
            write(path, digital, rate)
        if fault in FAULTS:
            FAULTS[fault](path)
        if fault is None:
            good.add(path.name.removesuffix(".hea"))
    return good


@pytest.mark.slow
def test_sixty_records_of_all_kinds_are_in_the_table_or_refused(run_script, classifier_dir, tmp_path, capsys):
    good = write_sixty(tmp_path / "records")
    output = tmp_path / "labels.parquet"
    run_script("predict", "--model_name_or_path", classifier_dir, "--records_dir", tmp_path / "records", "--output_file", output)
    table, refused = pd.read_parquet(output), read_refused(output)
    assert set(table["record"]) == good
    assert len(good) == 39
    assert len(refused) == 21
    assert not set(refused) & good
    assert all(refused.values())
    assert f"{len(good)} of 60 records" in capsys.readouterr().out


def test_what_is_declared_of_all_counts_where_a_file_says_nothing(run_script, classifier_dir, records, tmp_path):
    np.save(records / "bare.npy", ecg(2500, 30, rate=250.0))
    flags = ("--sampling_rate", 250, "--unit", "uV", "--lead_names", ",".join(STANDARD))
    files = [records / "bare.npy", records / "long.hea"]  # the latter has 500 Hz and mV
    output = tmp_path / "labels.csv"
    run_script("predict", "--model_name_or_path", classifier_dir, "--files", *files, "--output_file", output, *flags)
    found = pd.read_csv(output).set_index(["record", "label"])["probability"]
    classify = pipeline("ecg-classification", model=str(classifier_dir))
    for entry in classify(str(files[1])):
        assert found[str(files[1]), entry["label"]] == pytest.approx(entry["score"], abs=1e-5)
    assert str(files[0]) in found.index.get_level_values(0)


def test_nothing_classified_is_no_success(run_script, classifier_dir, tmp_path):
    with pytest.raises(SystemExit, match="None of 1 records could be classified"):
        run_script(
            *("predict", "--model_name_or_path", classifier_dir, "--files", tmp_path / "nothing.dcm"),
            *("--output_file", tmp_path / "labels.csv"),
        )


def test_a_table_stays_until_there_is_another(run_script, classifier_dir, records, tmp_path):
    output = tmp_path / "labels.csv"
    flags = ("predict", "--model_name_or_path", classifier_dir, "--output_file", output)
    run_script(*flags, "--files", records / "long.hea")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("labels*") if path.is_file()}
    for _ in range(2):  # the second time, nothing is finished either
        with pytest.raises(SystemExit, match="None of 1 records could be classified"):
            run_script(*flags, "--files", tmp_path / "nothing.dcm", "--overwrite_output_file")
        assert {path.name: path.read_bytes() for path in tmp_path.glob("labels*") if path.is_file()} == before
    with pytest.raises(SystemExit, match="is of other records, settings or weights"):
        run_script(*flags, "--files", tmp_path / "nothing.dcm")
    output.unlink()
    for _ in range(2):
        with pytest.raises(SystemExit, match="None of 1 records could be classified"):
            run_script(*flags, "--files", tmp_path / "nothing.dcm")
        assert not output.exists()

import numpy as np
import pandas as pd
import pytest
from raw_databases import ecg, read_rejections, write_mimic

from ecg_jepa.data.builders.mimic_iv_ecg import MimicIvEcg
from ecg_jepa.data.records import find_database


@pytest.fixture
def raw(tmp_path):
    signals = [ecg(5000, seed) for seed in range(3)]
    signals[1][4, 100:103] = -32768  # aVF was not recorded there
    signals[1][5, :2] = -32768  # and aVL not at the start
    signals[2][0] = -32768
    write_mimic(tmp_path / "raw", signals)
    return tmp_path / "raw", signals


def test_order_of_leads_and_missing_samples(raw, tmp_path):
    directory, signals = raw
    info = MimicIvEcg(data_dir=str(directory)).prepare(tmp_path)
    assert info.records == 2
    assert info.interpolated_samples == 5
    database = find_database(tmp_path)
    order = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]  # aVL before aVF
    np.testing.assert_array_equal(database.signal(0), signals[0][order] * 5)  # 200 units per mV
    avf, avl = database.signal(1)[[5, 4]]
    expected = np.interp(range(99, 104), [99, 103], signals[1][4, [99, 103]] * 5.0)
    np.testing.assert_allclose(avf[99:104], expected, atol=0.5)
    assert avl[:3].tolist() == [signals[1][5, 2] * 5] * 3
    assert "NaN" in read_rejections(tmp_path / "mimic-iv-ecg")[0]["detail"]


def test_patients_come_from_the_path(raw, tmp_path):
    MimicIvEcg(data_dir=str(raw[0])).prepare(tmp_path)
    database = find_database(tmp_path)
    assert list(database.column("patient_id")) == ["10000000", "10000001"]
    assert list(database.column("record_id")) == ["40000000", "40000007"]


def test_a_row_that_is_missing_or_empty_is_reported(raw, tmp_path):
    table = pd.read_csv(raw[0] / "record_list.csv")
    table.loc[2, "path"] = None
    table.drop(index=1).to_csv(raw[0] / "record_list.csv", index=False)
    MimicIvEcg(data_dir=str(raw[0])).prepare(tmp_path)
    reasons = [line["reason"] for line in read_rejections(tmp_path / "mimic-iv-ecg")]
    assert reasons == ["unusable row", "not in the table", "not in the table"]


def test_only_the_path_is_needed(raw, tmp_path):
    pd.read_csv(raw[0] / "record_list.csv")[["path"]].to_csv(raw[0] / "record_list.csv")
    assert MimicIvEcg(data_dir=str(raw[0])).prepare(tmp_path).records == 2
    pd.DataFrame({"file": ["x"]}).to_csv(raw[0] / "record_list.csv")
    with pytest.raises(ValueError, match="lacks the columns path"):
        MimicIvEcg(data_dir=str(raw[0])).prepare(tmp_path)

import filecmp

import numpy as np
import pandas as pd
import pytest

from ecg_jepa.data.builders.ptb_xl import make_task
from ecg_jepa.data.records import find_database
from ecg_jepa.data.synthetic import ECTOPY, FINDINGS, RHYTHMS, generate_database, simulate, twelve_leads
from ecg_jepa.data.tasks import TASKS

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def record(finding="NORM", rhythm="SR", ectopy="", seed=0):
    signal = twelve_leads(simulate(finding, rhythm, ectopy, np.random.default_rng(seed)))
    return dict(zip(LEADS, signal.astype(int), strict=True))


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("ectopy", ECTOPY)
def test_einthoven_and_goldberger_hold_exactly(finding, ectopy):
    lead = record(finding, ectopy=ectopy)
    np.testing.assert_array_equal(lead["I"] + lead["III"], lead["II"])
    np.testing.assert_array_equal(-2 * lead["aVR"], lead["I"] + lead["II"])
    np.testing.assert_array_equal(2 * lead["aVL"], lead["I"] - lead["III"])
    np.testing.assert_array_equal(2 * lead["aVF"], lead["II"] + lead["III"])


def test_the_relations_hold_in_prepared_files(prepared):
    signal = prepared.signal(11).astype(int)
    np.testing.assert_array_equal(signal[0] + signal[2], signal[1])
    np.testing.assert_array_equal(-2 * signal[3], signal[0] + signal[1])


def typical(finding, lead, measure, **options):
    """Median of a measure over patients."""
    return np.median([measure(record(finding, seed=seed, **options)[lead]) for seed in range(15)])


def peak_intervals(lead_ii):
    """Intervals between R peaks in s: places where the smoothed signal changes fastest, at most one in 0.25 s."""
    smooth = np.convolve(lead_ii, np.ones(10) / 10, mode="valid")
    speed = np.abs(smooth[10:] - smooth[:-10])
    peaks, threshold = [], 0.5 * np.quantile(speed, 0.998)
    for sample in np.flatnonzero(speed > threshold):
        if not peaks or sample - peaks[-1] > 125:
            peaks.append(sample)
    return np.diff(peaks) / 500


def test_classes_differ_where_real_ones_do():
    height = np.max
    depth = np.min
    assert typical("LVH", "V5", height) > 1.4 * typical("NORM", "V5", height)
    assert typical("CRBBB", "V1", height) > 2 * typical("NORM", "V1", height)  # R'
    assert typical("CLBBB", "V1", depth) < 1.2 * typical("NORM", "V1", depth)  # deep S
    assert typical("IMI", "III", depth) < 1.5 * typical("NORM", "III", depth)  # Q
    assert typical("AMI", "V3", height) < 0.7 * typical("NORM", "V3", height)  # R lost


def test_rhythms_differ_in_rate_and_regularity():
    def rate(x):
        return 60 / np.median(peak_intervals(x))

    def irregularity(x):
        intervals = peak_intervals(x)
        return intervals.std() / intervals.mean()

    assert 38 < typical("NORM", "II", rate, rhythm="SBRAD") < 53
    assert 58 < typical("NORM", "II", rate) < 97
    assert 103 < typical("NORM", "II", rate, rhythm="STACH") < 142
    assert typical("NORM", "II", irregularity, rhythm="AFIB") > 3 * typical("NORM", "II", irregularity)


def test_same_seed_same_files(raw_database, tmp_path):
    again = generate_database(tmp_path / "again", 10, seed=3, num_proc=2)
    other = generate_database(tmp_path / "other", 1, seed=4)
    for number in range(1, 11):
        name = f"records500/00000/{number:05d}_hr.dat"
        assert filecmp.cmp(raw_database / name, again / name, shallow=False)
    assert not filecmp.cmp(raw_database / "records500/00000/00001_hr.dat", other / "records500/00000/00001_hr.dat", shallow=False)


def test_labels_and_folds(raw_database, prepared_dir):
    table = pd.read_csv(raw_database / "ptbxl_database.csv")
    assert table.groupby("patient_id").strat_fold.nunique().max() == 1
    assert table.patient_id.duplicated().any()
    assert set(table.strat_fold) == set(range(1, 11))
    database = find_database(prepared_dir)
    seen = {statement for of_record in database.statements() for statement in of_record}
    assert len(seen & (set(FINDINGS) | set(RHYTHMS))) >= 8
    for name in TASKS:
        task = make_task(name, database.statements(), database.statement_table())
        assert task.included.sum() >= 15
        assert len(task.class_names) >= 2


def test_no_records_raise(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        generate_database(tmp_path, 0)

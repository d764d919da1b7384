import numpy as np
import pytest
import wfdb
from raw_databases import STANDARD, ecg, read_rejections, write_challenge, write_record

from ecg_jepa.data.builders import challenge_2021 as challenge
from ecg_jepa.data.builders.ptb_xl import PtbXl
from ecg_jepa.data.corpus import Corpus
from ecg_jepa.data.records import find_database
from ecg_jepa.model.signal_processing_ecg_jepa import condition

NAMES = {
    challenge.ChapmanShaoxing: ("chapman_shaoxing", ["JS00001", "JS10646"]),
    challenge.Ningbo: ("ningbo", ["JS10647", "JS45551"]),
    challenge.Cpsc: ("cpsc_2018", ["A0001", "A6877"]),
    challenge.CpscExtra: ("cpsc_2018_extra", ["Q0001"]),
    challenge.Georgia: ("georgia", ["E00001"]),
    challenge.StPetersburg: ("st_petersburg_incart", ["I0001"]),
    challenge.Ptb: ("ptb", ["S0001"]),
    challenge.PtbXlChallenge: ("ptb-xl", ["HR00001"]),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The challenge's folder with a record or two of every database."""
    directory = tmp_path_factory.mktemp("challenge-2021")
    for seed, (folder, names) in enumerate(NAMES.values()):
        for name in names:
            write_challenge(directory, folder, name, ecg(5000, seed))
    return directory


@pytest.mark.parametrize("builder", NAMES, ids=lambda builder: builder.database)
def test_each_finds_its_own_records(whole, builder):
    folder, names = NAMES[builder]
    for data_dir in (whole, whole / "training", whole / "training" / folder):
        assert [r.record_id for r in builder(data_dir=str(data_dir)).list_records()] == names


def test_records_that_lie_in_one_folder_are_told_apart(tmp_path):
    for _, names in NAMES.values():
        for name in names:
            write_record(tmp_path / name, ecg(50), suffix=".mat")
    for builder, (_, names) in NAMES.items():
        assert [r.record_id for r in builder(data_dir=str(tmp_path)).list_records()] == names


def test_wrong_folders_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        challenge.Georgia(data_dir=str(tmp_path / "absent")).prepare(tmp_path / "out")
    with pytest.raises(ValueError, match="lists no record of georgia"):
        challenge.Georgia(data_dir=str(tmp_path)).prepare(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_age_and_sex(tmp_path):
    headers = {
        "E00001": (["# Age: 61", "# Sex: Female", "# Dx: 164889003,426783006"], 61.0, "female", ["164889003", "426783006"]),
        "E00002": (["#Age: NaN", "#Sex: M", "#Dx: 164889003, Unknown"], None, "male", ["164889003"]),
        "E00003": (["# Age: -1", "# Sex: Unknown", "# Dx: Unknown"], None, None, []),
        "E00004": ([], None, None, []),
    }
    for seed, (name, (comments, *_)) in enumerate(headers.items()):
        write_challenge(tmp_path, "georgia", name, ecg(5000, seed), comments=comments)
    challenge.Georgia(data_dir=str(tmp_path)).prepare(tmp_path)
    rows = find_database(tmp_path).dataset
    for row, (_, age, sex, statements) in zip(rows, headers.values(), strict=True):
        assert (row["age"], row["sex"], row["statements"]) == (age, sex, statements)


def test_cpsc_has_records_of_any_length(tmp_path):
    for seconds in (6, 10, 144):
        write_challenge(tmp_path, "cpsc_2018", f"A{seconds:04d}", ecg(500 * seconds, seconds))
    info = challenge.Cpsc(data_dir=str(tmp_path)).prepare(tmp_path / "ten")
    assert info.rejected == {"short": 1}
    assert "6 s, at least 10 s" in read_rejections(tmp_path / "ten" / "cpsc")[0]["detail"]
    assert find_database(tmp_path / "ten").num_samples.tolist() == [5000, 72_000]
    info = challenge.Cpsc(data_dir=str(tmp_path), min_duration=2.5).prepare(tmp_path / "all")
    assert (info.records, info.rejected) == (3, {})
    np.testing.assert_array_equal(find_database(tmp_path / "all").signal(2), ecg(72_000, 144))


def test_st_petersburg_is_high_passed_and_resampled(tmp_path):
    """Half an hour at 257 Hz, as all of its records are."""
    num_samples = 1800 * 257
    drift = np.linspace(0, 3000, num_samples).astype(np.int16)
    digital = ecg(num_samples, 1, rate=257) + drift
    write_challenge(tmp_path, "st_petersburg_incart", "I0001", digital, rate=257)
    info = challenge.StPetersburg(data_dir=str(tmp_path)).prepare(tmp_path)
    assert info.hours == pytest.approx(0.5)
    database = find_database(tmp_path)
    assert database.num_samples.tolist() == [900_000]
    expected = condition((digital / 1000).astype(np.float32), 257, 500, highpass_cutoff=0.5)
    np.testing.assert_allclose(database.signal(0), expected * 1000, atol=0.51)
    batch = Corpus([database], [1.0], batch_size=4, crop_length=5000).batch(0).signal.numpy()
    starts = [np.flatnonzero((crop[:, 0] == database.signal(0)[:, :-4999].T).all(axis=1)) for crop in batch]
    assert all(len(start) for start in starts)


@pytest.mark.parametrize("gain", ["1000.0(0)/mV", "1000(0)/mv", "1(0)/uV", "4880(-12)/mV"])
def test_unit_and_gain_are_those_of_the_header(tmp_path, gain):
    digital = ecg(5000)
    write_challenge(tmp_path, "georgia", "E00001", digital, gain=gain)
    challenge.Georgia(data_dir=str(tmp_path)).prepare(tmp_path)
    expected = (digital + 12.0) / 4.88 if gain.startswith("4880") else digital
    np.testing.assert_array_equal(find_database(tmp_path).signal(0), np.rint(np.float32(expected / 1000) * np.float32(1000)))


def test_original_ptb(tmp_path):
    """15 leads in lower case at 1000 Hz in two files, no unit, patients as folders."""
    digital = ecg(12_000, 2, rate=1000, num_leads=15)
    path = tmp_path / "patient007" / "s0026lre"
    leads = [name.lower() for name in STANDARD]
    comments = ["", "# age: 81", "# sex: male", "# Diagnose:", "# Reason for admission: Myocardial infarction"]
    write_record(path, digital[:12], rate=1000, leads=leads, gain="2000", comments=comments)
    path.with_suffix(".xyz").write_bytes(digital[12:].T.tobytes())
    lines = path.with_suffix(".hea").read_text().replace("s0026lre 12 ", "s0026lre 15 ").splitlines()
    frank = [
        f"s0026lre.xyz 16 2000 16 0 {row[0]} {row.sum() % 65536} 0 v{axis}" for axis, row in zip("xyz", digital[12:], strict=True)
    ]
    path.with_suffix(".hea").write_text("\n".join([*lines[:13], *frank, *lines[13:]]))
    info = challenge.Ptb(data_dir=str(tmp_path)).prepare(tmp_path / "out")
    assert (info.records, info.rejected, info.bad_checksums) == (1, {}, 0)
    database = find_database(tmp_path / "out")
    row = database.dataset[0]
    assert (row["patient_id"], row["age"], row["sex"]) == ("patient007", 81.0, "male")
    assert row["statements"] == ["Myocardial infarction"]
    expected = condition((digital[:12] / 2000).astype(np.float32), 1000, 500)
    np.testing.assert_allclose(database.signal(0), expected * 1000, atol=0.51)


def test_files_without_their_partner_are_rejected(tmp_path):
    for seed, name in enumerate(("E00001", "E00002", "E00003")):
        write_challenge(tmp_path, "georgia", name, ecg(5000, seed))
    folder = tmp_path / "training" / "georgia" / "g1"
    (folder / "E00001.hea").unlink()
    (folder / "E00003.mat").unlink()
    info = challenge.Georgia(data_dir=str(tmp_path)).prepare(tmp_path)
    assert info.rejected == {"missing header": 1, "missing signal file": 1}


def test_copies_of_ptb_xl_are_not_for_pretraining(whole, tmp_path):
    challenge.PtbXlChallenge(data_dir=str(whole)).prepare(tmp_path)
    with pytest.raises(ValueError, match="not for pre-training"):
        Corpus([find_database(tmp_path)], [1.0], batch_size=4, crop_length=5000)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("builder", "prefixes", "count", "rejected"),
    [
        (challenge.Georgia, ("E0000", "E00010", "E075"), 30, {}),
        (challenge.Ningbo, ("JS200", "JS455"), 28, {"flat": 2}),
        (challenge.PtbXlChallenge, ("HR060",), 10, {}),
    ],
    ids=["georgia", "ningbo", "ptb-xl-challenge"],
)
def test_real_records(real_data, tmp_path, builder, prefixes, count, rejected):
    info = builder(data_dir=str(real_data / "cinc2021")).prepare(tmp_path)
    assert (info.records, info.rejected, info.bad_checksums) == (count, rejected, 0)
    database = find_database(tmp_path)
    for index, name in enumerate(database.column("record_id")):
        assert name.startswith(prefixes)
        expected = wfdb.rdrecord(str(real_data / "cinc2021" / name))
        assert [lead.lower() for lead in expected.sig_name] == [lead.lower() for lead in database.info.lead_names]
        assert np.abs(database.signal(index) - expected.p_signal.T * 1000).max() <= 0.5
    assert all(code.isdigit() for codes in database.statements() for code in codes)
    assert all(database.statements())


@pytest.mark.slow
@pytest.mark.real_data
def test_copies_of_ptb_xl_have_its_shape_and_leads(real_data, tmp_path):
    challenge.PtbXlChallenge(data_dir=str(real_data / "cinc2021")).prepare(tmp_path)
    PtbXl(data_dir=str(real_data / "ptb-xl-500")).prepare(tmp_path, num_proc=2)
    copies, originals = find_database(tmp_path, "ptb-xl-challenge"), find_database(tmp_path, "ptb-xl")
    assert copies.info.lead_names == originals.info.lead_names
    assert {copies.signal(i).shape for i in range(10)} == {originals.signal(i).shape for i in range(10)} == {(12, 5000)}


@pytest.mark.real_data
def test_real_original_ptb(real_data, tmp_path):
    assert challenge.Ptb(data_dir=str(real_data / "ptb")).prepare(tmp_path).records == 1
    database = find_database(tmp_path)
    record = wfdb.rdrecord(str(real_data / "ptb" / "s0010_re"))
    expected = condition(record.p_signal.T[:12].astype(np.float32), 1000, 500)
    np.testing.assert_allclose(database.signal(0), expected * 1000, atol=0.51)
    row = database.dataset[0]
    assert (row["age"], row["sex"], row["statements"]) == (81.0, "female", ["Myocardial infarction"])


@pytest.mark.real_data
def test_files_of_another_kind_are_rejected(real_data, tmp_path):
    """CPSC 2018 as first released: MATLAB structures without headers."""
    with pytest.raises(ValueError, match="'missing header': 10"):
        challenge.Cpsc(data_dir=str(real_data / "cpsc2018-original")).prepare(tmp_path)

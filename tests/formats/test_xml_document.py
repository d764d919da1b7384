import re

import numpy as np
import pytest
import sierraecg
from clinical_formats import edited, write_aecg, write_muse, write_philips
from ecgdatakit.parsing.parser import FileParser
from raw_databases import STANDARD, ecg

from ecg_jepa import read_ecg
from ecg_jepa.formats import read, xml_document
from ecg_jepa.formats.ecg import RecordError, reading

DIGITAL = ecg(1000, 1)

WRITERS = (write_aecg, write_muse, write_philips)
UNITS = [(write_muse, r"<LeadAmplitudeUnits>\w+</LeadAmplitudeUnits>"), (write_philips, r"<resolution.*?</resolution>")]

ATTACKS = {
    "bomb": '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>",
    "external entity": '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    "parameter entity": '<!DOCTYPE r [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]>',
    "own DTD": "<!DOCTYPE r [<!ELEMENT r ANY>]>",
    "unparsed entity": '<!DOCTYPE r [<!NOTATION n SYSTEM "n"><!ENTITY a SYSTEM "a.gif" NDATA n>]>',
}


@pytest.mark.parametrize(
    ("write", "old", "new", "message"),
    [
        (write_aecg, r'<scale value="1" unit="uV"/>', '<scale value="1" unit="mmHg"/>', "Unknown unit 'mmHg'|origin in"),
        (write_aecg, r'(LEAD_I"/>.*?<scale value="1") unit="uV"/>', r"\1/>", r"unit of some leads only \(leads \[0\]"),
        (write_aecg, r"<increment [^>]*/>", "", "increment is '', expected a positive number"),
        (write_aecg, r"<digits>", "<digits>x ", "could not convert string"),
        (write_aecg, r"<digits>", "<digits>nan ", "some that are no numbers"),
        (write_aecg, r'(LEAD_I"/>.*?<digits>)', r"\g<1>1 ", "several lengths .*: I 1001, II 1000"),
        (write_aecg, r'<code code="RHYTHM"/>', '<code code="OTHER"/>', "no rhythm"),
        (write_muse, r"<SampleBase>500</SampleBase>", "", "SampleBase is '', expected a positive number"),
        (write_muse, r"<WaveFormData>", "<WaveFormData>?", "is no base64"),
        (write_muse, r"<WaveFormData>", "<WaveFormData>AAAAAAAA", "LeadByteCountTotal of lead I is 2000, its data have 2006"),
        (write_muse, r"<LeadSampleSize>2<", "<LeadSampleSize>4<", "has samples of 4 bytes, expected 2"),
        (write_muse, r"<LeadID>I<", "<LeadID><", "LeadData without LeadID"),
        (write_muse, r"MICROVOLTS", "FURLONGS", "Unknown unit 'FURLONGS'"),
        (write_philips, r'compression="XLI"', 'compression="ZIP"', "compressed by 'ZIP', expected XLI or none"),
        (write_philips, r'dataencoding="Base64" c', 'dataencoding="Hex" c', "encoded as 'Hex'"),
        (write_philips, r'durationperchannel="2000"', 'durationperchannel="9000"', "wrong length|damaged XLI"),
        (write_philips, r'durationperchannel="2000"', 'durationperchannel="1e300"', "too large"),
        (write_philips, r'leadlabels="I II', 'leadlabels="II I', "expected the six limb leads first"),
        (write_philips, r'leadlabels="[^"]*"', "", None),
        (write_philips, r'unit="uVperLsb"', 'unit="furlong"', "a resolution in 'furlong', expected uV"),
        (write_philips, r"<parsedwaveforms", "<parsedwaveforms/><parsedwaveforms", "2 parsedwaveforms"),
    ],
)
def test_documents_in_words(tmp_path, write, old, new, message):
    path = edited(write(tmp_path / "a.xml", DIGITAL, 500), (old, new))
    if message is None:
        assert read_ecg(path).lead_names == list(STANDARD)
        return
    with pytest.raises(RecordError, match=message):
        read_ecg(path)


@pytest.mark.parametrize(("write", "old"), UNITS)
def test_no_unit_is_said_to_be_none(tmp_path, write, old):
    path = edited(write(tmp_path / "a.xml", DIGITAL, 500), (old, ""))
    assert read_ecg(path).unit is None
    assert read_ecg(path, unit="uV").unit == "mV"


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("write", WRITERS)
def test_entities_and_dtds_of_their_own_are_refused(tmp_path, attack, write):
    text = re.sub(r"<\?xml.*?\?>\s*(<!DOCTYPE[^>]*>)?", "", write(tmp_path / "a.xml", DIGITAL, 500).read_text())
    entity = "&i;" if attack == "bomb" else "&a;"
    (tmp_path / "a.xml").write_text(ATTACKS[attack] + text.replace("<digits>", f"<digits>{entity}"))
    with pytest.raises(RecordError) as caught:
        read_ecg(tmp_path / "a.xml")
    assert caught.value.reason in ("forbidden XML", "unknown XML")


def test_a_dtd_elsewhere_is_not_looked_at(tmp_path):
    """MUSE's exports name one; and an entity that only it could declare is refused."""
    (tmp_path / "restecg.dtd").write_text('<!ENTITY a "1">')
    path = write_muse(tmp_path / "a.xml", DIGITAL, 500)
    assert 'SYSTEM "restecg.dtd"' in path.read_text()
    np.testing.assert_allclose(read_ecg(path).signal[0], DIGITAL[0] / 1000, atol=1e-6)
    edited(path, ("<SampleExponent>0", "<SampleExponent>&a;"))
    with pytest.raises(RecordError, match=r"forbidden XML|undefined entity"):
        read_ecg(path)


def test_depth_and_number_of_elements_are_bounded(tmp_path, monkeypatch):
    (tmp_path / "a.xml").write_text("<RestingECG>" + "<a>" * 100_000)
    with pytest.raises(RecordError, match="too large"):
        read_ecg(tmp_path / "a.xml")
    monkeypatch.setattr(xml_document, "_MOST_NODES", 1000)
    (tmp_path / "b.xml").write_text("<RestingECG>" + "<a b='c'/>" * 500)
    with pytest.raises(RecordError, match="too large"):
        read_ecg(tmp_path / "b.xml")
    monkeypatch.setitem(read._READERS, "XML", (read._READERS["XML"][0], 1000))
    with pytest.raises(RecordError, match=r"too large \(b\.xml has 5,012 bytes, at most 1,000 are expected"):
        read_ecg(tmp_path / "b.xml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = write_muse(tmp_path / "a.xml", DIGITAL, 500)
    text = path.read_text().replace("ISO-8859-1", "utf-8" if encoding == "utf-8-sig" else encoding)
    path.write_bytes(text.replace("<RestingECG>", "<RestingECG><Name>Müller</Name>").encode(encoding))
    np.testing.assert_allclose(read_ecg(path).signal[0], DIGITAL[0] / 1000, atol=1e-6)


def test_prefixes_of_names_do_not_count(tmp_path):
    (tmp_path / "a.xml").write_text('<?xml version="1.0"?><!-- <b/> --><x:AnnotatedECG xmlns:x="y" x:z="1"/>')
    root = xml_document.parse_xml(tmp_path / "a.xml")
    assert (root.tag, root.attrib) == ("AnnotatedECG", {"z": "1"})


@pytest.mark.parametrize("text", ["no XML", "", "<", "<a>"])
def test_what_is_no_xml(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(RecordError, match="unreadable XML"), reading(tmp_path / "a.xml", "XML"):
        xml_document.parse_xml(tmp_path / "a.xml")


def test_libraries_agree_on_xml(tmp_path):
    for write in WRITERS:
        path = write(tmp_path / "a.xml", DIGITAL, 500, step=2.5)
        own, other = read_ecg(path), {lead.label: lead.samples for lead in FileParser.parse(path).leads}
        for name, row in zip(own.lead_names, own.signal, strict=True):
            np.testing.assert_allclose(row, other[name], atol=1e-6)
    for row, lead in zip(own.signal, sierraecg.read_file(str(path)).leads, strict=True):
        np.testing.assert_allclose(row, lead.samples * 2.5e-3, atol=1e-6)

import base64

import numpy as np

from ecg_jepa.apps.page_html import image, note, refusal, table
from ecg_jepa.formats.ecg import Ecg

ODD = '<script>alert("x")</script>'
SAFE = "&lt;script&gt;"


def test_text_of_files_and_checkpoints_is_text():
    ecg = Ecg(np.zeros((1, 100), np.float32), None, [ODD], None)
    labels = [{"label": ODD, "score": 0.25, "threshold": None, "decision": None}]
    shown = (image(b"png", ODD), table(labels, False), table([{"label": "a", "score": 0.5}], False, {"a": ODD}))
    for text in (refusal(ValueError(ODD)), note(ODD, ecg, ["unit"]), *shown):
        assert "<script" not in text
        assert SAFE in text


def test_what_a_file_says_and_what_it_does_not():
    ecg = Ecg(np.zeros((2, 1000), np.float32), 250.0, ["I", "II"], "mV")
    assert "2 leads (I, II), 250 Hz, amplitudes in mV, 4 s." in note("a.csv", ecg, [])
    bare = Ecg(np.zeros((2, 1000), np.float32), None, None, None)
    text = note("a.csv", bare, ["sampling_rate", "unit", "lead_names"])
    assert "2 leads without names, no sampling rate, no unit, 1,000 samples." in text
    assert "does not say the sampling rate and the unit and the leads: fill in what is missing, and analyse" in text


def test_decisions_stand_out_and_no_threshold_is_no_decision():
    labels = [
        {"label": "AF", "score": 0.75, "threshold": 0.5, "decision": True},
        {"label": "NORM", "score": 0.25, "threshold": 0.3, "decision": False},
    ]
    text = table(labels, exclusive=False, descriptions={"AF": "atrial fibrillation"})
    assert "atrial fibrillation" in text
    assert text.count('class="decided"') == 1
    assert text.index("decided") < text.index("AF") < text.index("NORM")
    assert "0.750" in text
    assert "0.500" in text
    assert "Any number of these may apply" in text
    assert "Not a medical device" in text
    without = table([{"label": "AF", "score": 0.75}], exclusive=True)
    assert "brings no thresholds" in without
    assert "Exactly one of these applies" in without
    assert 'class="decided"' not in without


def test_an_image_is_in_the_page_itself():
    assert base64.b64encode(b"content").decode() in image(b"content", "an ECG")

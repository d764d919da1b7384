import json
from pathlib import Path

import pytest

from ecg_jepa._utils.files import JsonLines, read_lines


def everything(_line):
    return True


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(3)))
    return path


def test_lines_are_appended_to_those_that_are_kept(path):
    log = JsonLines(path, lambda line: line["step"] < 2)
    log.append({"step": 7})
    assert [line["step"] for line in read_lines(path)] == [0, 1, 7]
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_mended(path, cut, caplog):
    path.write_bytes(path.read_bytes()[:-cut])
    steps = [0, 1, 2] if cut == 1 else [0, 1]  # without its end, the line is still whole
    assert [line["step"] for line in read_lines(path)] == steps
    log = JsonLines(path, everything)
    log.append({"step": 3})
    assert [line["step"] for line in read_lines(path)] == [*steps, 3]
    assert not caplog.records


def test_a_broken_line_in_the_middle_costs_no_other(path, caplog):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b'{"st\xff', lines[2], b""]))
    assert [line["step"] for line in read_lines(path)] == [0, 2]
    assert "line 2 cannot be read" in caplog.text


def test_lines_wait_while_the_disk_is_full(path, monkeypatch, caplog):
    log = JsonLines(path, everything)
    opened = Path.open

    def full(self, *args, **options):
        file = opened(self, *args, **options)
        file.write(b'{"st')  # part of a line still fits
        file.close()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", full)
        log.append({"step": 3})
        log.append({"step": 4})
    assert caplog.text.count("lines wait in memory") == 1
    log.append({"step": 5})
    assert [line["step"] for line in read_lines(path)] == [0, 1, 2, 3, 4, 5]


def test_no_file_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "none.jsonl") == []

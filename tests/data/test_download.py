"""Downloads from a server on the loopback interface that now and then breaks off."""

import hashlib
import json
import re
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tenacity
from raw_databases import ecg, write_challenge, write_code_15, write_mimic

from ecg_jepa.data import download
from ecg_jepa.data.builders.challenge_2021 import Georgia
from ecg_jepa.data.builders.code_15 import Code15
from ecg_jepa.data.builders.mimic_iv_ecg import MimicIvEcg
from ecg_jepa.data.builders.ptb_xl import PtbXl
from ecg_jepa.data.synthetic import Synthetic


class Handler(BaseHTTPRequestHandler):
    """Serves `server.root`; `server.breaks` has how many bytes of a path to send before hanging up, once each."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        path = server.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        ranged = server.knows_ranges and "Range" in self.headers
        begin = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1]) if ranged else 0
        if server.failures.get(self.path, 0):
            server.failures[self.path] -= 1
            self.send_error(503)
            return
        if begin and begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        stop = server.breaks.pop(self.path, len(content))
        self.wfile.write(content[begin:stop])
        if stop < len(content):
            self.close_connection = True

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "wait_between_attempts", tenacity.wait_none())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root, server.requests, server.breaks, server.failures = tmp_path / "host", [], {}, {}
    server.knows_ranges = True
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def publish(root):
    """Write the `SHA256SUMS.txt` of what lies in `root`."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(root)}" for path in files]
    (root / "SHA256SUMS.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def georgia(server):
    """The challenge with two records of Georgia and one of another database."""
    project = server.root / "challenge-2021" / "1.0.3"
    for seed, (folder, name) in enumerate([("georgia", "E00001"), ("georgia", "E00002"), ("cpsc_2018", "A0001")]):
        write_challenge(project, folder, name, ecg(5000, seed))
    publish(project)
    return project


SIGNAL = "/challenge-2021/1.0.3/training/georgia/g1/E00001.mat"


def test_only_the_databases_own_files_and_ready_to_prepare(server, georgia, tmp_path):
    builder = Georgia(data_dir=str(tmp_path / "raw"))
    builder.download(server.address)
    fetched = {path.name for path in (tmp_path / "raw").rglob("*") if path.is_file()}
    assert fetched == {"E00001.hea", "E00001.mat", "E00002.hea", "E00002.mat"}
    assert builder.prepare(tmp_path / "out").records == 2


def test_a_connection_that_breaks_goes_on_where_it_was(server, georgia, tmp_path):
    server.breaks[SIGNAL] = 70_000
    Georgia(data_dir=str(tmp_path)).download(server.address)
    assert [ranged for path, ranged in server.requests if path == SIGNAL] == [None, "bytes=70000-"]
    expected = (georgia / "training/georgia/g1/E00001.mat").read_bytes()
    assert (tmp_path / "training/georgia/g1/E00001.mat").read_bytes() == expected


def test_a_server_that_knows_no_ranges_is_asked_for_the_whole(server, georgia, tmp_path):
    server.knows_ranges = False
    server.breaks[SIGNAL] = 70_000
    Georgia(data_dir=str(tmp_path)).download(server.address)
    expected = (georgia / "training/georgia/g1/E00001.mat").read_bytes()
    assert (tmp_path / "training/georgia/g1/E00001.mat").read_bytes() == expected


def test_a_run_that_was_stopped_goes_on_where_it_was(server, georgia, tmp_path):
    target = tmp_path / "training/georgia/g1/E00001.mat"
    target.parent.mkdir(parents=True)
    expected = (georgia / "training/georgia/g1/E00001.mat").read_bytes()
    target.with_name("E00001.mat.part").write_bytes(expected[:100_000])
    Georgia(data_dir=str(tmp_path)).download(server.address)
    assert (SIGNAL, "bytes=100000-") in server.requests
    assert target.read_bytes() == expected
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_there_is_not_fetched_again(server, georgia, tmp_path):
    builder = Georgia(data_dir=str(tmp_path))
    builder.download(server.address)
    server.requests.clear()
    builder.download(server.address)
    assert [path for path, _ in server.requests] == ["/challenge-2021/1.0.3/SHA256SUMS.txt"]


def test_a_file_with_another_checksum_is_fetched_again(server, georgia, tmp_path):
    builder = Georgia(data_dir=str(tmp_path))
    builder.download(server.address)
    target = tmp_path / "training/georgia/g1/E00001.mat"
    expected = target.read_bytes()
    target.write_bytes(expected[:-1] + b"x")
    target.with_name("E00001.mat.part").write_bytes(b"y" * len(expected))  # and a remainder that does not fit
    builder.download(server.address)
    assert target.read_bytes() == expected


def test_a_busy_server_is_asked_again(server, georgia, tmp_path):
    server.failures[SIGNAL] = 3
    Georgia(data_dir=str(tmp_path)).download(server.address)
    assert (tmp_path / "training/georgia/g1/E00001.mat").is_file()


def test_what_cannot_be_had_is_an_error_that_names_it(server, georgia, tmp_path):
    (georgia / "training/georgia/g1/E00002.mat").unlink()
    with pytest.raises(ConnectionError, match=r"E00002\.mat could not be fetched .*run the same command again"):
        Georgia(data_dir=str(tmp_path)).download(server.address)
    (georgia / "training/georgia/g1/E00001.mat").write_bytes(b"something else")
    with pytest.raises(ConnectionError, match=r"E00001\.mat could not be fetched \(ChecksumError: expected sha256:"):
        Georgia(data_dir=str(tmp_path / "other")).download(server.address)
    with pytest.raises(ConnectionError, match=r"ptb-xl/1\.0\.3/SHA256SUMS\.txt could not be fetched"):
        PtbXl(data_dir=str(tmp_path)).download(server.address)


def test_a_list_without_the_database_is_an_error(server, georgia, tmp_path):
    for path in (georgia / "training" / "georgia" / "g1").iterdir():
        path.unlink()
    publish(georgia)
    with pytest.raises(ValueError, match="lists no file of georgia"):
        Georgia(data_dir=str(tmp_path)).download(server.address)


def test_paths_cannot_leave_the_folder(server, georgia, tmp_path):
    (georgia / "SHA256SUMS.txt").write_text(f"{'0' * 64} training/georgia/../../../out.hea\n")
    with pytest.raises(ValueError, match="outside of"):
        Georgia(data_dir=str(tmp_path / "raw")).download(server.address)


def test_code_15_is_unpacked(server, tmp_path):
    source = tmp_path / "source"
    write_code_15(source, {"exams_part0.hdf5": {5: ecg(4096, 1) / 1000}})
    server.root.mkdir()
    (server.root / "exams.csv").write_bytes((source / "exams.csv").read_bytes())
    with zipfile.ZipFile(server.root / "exams_part0.zip", "w") as archive:
        archive.write(source / "exams_part0.hdf5", "exams_part0.hdf5")
    files = [
        {
            "key": name,
            "checksum": f"md5:{hashlib.md5((server.root / name).read_bytes()).hexdigest()}",
            "links": {"self": f"{server.address}/{name}"},
        }
        for name in ("exams.csv", "exams_part0.zip")
    ]
    (server.root / "4916206").write_text(json.dumps({"files": files}))
    server.breaks["/exams_part0.zip"] = 50_000
    builder = Code15(data_dir=str(tmp_path / "raw"))
    builder.download(server.address)
    assert not (tmp_path / "raw" / "exams_part0.zip").exists()
    assert builder.prepare(tmp_path / "out").records == 1
    server.requests.clear()
    builder.download(server.address)
    assert [path for path, _ in server.requests] == ["/4916206"]
    (tmp_path / "raw" / "exams_part0.hdf5").unlink()
    builder.download(server.address)
    assert (tmp_path / "raw" / "exams_part0.hdf5").is_file()


def test_mimic(server, tmp_path):
    project = server.root / "mimic-iv-ecg" / "1.0"
    write_mimic(project, [ecg(5000, seed) for seed in range(3)])
    publish(project)
    builder = MimicIvEcg(data_dir=str(tmp_path / "raw"))
    builder.download(server.address)
    assert builder.prepare(tmp_path / "out").records == 3


def test_ptb_xl_at_one_rate(server, raw_database, tmp_path):
    project = server.root / "ptb-xl" / "1.0.3"
    project.mkdir(parents=True)
    names = [
        f"records{rate}/00000/{n:05d}_{kind}.{suffix}"
        for n in (1, 2)
        for suffix in ("hea", "dat")
        for rate, kind in ((100, "lr"), (500, "hr"))
    ]
    for name in ["ptbxl_database.csv", "scp_statements.csv", *names]:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(raw_database / name, project / name)
    publish(project)
    PtbXl(data_dir=str(tmp_path / "raw"), sampling_rate=100).download(server.address)
    fetched = {str(path.relative_to(tmp_path / "raw")) for path in (tmp_path / "raw").rglob("*.*")}
    assert fetched == {"ptbxl_database.csv", "scp_statements.csv", *(name for name in names if "_lr" in name)}


def test_synthetic_records_have_no_host(tmp_path):
    with pytest.raises(ValueError, match="no host"):
        Synthetic(data_dir=str(tmp_path)).download()


@pytest.mark.parametrize("path", ["", ".", "a/..", "../out.hea", "/elsewhere/out.hea", "linked/out.hea", "linked"])
def test_no_file_is_written_outside_the_folder(tmp_path, path):
    directory, outside = tmp_path / "raw", tmp_path / "outside"
    directory.mkdir()
    outside.mkdir()
    (directory / "linked").symlink_to(outside)
    with pytest.raises(ValueError, match="outside of"):
        download.download([download.RemoteFile(path, "http://host/x", f"md5:{'0' * 32}")], directory)
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "outside"}
    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", ["../out.hdf5", "linked/out.hdf5", "/elsewhere/out.hdf5"])
def test_archives_stay_in_the_folder(tmp_path, name):
    directory, outside = tmp_path / "raw", tmp_path / "outside"
    directory.mkdir()
    outside.mkdir()
    (directory / "linked").symlink_to(outside)
    archive = directory / "part.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("good.hdf5", "good")
        file.writestr(name, "evil")
    checksum = f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}"
    with pytest.raises(ValueError, match="outside of"):
        download.download([download.RemoteFile("part.zip", "http://host/x", checksum)], directory)
    assert not list(outside.iterdir())
    assert not (directory / "good.hdf5").exists()

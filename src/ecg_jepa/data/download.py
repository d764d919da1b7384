"""
Downloads of databases from their original hosts: fsspec transfers, tenacity tries again, and files are checked against the
checksums that the host publishes. A transfer that broke off goes on where it was, in this run or the next one.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import fsspec
import tenacity

from .._utils.logs import progress_bar

_TRANSFERS_AT_A_TIME = 4  # few: the hosts are shared by everybody
_FILES_AT_A_TIME = 10_000  # of a million, so that their bookkeeping needs little memory
_ATTEMPTS = 8

wait_between_attempts = tenacity.wait_exponential(multiplier=1, max=60)  # seconds


class ChecksumError(OSError):
    """A file that arrived is not the one that the host describes."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch: `path` below the database's folder, `checksum` as `sha256:...` or `md5:...`."""

    path: str
    url: str
    checksum: str


@dataclass(frozen=True)
class PhysioNet:
    """A project with its version, such as `ptb-xl/1.0.3`, and the licence and attribution that its page states."""

    name: str
    licence: str
    attribution: str | None = None
    address = "https://physionet.org/files"
    pages = "https://physionet.org/content/{}/"

    @property
    def page(self) -> str:
        """Address of the page."""
        return self.pages.format(self.name)

    def list_files(self, address: str | None = None) -> list[RemoteFile]:
        """List all files, from `SHA256SUMS.txt`. `address`: of a mirror."""
        root = f"{(address or self.address).rstrip('/')}/{self.name}"
        entries = [line.split(maxsplit=1) for line in _read(f"{root}/SHA256SUMS.txt").decode().splitlines() if line.strip()]
        return [RemoteFile(path.strip(), f"{root}/{path.strip()}", f"sha256:{checksum}") for checksum, path in entries]


class Zenodo(PhysioNet):
    """A record by its number, and the licence and attribution that its page states."""

    address = "https://zenodo.org/api/records"
    pages = "https://zenodo.org/records/{}"

    def list_files(self, address: str | None = None) -> list[RemoteFile]:
        """List all files, from Zenodo's description of the record. `address`: of a mirror."""
        description = json.loads(_read(f"{(address or self.address).rstrip('/')}/{self.name}"))
        return [RemoteFile(file["key"], file["links"]["self"], file["checksum"]) for file in description["files"]]


def download(files: list[RemoteFile], directory: str | Path) -> None:
    """
    Fetch files into `directory`, unless they are there with the right checksum; archives (`.zip`) are unpacked. Raises
    `ConnectionError` if a file cannot be fetched; what did arrive is kept for the next try.
    """
    with (
        ThreadPoolExecutor(_TRANSFERS_AT_A_TIME) as threads,
        progress_bar(total=len(files), unit=" files", desc="Files") as files_bar,
        progress_bar(unit="B", unit_scale=True, desc="Transferred") as bytes_bar,
    ):
        progress = fsspec.Callback()
        progress.relative_update = bytes_bar.update  # of each piece that arrives, whatever its file
        fetch = partial(_fetch, Path(directory), progress)
        for begin in range(0, len(files), _FILES_AT_A_TIME):
            for _ in threads.map(fetch, files[begin : begin + _FILES_AT_A_TIME]):
                files_bar.update()


def _file_system() -> fsspec.AbstractFileSystem:
    # No limit for a whole transfer, only for silence; no compression, or a range would not be one of the file's bytes.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return fsspec.filesystem("http", client_kwargs={"timeout": timeout, "headers": {"Accept-Encoding": "identity"}})


def _may_pass(error: BaseException) -> bool:
    """Return whether another attempt may succeed."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status >= 500 or error.status in (408, 416, 429)
    return isinstance(error, aiohttp.ClientError | ConnectionError | TimeoutError | ChecksumError)


def _persistently(url: str, action: Callable[[], Any]) -> Any:
    """Do something with `url`, again if it fails for a reason that may pass. Raises `ConnectionError` in the end."""
    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=wait_between_attempts,
        reraise=True,
    )
    try:
        return again(action)
    except (aiohttp.ClientError, ConnectionError, TimeoutError, ChecksumError, FileNotFoundError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConnectionError(f"{url} could not be fetched ({reason}). What came is kept: run the same command again.") from error


def _read(url: str) -> bytes:
    return _persistently(url, lambda: _file_system().cat_file(url))


def _fetch(directory: Path, progress: fsspec.Callback, file: RemoteFile) -> None:
    target = directory / file.path
    _check_inside(target, directory, file.url)
    note = target.with_name(f"{target.name}.unpacked")  # written beside an archive once it is unpacked and removed
    if note.is_file():
        noted, *names = note.read_text().splitlines()
        if noted == file.checksum and all((target.parent / name).is_file() for name in names):
            return
    if not _has_checksum(target, file.checksum):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        _persistently(file.url, lambda: _transfer(file, part, progress))
        part.replace(target)
    if target.suffix == ".zip":
        with zipfile.ZipFile(target) as archive:
            for name in archive.namelist():
                _check_inside(target.parent / name, directory, f"{target.name} ({name})")
            archive.extractall(target.parent)
            names = [name for name in archive.namelist() if not name.endswith("/")]
        note.write_text("\n".join([file.checksum, *names]))
        target.unlink()


def _check_inside(target: Path, directory: Path, source: str) -> None:
    """Raise `ValueError` unless a file would be written below a folder, whatever links are on the way."""
    if directory.resolve() not in target.resolve().parents:
        raise ValueError(f"{source} would be written outside of {directory}: {target} is {target.resolve()}.")


def _transfer(file: RemoteFile, part: Path, progress: fsspec.Callback) -> None:
    """Fetch what `part` does not have yet, and check it. Raises `ChecksumError` and what fsspec does."""
    if _has_checksum(part, file.checksum):
        return
    with part.open("ab") as local:
        options = {"headers": {"Range": f"bytes={local.tell()}-"}} if local.tell() else {}
        try:
            _file_system().get_file(file.url, local, callback=progress, **options)
        except aiohttp.ClientResponseError as error:
            if error.status == 416:  # there is nothing behind what has arrived: it is of another file
                part.unlink()
            raise
    if not _has_checksum(part, file.checksum):
        part.unlink()
        raise ChecksumError(f"expected {file.checksum}, which the file that arrived does not have")


def _has_checksum(path: Path, expected: str) -> bool:
    """Return whether a file is there with the checksum, `sha256:...` or `md5:...`."""
    kind, _, digest = expected.partition(":")
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == digest

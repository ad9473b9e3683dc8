"""The place of data sets, and fetching one: over https, checked before it is opened, unpacked with suspicion.

Nothing appears under its final name unless it is whole: a download and an unpacked folder are renamed into place last.
"""

import hashlib
import os
import shutil
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

from vitexp.errors import DataError, ResourceError

_BLOCK = 1 << 20
_SECONDS = 30  # without a byte, after which a connection is given up


@dataclass(frozen=True)
class Archive:
    """A published tar file: its address, its SHA-256, and the limits beyond which it is not what it says.

    `folder` is the one folder that it unpacks to; `max_bytes` bounds the download, `max_unpacked` its contents.
    """

    url: str
    sha256: str
    folder: str
    max_bytes: int
    max_unpacked: int
    max_files: int = 100


def data_root(root: str | None) -> Path:
    """The folder that holds data sets: `root`, else $VITEXP_DATA, else ~/.cache/vitexp."""
    return Path(root or os.environ.get("VITEXP_DATA") or "~/.cache/vitexp").expanduser()


def fetch(archive: Archive, root: Path, *, quiet: bool = False) -> Path:
    """Download an archive and unpack it to `root`/`archive.folder`; with a bar, unless `quiet`.

    Raises:
        DataError: no network, or not the published file; says where to put it by hand.
        ResourceError: the folder cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{archive.folder}.", suffix=".part", dir=root) as scratch:
            file = Path(scratch) / "archive"
            _download(archive, file, quiet=quiet)
            unpacked = Path(scratch) / "unpacked"
            unpack(file, unpacked, max_bytes=archive.max_unpacked, max_files=archive.max_files)
            if not (unpacked / archive.folder).is_dir():
                raise DataError(f"{archive.url} holds no folder {archive.folder}; {_by_hand(archive, root)}")
            _move(unpacked / archive.folder, root / archive.folder)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(
            f"{root / archive.folder} is absent and cannot be downloaded ({reason}); {_by_hand(archive, root)}"
        ) from error
    except OSError as error:
        raise ResourceError(
            f"cannot write to {root} ({error.strerror or error}); free space or choose another folder: data.root=FOLDER"
        ) from error
    return root / archive.folder


def unpack(file: Path, folder: Path, *, max_bytes: int, max_files: int) -> None:
    """Unpack a tar file into a new folder; every member is looked at before the first one is written.

    Raises:
        DataError: it is no tar file, holds anything but plain files and folders below its top, or too much of it.
    """
    try:
        with tarfile.open(file) as tar:
            members = tar.getmembers()
            for member in members:
                _require_harmless(member, file)
            size = sum(member.size for member in members)
            if len(members) > max_files or size > max_bytes:
                raise DataError(
                    f"{file} would unpack to {len(members)} files and {size:,} bytes, more than the {max_files} and "
                    f"{max_bytes:,} that this set can have; fetch it again from its author"
                )
            folder.mkdir(parents=True)
            tar.extractall(folder, members=members, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{file} is not a whole tar file ({error}); fetch it again") from error


def _require_harmless(member: tarfile.TarInfo, file: Path) -> None:
    parts = Path(member.name).parts
    plain = member.isreg() or member.isdir()
    if not plain or Path(member.name).is_absolute() or ".." in parts or "\\" in member.name:
        raise DataError(
            f"{file} is refused: its member {member.name!r} is no plain file below the archive's own folder; "
            f"nothing was unpacked"
        )


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https, and to nothing else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: "object", newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def open_url(url: str) -> IO[bytes]:
    """Open an https address for reading. Raises URLError."""
    if not url.startswith("https://"):
        raise urllib.error.URLError(f"{url} is not https")
    response: IO[bytes] = urllib.request.build_opener(_HttpsOnly).open(url, timeout=_SECONDS)
    return response


def _download(archive: Archive, file: Path, *, quiet: bool) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    digest, done = hashlib.sha256(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, disable=quiet)
    with open_url(archive.url) as response, file.open("wb") as target, bar as progress:
        length = response.length if isinstance(response, HTTPResponse) else None
        task = progress.add_task(f"fetching {archive.url}", total=length)
        while block := response.read(_BLOCK):
            done += len(block)
            if done > archive.max_bytes:
                raise DataError(
                    f"{archive.url} sends more than {archive.max_bytes:,} bytes; it is not the published set"
                )
            digest.update(block)
            target.write(block)
            progress.update(task, completed=done)
    if digest.hexdigest() != archive.sha256:
        raise DataError(
            f"{archive.url}: {done:,} bytes with SHA-256 {digest.hexdigest()}, expected {archive.sha256}: cut short or "
            f"changed; nothing was kept, start again"
        )


def _move(folder: Path, target: Path) -> None:
    """Rename into place; another run that got there first is as good."""
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder)


def _by_hand(archive: Archive, root: Path) -> str:
    return (
        f"fetch {archive.url} on a machine with a network and unpack it in {root}, so that {root / archive.folder} "
        f"exists, or name its folder: data.root=FOLDER"
    )

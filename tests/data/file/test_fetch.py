"""Downloads are checked before they are opened; hostile archives leave nothing behind."""

import hashlib
import io
import tarfile
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vitexp.data import cifar
from vitexp.data.base import ImageData
from vitexp.data.file import fetch as archives
from vitexp.data.file.fetch import Archive, fetch, open_url, unpack
from vitexp.errors import DataError, ResourceError


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 3) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    content = b"x" * size if kind == tarfile.REGTYPE else b""
    info.size = len(content)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as file:
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
    return stream.getvalue()


GOOD = tar(member("set", tarfile.DIRTYPE), member("set/a.bin"))

HOSTILE = {
    "absolute": [member("/tmp/evil")],
    "parent": [member("set/../../evil")],
    "symlink": [member("set/link", tarfile.SYMTYPE, "/etc/passwd")],
    "symlink inside": [member("set/a"), member("set/link", tarfile.SYMTYPE, "a")],
    "hard link": [member("set/a"), member("set/link", tarfile.LNKTYPE, "set/a")],
    "device": [member("set/null", tarfile.CHRTYPE)],
    "pipe": [member("set/pipe", tarfile.FIFOTYPE)],
    "backslash": [member("set\\..\\evil")],
    "too many": [member(f"set/{i}") for i in range(11)],
    "too large": [member("set/zeros", size=2000)],
    "hidden behind good ones": [member("set/a"), member("set/b"), member("../evil")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives_are_refused_before_a_byte_is_written(
    members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "archive"
    file.write_bytes(tar(*members))
    with pytest.raises(DataError):
        unpack(file, tmp_path / "out", max_bytes=1000, max_files=10)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", GOOD[: len(GOOD) // 2]], ids=["empty", "html", "half"])
def test_what_is_no_whole_tar_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(DataError, match="not a whole tar file"):
        unpack(tmp_path / "archive", tmp_path / "out", max_bytes=1000, max_files=10)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Archive]:
    """Answer every address with `content`; gives the archive that would be right for it."""

    def answer(content: bytes) -> Archive:
        monkeypatch.setattr(archives, "open_url", lambda _: io.BytesIO(content))
        return Archive("https://x/set.tar.gz", hashlib.sha256(content).hexdigest(), "set", 10_000, 1000, 10)

    return answer


def test_a_good_archive_arrives_whole_and_alone(serve: Callable[[bytes], Archive], tmp_path: Path) -> None:
    folder = fetch(serve(GOOD), tmp_path / "data")
    assert (folder / "a.bin").read_bytes() == b"xxx"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set"]


def test_a_quiet_command_shows_no_bar(serve: Callable[[bytes], Archive], tmp_path: Path, capsys) -> None:
    fetch(serve(GOOD), tmp_path / "loud")
    assert "fetching https://x/set.tar.gz" in capsys.readouterr().out
    fetch(serve(GOOD), tmp_path / "quiet", quiet=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_quiet_reaches_the_download(
    name: str, data_module: Callable[..., ImageData], tmp_path: Path, monkeypatch
) -> None:
    heard: list[bool] = []
    monkeypatch.setattr(cifar, "fetch", lambda *_, quiet: heard.append(quiet))
    for quiet in ("false", "true"):
        data_module(f"data={name}", f"data.root={tmp_path}", f"quiet={quiet}").prepare_data()
    assert heard == [False, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"max_bytes": 10}, "more than 10 bytes"),
        ({"folder": "other"}, "holds no folder other"),
        ({"max_files": 1}, "more than the 1"),
    ],
)
def test_anything_else_leaves_nothing(
    change: dict[str, object], said: str, serve: Callable[[bytes], Archive], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        fetch(replace(serve(GOOD), **change), tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_connection_that_breaks_says_where_to_put_the_set(
    serve: Callable[[bytes], Archive], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = serve(GOOD)

    def broken(_: str) -> io.BytesIO:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(archives, "open_url", broken)
    with pytest.raises(DataError, match=r"no route.*unpack it in .*data\.root=FOLDER"):
        fetch(wanted, tmp_path)


def test_a_folder_that_cannot_be_written_is_a_resource_error(serve: Callable[[bytes], Archive], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"data\.root=FOLDER"):
        fetch(serve(GOOD), tmp_path / "file" / "below")


def test_only_https_is_spoken() -> None:
    with pytest.raises(urllib.error.URLError, match="not https"):
        open_url("http://127.0.0.1:9/set.tar.gz")
    handler = archives._HttpsOnly()
    with pytest.raises(urllib.error.URLError, match="not https"):
        handler.redirect_request(None, io.BytesIO(), 302, "", {}, "http://x/")  # type: ignore[arg-type]

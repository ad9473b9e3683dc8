"""A folder of ours: regular files of bounded size, no link followed, files written whole or not at all."""

import os
from pathlib import Path

import pytest

from vitexp.errors import CheckpointError
from vitexp.files.folder import PART, Folder, as_name, plain_name, whole

ODD = ("", ".", "..", "a/b", "/a", "a\nb", "a\0b", "a b", "\x1b", "\udcff", "x" * 201, "ü" * 101, "$(a)", "~", "*")


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_one_component_of_a_fixed_alphabet(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot name a file of a run"):
        plain_name(name)
    with pytest.raises(CheckpointError):
        Folder(tmp_path, name)
    with pytest.raises(CheckpointError):
        Folder(tmp_path).write_text(name, "x")
    assert plain_name(as_name(name))


def test_a_link_is_followed_where_the_user_says_and_nowhere_below(tmp_path: Path) -> None:
    real = Folder(tmp_path, "disk", "run").made()
    real.write_text("a.txt", "mine")
    (tmp_path / "outputs").symlink_to("disk")
    folder = Folder(tmp_path / "outputs", "run")
    assert folder.text("a.txt") == "mine"
    (tmp_path / "disk/linked").symlink_to("run")
    for act in (Folder.entries, Folder.made, lambda one: one.text("a.txt"), lambda one: one.write_text("b.txt", "")):
        with pytest.raises(CheckpointError, match=r"linked in .* is a link or a file, not a folder"):
            act(Folder(tmp_path / "outputs", "linked"))
    with pytest.raises(CheckpointError, match="is a link, and a run writes to its own files only"):
        Folder(tmp_path / "outputs").require_no_links()
    assert sorted(os.listdir(tmp_path / "disk/run")) == ["a.txt"]


def test_a_write_replaces_a_link_and_leaves_what_it_led_to(tmp_path: Path) -> None:
    folder, target = Folder(tmp_path, "run").made(), tmp_path / "target"
    target.write_text("theirs")
    (folder.path / "page.html").symlink_to(target)
    folder.write_text("page.html", "ours \udcff")
    assert target.read_text() == "theirs"
    assert folder.text("page.html") == "ours \\udcff"
    assert folder.entries() == {"page.html": "file"}


def test_a_folder_in_place_of_a_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(CheckpointError, match="is a folder, and a file is to be written there"):
        Folder(tmp_path).write_text("page.html", "x")
    assert os.listdir(tmp_path) == ["page.html"]


def test_what_is_no_regular_file_is_neither_read_nor_waited_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    kinds = {"pipe": "a pipe or device", "zero": "a link", "folder": "a folder"}
    for name, kind in kinds.items():
        for act in (folder.read, folder.text, folder.require, lambda name: folder.lines(name, most=9)):
            with pytest.raises(CheckpointError, match=f"{name} is {kind}, and a run reads"):
                act(name)
        with pytest.raises(CheckpointError), folder.appending(name):
            pass
        assert folder.holds(name)
        assert not folder.has(name)
    with pytest.raises(FileNotFoundError):
        folder.read("absent")
    assert not folder.holds("absent")
    assert folder.entries() == {"folder": "folder", "pipe": "other", "zero": "link"}
    assert Folder(tmp_path, "absent").entries() == {}


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write_text("a", "12345")
    assert folder.read("a", most=5) == b"12345"
    assert folder.tail("a", most=2) == "45"
    with pytest.raises(CheckpointError, match="larger than 4 bytes"):
        folder.read("a", most=4)
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="cannot be read"):
        folder.text("a")
    assert folder.tail("a", most=9) == "\ufffd"


def test_lines_that_change_between_two_readings_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, readings = Folder(tmp_path), iter([b"1,2\n3,4\n5,", b"1,2\n3,44\n5,6\n7"])
    folder.write_text("a", "")
    monkeypatch.setattr(Folder, "_content", lambda *arguments: next(readings))
    assert folder.lines("a", most=99) == ["1,2"]


@pytest.mark.parametrize("way", ["of a folder", "typed"])
def test_a_file_that_fails_leaves_nothing_and_the_old_one(way: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write_text("a.txt", "old")

    def fail() -> None:
        with folder.writing("a.txt") if way == "of a folder" else whole(tmp_path / "a.txt") as part:
            part.write_text("half")
            assert part.name.startswith(PART)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert folder.entries() == {"a.txt": "file"}
    assert folder.text("a.txt") == "old"


def test_a_library_that_puts_its_own_file_there_gives_it_usual_permissions(tmp_path: Path) -> None:
    """Safetensors writes a file of its own, readable by its owner alone, and renames it."""
    folder, before = Folder(tmp_path), os.umask(0o022)
    try:
        with folder.writing("weights") as part:
            (tmp_path / "theirs").write_text("weights")
            (tmp_path / "theirs").chmod(0o600)
            (tmp_path / "theirs").rename(part)
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o644


def test_left_overs_of_killed_writers_go(tmp_path: Path) -> None:
    for name in (f"{PART}1a", ".last.ckpt.part", "last.ckpt", ".lock"):
        (tmp_path / name).write_text("")
    Folder(tmp_path).remove_parts()
    assert list(Folder(tmp_path).entries()) == [".lock", "last.ckpt"]

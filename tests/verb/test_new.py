"""`vitexp new` writes what works at once, and overwrites nothing."""

import sys
from pathlib import Path

import pytest

from vitexp.cli import main
from vitexp.config.extensions import CODE, settings_file
from vitexp.verb.new import KINDS, TEMPLATES


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv(CODE, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_it_writes_passes_its_own_tests_and_trains(somewhere: Path) -> None:
    for kind in KINDS:
        assert main(["new", kind, f"new_{kind}"]) == 0
    written = sorted(str(path) for path in Path("mine").rglob("*") if path.is_file())
    assert written == sorted(
        name
        for kind in KINDS
        for name in (f"mine/new_{kind}.py", f"mine/{kind}/new_{kind}.yaml", f"mine/test_new_{kind}.py")
    )
    assert pytest.main(["-q", "-p", "no:cacheprovider", "-W", "error", str(somewhere / "mine")]) == 0


def test_it_says_what_to_trust_and_what_to_type_next(capsys) -> None:
    assert main(["new", "model", "my_net", "folder=parts"]) == 0
    said = capsys.readouterr().out
    assert f'put the line trusted = ["my_net"] into {settings_file()}' in said
    assert "vitexp -cd parts model=my_net data=digits" in said
    assert "class MyNet(" in Path("parts/my_net.py").read_text()
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text('trusted = ["my_net"]\n')
    assert main(["new", "data", "mine"]) == 0
    assert 'trusted = ["my_net", "mine"]' in capsys.readouterr().out


def test_it_overwrites_nothing(capsys) -> None:
    Path("mine").mkdir()
    Path("mine/test_mynet.py").write_text("kept")
    assert main(["new", "model", "mynet"]) == 2
    assert "mine/test_mynet.py is there already" in capsys.readouterr().err
    assert [path.name for path in Path("mine").iterdir()] == ["test_mynet.py"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model"], "type `vitexp new model mynet`"),
        (["model", "mynet", "size=8"], "type `vitexp new model mynet`"),
        (["modle", "mynet"], "did you mean 'model'?"),
        (["model", "my-net"], "choose another, as in mymodel"),
        (["model", "class"], "choose another, as in mymodel"),
        (["data", "digits"], "choose another, as in mydata"),
    ],
)
def test_what_it_cannot_do_it_says(words: list[str], said: str, capsys) -> None:
    assert main(["new", *words]) == 2
    assert said in capsys.readouterr().err
    assert not Path("mine").exists()


def test_every_kind_has_its_three_texts() -> None:
    found = {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.txt")}
    assert found == {f"{kind}/{part}.txt" for kind in KINDS for part in ("code", "options", "test")}

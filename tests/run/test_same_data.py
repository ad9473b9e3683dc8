"""A resume on data that has changed stops and says how; `data.changed=accept` goes on; `evaluate` warns."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import DictConfig

from tests.resume.toy import FILES, TOY, Death, images, session
from vitexp.checkpoint.safe_io import DATA, SafeCheckpointIO
from vitexp.cli import main
from vitexp.data.fake import Fake
from vitexp.errors import CheckpointError
from vitexp.run.folder import Run, find
from vitexp.run.same_data import changes, keep_data

WORDS = [*TOY, *FILES, "data.num_workers=0", "data.num_classes=null"]


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of images of a run that was killed in its first epoch, in the working directory."""
    monkeypatch.chdir(tmp_path)
    root = images(tmp_path / "images")
    assert not session(WORDS, Death("on_train_batch_start", 3))
    return root


def swap(root: Path) -> None:
    one, other = root / "class0/05.png", root / "class1/05.png"
    one.rename(root / "kept")
    other.rename(one)
    (root / "kept").rename(other)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file fewer": (lambda root: (root / "class0/03.png").unlink(), r"1 file fewer in \w+ \(class0/03.png\)"),
    "a file more": (
        lambda root: (root / "class0/99.png").write_bytes((root / "class0/03.png").read_bytes()),
        r"1 file more in \w+ \(class0/99.png\)",
    ),
    "another picture": (
        lambda root: (root / "class1/03.png").write_bytes((root / "class1/04.png").read_bytes()),
        r"1 file (of another size|with other pixels) \(class1/03.png\)",
    ),
    "two swapped": (swap, r"1 file (of another size|with other pixels) \(class0/05.png\)"),
    "a class renamed": (lambda root: (root / "class1").rename(root / "dog"), "class 'class1' renamed 'dog'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_stops_a_resume(change: str, killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = find("last", Path("outputs")).record
    do, said = CHANGES[change]
    do(killed)
    assert main(["resume"]) == 4
    message = capsys.readouterr().err
    assert pytest.RaisesExc(CheckpointError, match=said).matches(CheckpointError(message)), message
    assert message.count("\n") == 1
    assert find("last", Path("outputs")).record == before


def test_accepted_data_is_gone_on_with_and_recorded(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (killed / "class0/03.png").unlink()
    assert not session(["data.changed=accept"], Death("on_train_batch_start", 5))
    run = find("last", Path("outputs"))
    (said,) = [text for text in run.record["changed"] if "1 file fewer" in text]
    assert "class0/03.png" in said
    assert said in (run.path / "log.txt").read_text()
    assert run.config().data.changed == "stop", "the word holds once"
    assert main(["resume", "quiet=true"]) == 0, "the record is of the data that was accepted"
    for file in killed.glob("class1/1*.png"):  # some of test are among them
        file.write_bytes((killed / "class0/04.png").read_bytes())
    capsys.readouterr()
    assert main(["evaluate", "run=last", "quiet=false"]) == 0
    written = json.loads(next(run.path.glob("evaluations/*/evaluation.json")).read_text())
    assert "is not what run" in " ".join(written["notes"])
    assert "is not what run" in " ".join(capsys.readouterr().out.split())


def test_a_run_without_a_record_resumes_in_silence(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As those of earlier versions, and those on data that keeps no inventory."""
    (killed / "class0/03.png").unlink()
    (find("last", Path("outputs")).checkpoints / DATA).unlink()
    assert main(["resume", "quiet=true"]) == 0
    assert not capsys.readouterr().err


def test_data_that_keeps_no_inventory_is_not_asked(tmp_path: Path, composed_data: Callable[[], Fake]) -> None:
    run, own = Run(tmp_path), SimpleNamespace(class_names=["a", "b"])
    run.checkpoints.mkdir()
    keep_data(run, own)
    assert not (run.checkpoints / DATA).exists()
    keep_data(run, composed_data())
    assert changes(run, own) == []


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"classes": "ab", "splits": {}},
        {"classes": [], "splits": {"train": 3}},
        {"classes": [], "splits": {"train": {"names": torch.zeros(3, 2)}}},
        {"classes": [], "splits": {"train": {"labels": torch.zeros(3), "sizes": torch.zeros(2)}}},
        {"classes": [], "splits": {"train": {"labels": torch.tensor(3)}}},
    ],
    ids=str,
)
def test_a_bent_record_is_an_error(
    content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed_data: Callable[[], Fake]
) -> None:
    run = Run(tmp_path)
    run.checkpoints.mkdir()
    torch.save(content, run.checkpoints / DATA)
    with pytest.raises(CheckpointError, match="damaged"):
        changes(run, composed_data())
    monkeypatch.setattr(SafeCheckpointIO, "load_checkpoint", lambda self, path: torch.load(path, weights_only=True))
    with pytest.raises(CheckpointError, match="is no record of a data set"):
        changes(run, composed_data())


@pytest.fixture
def composed_data() -> Callable[[], Fake]:
    from vitexp.build import build_data
    from vitexp.config.compose import compose

    cfg: DictConfig = compose(["data=fake"])
    return lambda: build_data(cfg)

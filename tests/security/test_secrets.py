"""No secret of the environment reaches a file of a run, and files have the modes that the umask asks for."""

import os
from pathlib import Path

import pytest

from vitexp.cli import main
from vitexp.run.folder import find

SMALL = ["data=fake", "size=8", "data.sizes=[16,8,8]", "bs=8", "epochs=1", "quiet=true"]
CANARY = "canary-5e1f0c"


def test_a_canary_in_the_environment_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Trained, failed, resumed, reported: with keys set as services' libraries read them."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, CANARY)
    assert main([*SMALL, "logger=tensorboard"]) == 0
    assert main(["resume", "epochs=2", "quiet=true"]) == 0
    assert main([*SMALL, "logger=none", "checkpoint=absent.pth"]) == 4
    for word in ("name=${oc.env:HF_TOKEN}", f"api_key={CANARY}", "outputs=${oc.env:WANDB_API_KEY}"):
        assert main([*SMALL, "logger=none", word]) == 2
    assert main(["report", "run=last", "quiet=true"]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert not list(tmp_path.glob(f"*{CANARY}*"))


@pytest.mark.parametrize("mask", [0o077, 0o027])
def test_modes_follow_the_umask(mask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(mask)
    try:
        assert main([*SMALL, "logger=none"]) == 0
    finally:
        os.umask(before)
    run = find("last", tmp_path / "outputs").path
    wide = [path.name for path in run.rglob("*") if path.stat().st_mode & mask]
    assert wide == []

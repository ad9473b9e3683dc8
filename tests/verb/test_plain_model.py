"""Any torch.nn.Module from images to logits is a model: no attribute, no attention and no names file is asked of it."""

import json
import signal
from pathlib import Path

import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vitexp
from vitexp.cli import main
from vitexp.config.compose import compose
from vitexp.errors import Interrupted
from vitexp.task.classify import Classify
from vitexp.verb.dashboard import index_page

MODULE = """
from torch import nn


class Plain(nn.Module):
    def __init__(self, *, num_classes, channels, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, images):
        if images.is_meta:
            images.sum().item()
        return self.layers(images)


class Pair(Plain):
    def forward(self, images):
        return super().forward(images), images
"""
OPTION = """# @package _global_
defaults:
  - override /attention: null
  - _self_
model:
  _target_: plainly.{name}
  num_classes: ${{data.num_classes}}
  channels: ${{data.channels}}
  width: 8
"""
QUICK = ("trust=true", "epochs=2", "logger=none", "quiet=true", "data.num_workers=0")


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of options, and the code beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plainly.py").write_text(MODULE)
    (tmp_path / "mine/model").mkdir(parents=True)
    for name in ("Plain", "Pair"):
        (tmp_path / f"mine/model/{name.lower()}.yaml").write_text(OPTION.format(name=name))
    text = OPTION.format(name="Plain").replace("override /attention: null", "override /attention: softmax")
    (tmp_path / "mine/model/forgetful.yaml").write_text(text)


def run(*words: str) -> int:
    return main([*words, "-cd", "mine"])


def metrics() -> dict[str, float]:
    return json.loads(Path("outputs/last/run.json").read_text())["metrics"]


def test_the_whole_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model=plain", *QUICK) == 0
    first = metrics()
    assert run("evaluate", "run=last", "trust=true") == 0
    for to in ("onnx", "safetensors"):
        assert run("export", "run=last", f"to={to}", f"file=net.{to}", "trust=true") == 0
    assert run("export", "run=last", "to=timm", "trust=true") == 4
    assert "timm has no Plain; use to=safetensors or to=onnx" in capsys.readouterr().err
    assert run("report", "run=last", "trust=true") == 0
    assert run("list", "runs") == 0
    assert "plain" in capsys.readouterr().out
    words = ["model=plain", "trust=true", "checkpoint=net.safetensors"]
    model = vitexp.build_model(compose(words, config_dirs=["mine"])).eval()
    images = torch.randn(3, 1, 8, 8)
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(images).detach(), rtol=1e-4, atol=1e-5)
    assert run("model=plain", *QUICK) == 0
    assert metrics() == first, "the same seed gives the same run"


def test_a_killed_training_goes_on_to_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("model=plain", *QUICK, "trainer.checkpoint_seconds=0")
    assert run(*words) == 0
    undisturbed = load_file("outputs/last/weights.safetensors")
    steps = []

    def stopped(self: Classify, *given: object) -> object:
        steps.append(len(steps))
        if len(steps) == 30:
            raise Interrupted(signal.SIGTERM)
        return step(self, *given)

    step = Classify.training_step
    monkeypatch.setattr(Classify, "training_step", stopped)
    assert run(*words) == 143
    assert run("resume", "trust=true") == 0
    weights = load_file("outputs/last/weights.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in undisturbed.items())
    assert len(steps) > 30


def test_it_labels_images_and_the_dashboard_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model=plain", *QUICK, "epochs=1") == 0
    Image.new("L", (8, 8), 128).save("grey.png")
    assert run("predict", "run=last", "image=grey.png", "trust=true", "quiet=true") == 0
    (predictions,) = Path("outputs/last/").rglob("predictions.csv")
    assert "grey.png" in predictions.read_text()
    assert "plain" in index_page(Path("outputs"))


def test_weights_of_other_classes_begin_a_new_head() -> None:
    assert run("model=plain", *QUICK, "epochs=1") == 0
    weights = str(Path("outputs/last/weights.safetensors").resolve())
    words = (
        "data=fake",
        "data.num_classes=3",
        "data.channels=1",
        "data.image_size=8",
        "data.mean=[0.5]",
        "data.std=[0.5]",
    )
    assert run("model=plain", *QUICK, "epochs=1", *words, f"checkpoint={weights}") == 0


def test_info_counts_the_folder_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--info", "defaults", "model=plain") == 0
    assert "| model/plain " in capsys.readouterr().out
    assert run("--info", "defaults", "model=plane") == 2
    assert "did you mean 'plain'" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["", "evaluate ", "-cd missing "])
def test_tab_completes_its_options(flag: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    line = f"vitexp -cd mine {flag}model=pl"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["model=plain"]


@pytest.mark.parametrize("regime", ["head", "bias"])
def test_a_regime_starts_from_its_weights(regime: str) -> None:
    assert run("model=plain", *QUICK, "epochs=1") == 0
    weights = str(Path("outputs/last/weights.safetensors").resolve())
    assert run("model=plain", *QUICK, "epochs=1", f"regime={regime}", f"checkpoint={weights}") == 0
    adapter = load_file("outputs/last/adapter.safetensors")
    assert {"layers.6.weight", "layers.6.bias"} <= set(adapter)
    assert "layers.0.weight" not in adapter


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model=plain", "regime=memory"), "SupportsTokens: see docs/extending.md"),
        (("model=plain", "data.sampler=packed", "data=fake"), "SupportsPacks: see docs/extending.md"),
        (("analyze", "model=plain", "analysis=similarity"), "SupportsMaps: see docs/extending.md"),
        (("analyze", "model=plain", "analysis=rollout"), "SupportsMaps: see docs/extending.md"),
        (("analyze", "model=plain", "analysis=distance"), "SupportsMaps: see docs/extending.md"),
        (("analyze", "model=plain", "analysis=heads"), "SupportsMaps: see docs/extending.md"),
        (("analyze", "model=plain", "analysis=amplitude"), "has no blocks and no stages"),
        (("analyze", "model=plain", "analysis=taylor"), "use "),
        (("model=plain", "attention=cosine"), "model=plain has no attention to choose"),
        (("model=forgetful",), "override /attention: null"),
        (("model=pair",), "gave a tuple"),
    ],
)
def test_what_needs_more_is_refused_in_one_line(words: tuple[str, ...], said: str, capsys) -> None:
    assert run(*words, "trust=true", "logger=none", "quiet=true") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vitexp: ")
    assert said in error
    assert not Path("outputs").exists(), "it is refused before the folder is made"


@pytest.mark.parametrize("analysis", ["profile", "transfer"])
def test_an_analysis_that_asks_nothing_of_a_model_works(analysis: str) -> None:
    assert run("analyze", "model=plain", f"analysis={analysis}", "trust=true", "quiet=true") == 0

"""Models of timm and torchvision go the whole way through the commands, and none of their names is taken on trust."""

import json
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

import vitexp
from vitexp.cli import main
from vitexp.errors import CheckpointError, ConfigError

DATA = ("data=fake", "size=32", "data.sizes=[16,8,8]", "bs=8", "epochs=1", "logger=none", "quiet=true")
TIMM = ("model=timm", "model.name=test_convnext")
# One block a stage; torchvision has nothing smaller by name.
TORCHVISION = ("model=torchvision", "model.name=shufflenet_v2_x0_5")
LIBRARIES = pytest.mark.parametrize("model", [TIMM, TORCHVISION], ids=["timm", "torchvision"])


def built(*words: str, **options: object) -> torch.nn.Module:
    return vitexp.build_model(vitexp.compose([*DATA, *words]), **options)


@LIBRARIES
def test_the_whole_way(model: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Train, test again, predict, and export to both formats with equal logits."""
    monkeypatch.chdir(tmp_path)
    assert main([*model, *DATA]) == 0
    run = Path("outputs/last").resolve()
    trained = json.loads((run / "run.json").read_text())["metrics"]
    assert main(["evaluate", "run=last", "quiet=true"]) == 0
    assert trained["test/top1"] == json.loads((run / "run.json").read_text())["metrics"]["test/top1"]
    Image.new("RGB", (40, 40), "red").save("cat.png")
    assert main(["predict", "run=last", "image=cat.png"]) == 0
    for to in ("onnx", "safetensors"):
        assert main(["export", "run=last", f"to={to}", f"file=net.{to}", "quiet=true"]) == 0
    ours = built(*model, "checkpoint=net.safetensors").eval()
    images = torch.randn(3, 3, 32, 32)
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), ours(images).detach(), rtol=1e-3, atol=1e-4)


def test_timm_and_back(tmp_path: Path) -> None:
    """A state dict of timm loads strictly and goes out to timm strictly; one tensor less is an error."""
    torch.manual_seed(0)
    theirs = timm.create_model("test_convnext", num_classes=10).eval()
    file = tmp_path / "theirs.pth"
    torch.save(theirs.state_dict(), file)
    ours, images = built(*TIMM, f"checkpoint={file}").eval(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))
    back = tmp_path / "back.safetensors"
    assert main(["export", *TIMM, *DATA, f"checkpoint={file}", "to=timm", f"file={back}"]) == 0
    theirs.load_state_dict(load_file(back))
    less = dict(list(theirs.state_dict().items())[1:])
    torch.save(less, file)
    with pytest.raises(CheckpointError, match="1 tensors are missing"):
        built(*TIMM, f"checkpoint={file}")


@pytest.mark.parametrize("name", ["head", "bias", "lora"])
def test_a_regime_trains_timms_classifier(name: str, tmp_path: Path) -> None:
    file, extra = tmp_path / "theirs.pth", ["regime.targets=[fc1]"] if name == "lora" else []
    torch.save(timm.create_model("test_convnext", num_classes=3).state_dict(), file)
    model = built(*TIMM, f"regime={name}", f"checkpoint={file}", *extra)
    trains = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"net.head.fc.weight", "net.head.fc.bias"} <= trains
    assert (trains == {"net.head.fc.weight", "net.head.fc.bias"}) == (name == "head")
    assert model.net.head.fc.weight.abs().sum() == 0, "three classes in the file, ten here: a new head"
    assert not model.train().net.stages.training


def test_torchvision_takes_its_own_names_and_is_no_model_of_timm(tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    theirs, file = torchvision.models.shufflenet_v2_x0_5(num_classes=10).eval(), tmp_path / "theirs.pth"
    torch.save(theirs.state_dict(), file)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(built(*TORCHVISION, f"checkpoint={file}").eval()(images), theirs(images))
    assert main(["export", *TORCHVISION, *DATA, f"checkpoint={file}", "to=timm", f"file={tmp_path / 'x'}"]) == 4
    assert "this one is torchvision's" in capsys.readouterr().err


def test_images_of_one_channel_and_a_size_of_their_own() -> None:
    assert built(*TORCHVISION, "data.channels=1")(torch.randn(2, 1, 32, 32)).shape == (2, 10)
    vit = built("model=timm", "model.name=test_vit", "model.options={patch_size:4}")
    assert vit(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model=timm", "model.name=convnext_tinny"), "the nearest are convnext_tiny"),
        (("model=torchvision", "model.name=resnet19"), "the nearest are resnet18"),
        (("model=timm", "model.name=hf-hub:someone/net"), "timm has no model.name=hf-hub:someone/net"),
        ((*TIMM, "model.options={pretrained:true}"), "multiple values for keyword argument 'pretrained'"),
        ((*TORCHVISION, "model.options={weights:DEFAULT}"), "multiple values for keyword argument 'weights'"),
        ((*TIMM, "regime=memory"), "SupportsTokens: see docs/extending.md"),
        ((*TIMM, "data.sampler=packed"), "SupportsPacks: see docs/extending.md"),
        ((*TIMM, "data.sampler=multi_scale"), "SupportsAnySize: see docs/extending.md"),
        (("model=timm", "model.name=levit_128s", "size=224", "regime=head"), "SupportsNewHead: see docs/extending.md"),
        (("model=detr", "backbone=timm", "data=coco"), "SupportsFeatures and HasGrid: see docs/extending.md"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        vitexp.build_model(vitexp.compose([*words]))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_attention_typed_for_a_model_without_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="model=timm has no attention to choose, and attention=softmax was given"):
        vitexp.compose(["model=timm", "attention=softmax"])
    with pytest.raises(ConfigError, match=r"unknown key 'model.attention.dropout'"):
        vitexp.compose(["model=timm", "model.attention.dropout=0.1"])

"""`benchmark what=model` of a detector: seconds of a forward and of a training step beside Hugging Face's DETR.

The contenders and their turns are those of `vitexp.benchmark.model`. Both sides get the same weights, images without
padding and two objects an image, and their logits, boxes and losses are compared before anything is timed.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from vitexp import build
from vitexp.benchmark.place import device_of, place_name, waiting
from vitexp.benchmark.report import TIMES, Report, milliseconds
from vitexp.benchmark.timing import alternate
from vitexp.benchmark.work import forward, training_step
from vitexp.checkpoint.names.detr import to_hf
from vitexp.config.command import Command
from vitexp.detection.criterion import Criterion
from vitexp.errors import ConfigError
from vitexp.model.resnet import ResNet

TOLERANCE = 1e-4  # of the largest logit, box and loss, in float32
_MISSING = "benchmark against=hf needs transformers and timm beside vitexp; type: pip install transformers timm"

Targets = list[dict[str, Tensor]]
# Of a model: images to its last layer's logits and boxes; images and targets to the loss of all layers.
Call = tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Callable[[Tensor, Targets], Tensor]]


def time_detector(command: Command, *, without_drops: Callable[[nn.Module], nn.Module]) -> Report:
    """Time `model=` on images of `size=`, 4 : 3 unless its data are squares; one a batch unless `bs=` says more.

    Raises:
        ConfigError: transformers is not installed, or has no such model.
    """
    cfg = copy.deepcopy(command.cfg)
    if not any(text.startswith("data.batch_size=") for text in command.overrides):
        cfg.data.batch_size = 1
    cfg.data.num_classes = cfg.data.num_classes or 91
    height, device = cfg.data.image_size, device_of(cfg)
    shape = (cfg.data.batch_size, cfg.data.channels, height, height if cfg.data.square else height * 4 // 3)
    torch.manual_seed(cfg.seed)
    ours = without_drops(build.build_model(cfg))
    criterion: Criterion = build.make(cfg.task.criterion)
    images, targets = torch.randn(shape, device=device), _targets(shape[0], cfg.data.num_classes, device)
    models = {**_peer(cfg, ours), "plain": copy.deepcopy(ours), "vitexp": ours}
    calls = {
        name: _theirs(model) if name == "hf" else _ours(criterion, model.to(device)) for name, model in models.items()
    }
    require_equal(models, calls, images, targets)
    rows: list[tuple[object, ...]] = []
    ratios: dict[str, float] = {}
    for what, inference in (("forward", True), ("training step", False)):
        model = build.switches(cfg, copy.deepcopy(ours), inference=inference)
        timed = {**models, "vitexp": model}
        calls["vitexp"] = _ours(criterion, model)
        work = {
            name: forward(cfg, timed[name], partial(calls[name][0], images))
            if inference
            else training_step(cfg, timed[name], partial(calls[name][1], images, targets))
            for name in timed
        }
        timings = alternate(work, repeats=cfg.benchmark.repeats, wait=waiting(device))
        for name, timing in timings.items():
            speed = round(shape[0] / timing.seconds, 2)
            rows.append((what, name, *milliseconds(timing), speed, round(timing.ratio, 2)))
        ratios[what] = timings["vitexp"].ratio
    title = f"{cfg.chosen.model}, {shape[2]} × {shape[3]}, batch {shape[0]}, {place_name(cfg)}"
    return Report(title, ("", "", *TIMES, "img/s", f"× {next(iter(models))}"), rows, ratios)


def hugging_face(model: Any) -> Any:
    """Its DETR of the same geometry with the weights of `model`, dropouts off.

    Raises:
        ConfigError: it is not installed, or its DETR has no such backbone.
    """
    try:
        import timm  # noqa: F401  (its backbone)
        import transformers
    except ImportError:
        raise ConfigError(_MISSING) from None
    library: Any = transformers
    heads = model.encoder[0].attention.variant.num_heads
    config = library.DetrConfig(
        backbone_config={
            "model_type": "timm_backbone",
            "backbone": f"resnet{3 * sum(len(stage) for stage in _stages(model)) + 2}",
            "num_channels": 3,
            "features_only": True,
            "use_pretrained_backbone": False,
            "out_indices": [1, 2, 3, 4],
        },
        num_labels=model.num_classes,
        num_queries=len(model.queries),
        d_model=model.queries.shape[1],
        encoder_layers=len(model.encoder),
        decoder_layers=len(model.decoder),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=model.encoder[0].mlp.fc1.out_features,
        decoder_ffn_dim=model.decoder[0].mlp.fc1.out_features,
        position_embedding_type="learned" if "rows" in dict(model.position.named_parameters()) else "sine",
        dropout=0.0,
        auxiliary_loss=True,
    )
    peer = library.DetrForObjectDetection(config).eval()
    peer.load_state_dict(to_hf(model.state_dict()))
    return peer


def require_equal(models: Mapping[str, nn.Module], calls: Mapping[str, Call], images: Tensor, targets: Targets) -> None:
    """Raise ConfigError unless all give the same logits, boxes and losses."""
    outputs = {}
    with torch.inference_mode():
        for name, (forward, loss) in calls.items():
            models[name].eval()
            outputs[name] = (*forward(images), loss(images, targets))
    first, expected = next(iter(outputs.items()))
    for name, output in outputs.items():
        error = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(output, expected, strict=True))
        if not error <= TOLERANCE:
            raise ConfigError(
                f"{name} and {first} differ by {error:.1e} of the largest logit, box or loss, more than {TOLERANCE:g}, "
                "so their times cannot be compared; use against=none"
            )


def _stages(model: Any) -> list[Any]:
    backbone = model.backbone
    return [backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4]


def _peer(cfg: DictConfig, ours: Any) -> dict[str, nn.Module]:
    """Hugging Face's model under `hf`; nothing with `against=none`."""
    if cfg.benchmark.against == "none":
        return {}
    same = isinstance(ours.backbone, ResNet) and ours.backbone.strides == (32,) and not ours.refine_boxes
    if cfg.benchmark.against != "hf" or not same or ours.focal:
        raise ConfigError(
            f"benchmark against={cfg.benchmark.against} has no model={cfg.chosen.model} as it is configured; detectors"
            " are timed beside Hugging Face's DETR over a ResNet, model=detr_r50 or detr_r101 with against=hf; or use"
            " against=none"
        )
    return {"hf": hugging_face(ours).to(device_of(cfg))}


def _targets(images: int, num_classes: int, device: torch.device) -> Targets:
    """Two objects an image."""
    boxes = torch.tensor([[0.4, 0.5, 0.3, 0.2], [0.7, 0.3, 0.2, 0.4]], device=device)
    labels = torch.tensor([1, 0], device=device) % num_classes
    return [{"labels": labels, "boxes_cxcywh": boxes} for _ in range(images)]


def _ours(criterion: Criterion, model: nn.Module) -> Call:
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        out = model(images)
        return out.logits[-1], out.boxes_cxcywh[-1]

    def loss(images: Tensor, targets: Targets) -> Tensor:
        logits, boxes = model(images)
        return criterion(logits, boxes, targets)[0]

    return forward, loss


def _theirs(model: nn.Module) -> Call:
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        out = model(images)
        return out.logits, out.pred_boxes

    def loss(images: Tensor, targets: Targets) -> Tensor:
        labels = [{"class_labels": t["labels"], "boxes": t["boxes_cxcywh"]} for t in targets]
        total: Tensor = model(images, labels=labels).loss
        return total

    return forward, loss

"""`vitexp export run=last to=timm|safetensors|onnx`: the weights of a run as a file that another tool reads."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitexp import build
from vitexp.checkpoint.adapter import is_whole
from vitexp.checkpoint.load import export_names
from vitexp.checkpoint.read import read_tensors
from vitexp.checkpoint.write import save_tensors, save_weights
from vitexp.config.command import Command
from vitexp.config.compose import compose, options
from vitexp.contract import SupportsFeatures, SupportsFusing
from vitexp.errors import CheckpointError, ConfigError, ResourceError, require_extra
from vitexp.files.folder import plain_name
from vitexp.report.screen import print_notes, say
from vitexp.verb.evaluate import open_for

ALLOWED = ("to", "file", "fuse", "select", "checkpoint")
_SUFFIX = {"safetensors": ".safetensors", "timm": ".timm.safetensors", "onnx": ".onnx"}
_CHECKED = 3  # images on which the written network is compared with the model: another count than it was traced with
_TOLERANCE = 1e-3


def export(command: Command) -> dict[str, Any]:
    """Write the file and say how to read it; returns its path as `file`.

    Raises:
        ConfigError: neither a run nor a checkpoint, or a package is missing.
        CheckpointError: timm has no such model, or the written network computes something else.
    """
    if command.cfg.run is None and command.cfg.checkpoint is None:
        raise ConfigError("export needs weights; give run=last (or a run's name), or model=... checkpoint=FILE")
    run, cfg = open_for(command, allowed=ALLOWED, verb="export")
    notes: list[str] = []
    if cfg.data.num_classes is None:
        build.build_data(cfg)
    model = build.build_model(cfg, notes=notes, new_head=False).eval()
    print_notes(notes, quiet=cfg.quiet)
    name = f"{cfg.chosen.model}{_SUFFIX[command.cfg.to]}"
    file = Path(command.cfg.file) if command.cfg.file else (run.path if run else Path()) / plain_name(name)
    if not file.parent.is_dir():
        raise ResourceError(f"file={file}: there is no folder {file.parent}; make it, or choose another file=")
    line = {"safetensors": _to_safetensors, "timm": _to_timm, "onnx": _to_onnx}[command.cfg.to](cfg, model, file)
    say(f"{file}: {line}", quiet=cfg.quiet)
    return {"file": str(file)}


def _to_safetensors(cfg: DictConfig, model: nn.Module, file: Path) -> str:
    save_weights(model, file, _metadata(cfg))
    return f"{len(model.state_dict())} tensors in vitexp's names; vitexp evaluate model={cfg.chosen.model} checkpoint="


def _to_timm(cfg: DictConfig, model: nn.Module, file: Path) -> str:
    if not is_whole(model):
        raise CheckpointError(
            f"regime={cfg.chosen.regime} adds parts that timm's models have no place for; "
            "timm reads regime=full, head, class_token or bias; use to=safetensors or to=onnx"
        )
    tensors = export_names(model)
    save_tensors(tensors, file, {"format": "pt", **_metadata(cfg)})
    peer = cfg.reference.timm or "<the model of this geometry>"
    given = f"num_classes={cfg.data.num_classes}, in_chans={cfg.data.channels}, checkpoint_path=..."
    beware = _other_shapes(cfg, model) + _other_strides(cfg, model)
    return f"{len(tensors)} tensors; timm.create_model('{peer}', {given}){beware}"


def _other_shapes(cfg: DictConfig, model: nn.Module) -> str:
    """A hint for where the command made the model another one than the file of its name, which timm's equals."""
    if cfg.chosen.model not in options("model"):
        return ""
    shipped = cfg.copy()
    shipped.model = OmegaConf.to_container(compose([f"model={cfg.chosen.model}"]).model, resolve=False)
    with torch.device("meta"):
        published = build.make(shipped.model).state_dict()
    if {name: value.shape for name, value in published.items()} == {n: v.shape for n, v in model.state_dict().items()}:
        return ""
    return (
        f" with the depth, width and other options that changed here: this {cfg.chosen.model} is not the published one"
    )


def _other_strides(cfg: DictConfig, model: nn.Module) -> str:
    """A hint for where the small-image rule changed a stride: timm loads the tensors and computes something else."""
    if not cfg.reference.image_size or not isinstance(model, SupportsFeatures):
        return ""
    published = cfg.copy()
    published.data.image_size = cfg.reference.image_size
    with torch.device("meta"):
        strides = build.make(published.model).strides
    if strides == model.strides:
        return ""
    given, theirs = (", ".join(map(str, values)) for values in (model.strides, strides))
    return (
        f"; beware: at {cfg.data.image_size} pixels the maps have strides {given}, in timm's model {theirs}:"
        " it computes the same logits only with its first strides changed to these"
    )


def _to_onnx(cfg: DictConfig, model: nn.Module, file: Path) -> str:
    """Trace with a free batch size, write, and compare the two networks' logits."""
    require_extra("onnx", "onnx", "onnxscript", asked="to=onnx")
    if cfg.fuse and isinstance(model, SupportsFusing):
        model.fuse()
    shape = (cfg.data.channels, cfg.data.image_size, cfg.data.image_size)
    with sdpa_kernel(SDPBackend.MATH):  # else tracing and lowering choose kernels of different strides
        program = torch.onnx.export(
            model,
            (torch.randn(2, *shape),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(_metadata(cfg))
    for written in (file, file.with_name(f"{file.name}.data")):  # of a network of gigabytes there are two
        written.unlink(missing_ok=True)  # a link would be followed
    program.save(str(file))
    where = f"images (batch, {', '.join(map(str, shape))}), normalised with mean and std of its metadata"
    difference = _difference(model, file, torch.randn(_CHECKED, *shape))
    if difference is None:
        return f"{where}; not compared, onnxruntime is not installed"
    if difference > _TOLERANCE:
        raise CheckpointError(
            f"{file} computes logits that differ by {difference:.1e} of their range; "
            f"at most {_TOLERANCE:g} is arithmetic; keep to=safetensors and report it"
        )
    return f"{where}; onnxruntime's logits differ by {difference:.1e} of their range"


def _difference(model: nn.Module, file: Path, images: torch.Tensor) -> float | None:
    """Largest difference between the logits of both, over the largest logit; None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = model(images)
    given = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    return float((given - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _metadata(cfg: DictConfig) -> dict[str, str]:
    """The metadata of the weights file: classes, mean, std, configuration; of a foreign file, only the geometry."""
    known: dict[str, str] = {}
    weights = cfg.get("adapter") or cfg.checkpoint
    if str(weights).endswith(".safetensors"):
        _, known = read_tensors(weights)
    return {"model": str(cfg.chosen.model), "image_size": str(cfg.data.image_size), **known}

"""The parts of a run, built from a configuration; the only module that calls `instantiate`.

A configuration is data, perhaps a stranger's: a `_target_` is called only if `vitexp.config.targets` knows it.
"""

import copy
import inspect
import logging
import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from vitexp.checkpoint.adapter import put_adapter
from vitexp.checkpoint.load import load_weights
from vitexp.checkpoint.read import building_for, read_metadata
from vitexp.config.releases import allowing
from vitexp.config.targets import require_known, whitelist
from vitexp.contract import SEE, HasBase, SupportsAnySize, SupportsChannelsLast, SupportsFusing, SupportsPacks
from vitexp.errors import CheckpointError, ConfigError, VitexpError, first_line
from vitexp.files.strict_json import parse_json
from vitexp.machine.rank import require_own_address, started
from vitexp.seeding import mix

if TYPE_CHECKING:
    from pytorch_lightning import Callback, Trainer

_DEVICES = 64
_INIT = 101  # stream of the random numbers that initialise weights
_PRECISION = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def make(node: Any, *, trust: bool = False) -> Any:
    """Instantiate a node of the configuration, its lists and dicts as plain ones.

    Raises:
        ConfigError: it names a callable that is not vitexp's own or on the list, and `trust` is off.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(plain, dict) or not isinstance(plain.get("_target_"), str):
        raise ConfigError(f"{str(plain)[:80]} names nothing to build; its file needs _target_: package.module.Class")
    require_known(plain, trust=trust)
    try:
        with allowing(whitelist(plain)):
            call = instantiate(node, _convert_="all", _partial_=True)
    except InstantiationException as error:  # Hydra wraps what a constructor says; its own words are better
        if isinstance(error.__cause__, VitexpError):
            raise error.__cause__ from None
        raise
    # Called here: Hydra 1.4 would look at what comes back too, and a model may be of any class.
    call = partial(call.func, *call.args, **call.keywords)
    if plain.get("_partial_"):
        return call
    _require_fitting(call)
    return call()


def _require_fitting(call: "partial[Any]") -> None:
    """Raise ConfigError unless a callable takes the keys that its configuration has."""
    try:
        inspect.signature(call.func).bind(*call.args, **call.keywords)
    except TypeError as error:
        name, keys = f"{call.func.__module__}.{call.func.__qualname__}", ", ".join(call.keywords)
        raise ConfigError(
            f"{name} is configured with {keys}, and does not take them so ({error}); change its file, or its"
            f" constructor; the file of a model without attention says `override /attention: null` ({SEE})"
        ) from error


def build_data(cfg: DictConfig) -> Any:
    """The LightningDataModule, its files checked; a number of classes that only the files know enters `cfg`."""
    _check_boxes(cfg)
    data = make(cfg.data.module, trust=cfg.trust)
    data.prepare_data()
    if cfg.data.num_classes is None:
        data.setup("validate")
        cfg.data.num_classes = data.num_classes
    return data


def _check_boxes(cfg: DictConfig) -> None:
    """Raise ConfigError unless data with boxes, a detector and an augmentation that moves boxes come together."""
    chosen, boxes, detects = cfg.chosen, "longest" in cfg.data.module, cfg.chosen.task == "detect"
    if boxes != detects:
        has = "boxes" if boxes else "no boxes"
        gives, use = (
            ("gives none", "model=detr_r50 or model=detr backbone=...") if boxes else ("needs them", "data=coco")
        )
        raise ConfigError(
            f"data={chosen.data} has {has}, and model={chosen.model} task={chosen.task} {gives}; use {use}"
        )
    if boxes and cfg.augment.get("geometry") not in (None, "none"):
        raise ConfigError(f"augment={chosen.augment} leaves boxes behind; use augment=detection or augment=none")
    if not boxes and "geometry" not in cfg.augment:
        raise ConfigError(f"augment={chosen.augment} needs boxes, and data={chosen.data} has none; use augment=basic")


def build_model(cfg: DictConfig, *, notes: list[str] | None = None, new_head: bool = True) -> nn.Module:
    """The model of a configuration: seeded weights, then `checkpoint`, then the regime, then `adapter`.

    Args:
        cfg: from `vitexp.compose`.
        notes: gets one line for each tensor that was adapted on loading.
        new_head: whether a head for other classes may become a new one; evaluation must not.

    Raises:
        ConfigError: parts that do not go together.
        CheckpointError: weights that do not fit.
    """
    torch.manual_seed(mix(cfg.seed, _INIT))
    with building_for(cfg.checkpoint):
        model: nn.Module = make(cfg.model, trust=cfg.trust)
    if cfg.backbone_checkpoint is not None and cfg.checkpoint is None:
        lines = load_weights(_backbone(model), cfg.backbone_checkpoint, position_method=cfg.position_method)
        if notes is not None:
            notes.extend(lines)
    if (narrow := _narrow(cfg)) is not None:
        narrow(model)
    if cfg.checkpoint is not None:
        fresh = new_head or cfg.get("adapter") is not None  # an adapter brings its own head
        lines = load_weights(model, cfg.checkpoint, position_method=cfg.position_method, new_head=fresh)
        if notes is not None:
            notes.extend(lines)
    regime = make(cfg.regime, trust=cfg.trust)
    trained: nn.Module = regime(model, num_classes=cfg.data.num_classes)
    _check_sampler(cfg, trained)
    if notes is not None and cfg.checkpoint is None and isinstance(trained, HasBase) and not _loads_itself(cfg):
        notes.append(f"regime={cfg.chosen.regime} freezes a base of random weights; give checkpoint= its trained ones")
    if cfg.get("adapter") is not None:
        put_adapter(trained, cfg.adapter)
    return trained


def _loads_itself(cfg: DictConfig) -> bool:
    """Whether the model may bring trained weights along: one of a library, or the user's own."""
    return "backbone" in cfg.model or not cfg.model._target_.startswith("vitexp.model.") or "name" in cfg.model


def _check_sampler(cfg: DictConfig, model: nn.Module) -> None:
    """Raise ConfigError for batches of images of many sizes that the model cannot take."""
    sampler = cfg.data.get("sampler", "fixed")
    if sampler == "packed" and (not isinstance(model, SupportsPacks) or cfg.regime.get("cache")):
        raise ConfigError(
            f"data.sampler=packed gives sequences of images of any size, and model={cfg.chosen.model} regime="
            f"{cfg.chosen.regime} takes whole images; use model=navit_ti16, or data.sampler=fixed"
            f" (SupportsPacks: {SEE})"
        )
    if sampler == "multi_scale" and (not isinstance(model, SupportsAnySize) or cfg.regime.get("cache")):
        raise ConfigError(
            f"data.sampler=multi_scale trains at several sizes, and model={cfg.chosen.model} regime={cfg.chosen.regime}"
            " takes one; use model=mobilevit_xxs, swinv2, efficientvit_m0 or navit_ti16, or data.sampler=fixed"
            f" (SupportsAnySize: {SEE})"
        )


def _backbone(model: nn.Module) -> nn.Module:
    backbone = dict(model.named_children()).get("backbone")
    if backbone is None:
        raise ConfigError(
            f"backbone_checkpoint is for detectors, and {type(model).__name__} has no backbone; use checkpoint=FILE"
        )
    return backbone


def _narrow(cfg: DictConfig) -> Any:
    """The function that makes a model as narrow as the pruned one whose weights it gets; None if it was not pruned."""
    if cfg.get("pruned") is None and cfg.checkpoint is not None:
        text = read_metadata(cfg.checkpoint).get("pruned")
        if text is not None:
            what = f"the widths in {cfg.checkpoint}"
            layers = parse_json(text, object, source=what, error=CheckpointError, advice="copy the file again")
            node = {"_target_": "vitexp.model.narrow.Narrow", "layers": layers}
            OmegaConf.update(cfg, "pruned", node, force_add=True)
    return None if cfg.get("pruned") is None else make(cfg.pruned, trust=cfg.trust)


def build_task(cfg: DictConfig, model: nn.Module) -> Any:
    """The LightningModule around a model."""
    node = OmegaConf.create(OmegaConf.to_container(cfg.task, resolve=True))
    optimizer, schedule = make(cfg.optimizer, trust=cfg.trust), make(cfg.schedule, trust=cfg.trust)
    around = make(OmegaConf.merge(node, {"_partial_": True}), trust=cfg.trust)
    return around(model=model, optimizer=optimizer, schedule=schedule)


def build_trainer(
    cfg: DictConfig, *, folder: str | Path, callbacks: Sequence["Callback"] = (), plugins: Sequence[Any] = ()
) -> "Trainer":
    """Lightning's Trainer, with everything that vitexp does itself switched off; it has no loggers.

    Raises:
        ConfigError: devices, a strategy or a precision that do not go together or are not on this machine, or not as
            many processes as devices where `srun` or `torchrun` has started them.
    """
    quiet_lightning()
    from pytorch_lightning import Trainer
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    devices: Any = cfg.trainer.devices
    if isinstance(devices, ListConfig):
        devices = OmegaConf.to_container(devices)
    if isinstance(devices, int) and devices > _DEVICES:
        raise ConfigError(f"trainer.devices={devices} is more than a machine has; use 1 to {_DEVICES} or auto")
    precision = lightning_precision(cfg.precision, cfg.trainer.accelerator)
    environment = _environment()
    try:
        trainer = Trainer(
            accelerator=cfg.trainer.accelerator,
            devices=devices,
            strategy=cfg.trainer.strategy,
            precision=precision,
            max_epochs=cfg.epochs,
            accumulate_grad_batches=cfg.trainer.accumulate,
            gradient_clip_val=cfg.trainer.clip or None,
            check_val_every_n_epoch=cfg.trainer.validate_every,
            log_every_n_steps=cfg.trainer.log_every,
            callbacks=list(callbacks),
            logger=False,
            plugins=[*plugins, *environment],
            default_root_dir=folder,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            benchmark=True,
        )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        asked = " ".join(f"trainer.{key}={cfg.trainer[key]}" for key in ("accelerator", "devices", "strategy"))
        raise ConfigError(f"{asked} cannot work here ({first_line(error)}); use auto for each") from error
    _require_processes(trainer.num_devices, devices)
    return trainer


def _require_processes(count: int, devices: object) -> None:
    """Raise ConfigError unless there are, or can be started, as many processes as devices."""
    if (processes := started()) is None and count > 1:
        require_own_address()
    elif processes not in (None, count):
        raise ConfigError(
            f"{processes} processes were started for trainer.devices={devices}, which is {count} here;"
            f" give trainer.devices={processes}, or start one process, which starts the others"
        )


def build_analysis(cfg: DictConfig) -> Any:
    """The measure of `analysis=`; None without one."""
    return None if cfg.analysis.measure is None else make(cfg.analysis.measure, trust=cfg.trust)


def device_of(cfg: DictConfig) -> torch.device:
    """The GPU where there is one and the trainer would take it, else the CPU."""
    gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def _environment() -> list[Any]:
    """The plugin by which the processes of a run find each other where SLURM is.

    Lightning takes a job for one process a device by the job's variables; here only what `srun` has started so is, and
    a single process starts the others as everywhere else. Queueing again is ours (slurm.py).
    """
    from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

    if "SLURM_JOB_ID" not in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        return []
    if started() is None:
        return [LightningEnvironment()]
    if int(os.environ.get("SLURM_STEP_NUM_NODES", "1")) > 1:
        raise ConfigError("a run has one machine, and srun has started it on several; use --nodes=1")
    try:
        return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:
        said = first_line(error)
        raise ConfigError(f"srun started the processes in another way than Lightning takes them: {said}") from error


def lightning_precision(precision: str, accelerator: str) -> Any:
    """Lightning's word for `precision`; auto is bf16 where the GPU has it, else 16 there, and 32 on the CPU.

    Raises:
        ConfigError: 16 without a GPU, where Lightning would compute in bf16 instead.
    """
    on_gpu = accelerator != "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available())
    if precision == "16" and not on_gpu:
        raise ConfigError(
            f"precision=16 needs a GPU, and trainer.accelerator={accelerator} has none here; use bf16 or 32"
        )
    if precision != "auto":
        return _PRECISION[precision]
    if accelerator == "cpu" or not torch.cuda.is_available():
        return _PRECISION["32"]
    return _PRECISION["bf16" if torch.cuda.is_bf16_supported() else "16"]


def switches(cfg: DictConfig, model: nn.Module, *, inference: bool = False) -> nn.Module:
    """Memory layout, folded norms where only evaluated, compilation: not architecture, so the output stays equal."""
    layout = channels_last(cfg, model)  # asked before folding takes the norms away
    if inference and cfg.fuse and isinstance(model, SupportsFusing):
        model.fuse()
    if layout:
        model = model.to(memory_format=torch.channels_last)
    if cfg.compile:
        model.compile()
    return model


def channels_last(cfg: DictConfig, model: nn.Module) -> bool:
    """Whether convolutions run channels-last: as asked, or where normalised convolutions make it pay."""
    asked = cfg.trainer.channels_last
    if asked not in (True, False, "auto"):
        raise ConfigError(f"trainer.channels_last={asked} is not known; use auto, true or false")
    if asked != "auto":
        return bool(asked)
    return isinstance(model, SupportsChannelsLast) or any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in counts if trains), sum(n for n, _ in counts)


def count_macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image (C, H, W), attention included: half of torch's flop count.

    Runs on the meta device, so it costs no arithmetic; the plain attention kernel is chosen, because the counter of
    some torch versions does not see the fused one.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        images = torch.empty(1, *shape)
    twin = copy.deepcopy(model).to("meta").eval().requires_grad_(False)  # the counter hooks what takes gradients
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        twin(images)
    return counter.get_total_flops() // 2


def quiet_lightning() -> None:
    """Keep Lightning's notices out of the terminal; what matters there, vitexp says itself."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*dataloader is not resumable.*",
        ".*smaller than the logging interval.*",
        ".*in eval mode at the start of training.*",
        ".*Detected call of `lr_scheduler.step.*",
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # what is logged is of all processes already
        ".*The `srun` command is available on your system but is not used.*",
    ):
        warnings.filterwarnings("ignore", message=text)
    warnings.filterwarnings("ignore", message=r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*")

"""Words of other libraries (timm, Lightning, transformers, the papers' repositories), and what to type here instead."""

from collections.abc import Iterable
from pathlib import Path

import yaml

# A key there -> the key here, or a sentence where it is another thing.
KEYS = {
    **dict.fromkeys(("max_epochs", "num_epochs", "n_epochs", "num_train_epochs", "trainer.max_epochs"), "epochs"),
    **dict.fromkeys(("batch_size", "batch", "train_batch_size", "per_device_train_batch_size"), "bs"),
    **dict.fromkeys(("learning_rate", "base_lr", "lr_base"), "lr"),
    **dict.fromkeys(("weight_decay",), "wd"),
    **dict.fromkeys(("gpus", "devices", "num_gpus", "nproc_per_node"), "trainer.devices"),
    **dict.fromkeys(("img_size", "image_size", "input_size", "resolution"), "size"),
    **dict.fromkeys(("workers", "num_workers"), "data.num_workers"),
    **dict.fromkeys(("ckpt", "ckpt_path", "weights", "initial_checkpoint"), "checkpoint"),
    **dict.fromkeys(("output_dir", "output", "save_dir"), "outputs"),
    **dict.fromkeys(("amp", "fp16", "bf16", "trainer.precision"), "precision"),
    **dict.fromkeys(
        ("accumulate_grad_batches", "grad_accum_steps", "trainer.accumulate_grad_batches"), "trainer.accumulate"
    ),
    **dict.fromkeys(("clip_grad", "gradient_clip_val", "trainer.gradient_clip_val"), "trainer.clip"),
    **dict.fromkeys(("dataset", "dataset_name"), "data"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("sched", "scheduler", "lr_scheduler"), "schedule"),
}
OPTIONS = {
    "regime": {
        **dict.fromkeys(("linear_probe", "linear", "probe", "frozen", "freeze"), "head"),
        **dict.fromkeys(("finetune", "fine_tune", "finetuning", "scratch"), "full"),
        **dict.fromkeys(("bitfit",), "bias"),
        **dict.fromkeys(("prompt", "prompt_tuning"), "vpt"),
    },
    "attention": {
        **dict.fromkeys(("flash", "sdpa", "mha", "vanilla", "dot_product", "fused"), "softmax"),
        **dict.fromkeys(("linear",), "separable"),
    },
    "optimizer": dict.fromkeys(("momentum", "sgd_momentum"), "sgd"),
}


def key_here(key: str) -> str | None:
    """The key of vitexp for one of another library's; None for an unknown one."""
    return KEYS.get(key) or KEYS.get(key.replace("-", "_"))


def option_here(group: str, option: str, files: Iterable[Path]) -> str:
    """` (type regime=head)` for an option that has another name here; for a model of a library, how to have it.

    Args:
        group: config group.
        option: as typed.
        files: of the options of the group, whose `reference.timm` says a model's name there.
    """
    here = OPTIONS.get(group, {}).get(option.replace("-", "_").lower())
    if group == "model":
        here = next((file.stem for file in files if _timm_name(file) == option.partition(".")[0]), None)
    if here is not None:
        return f"; type {group}={here}"
    return f"; a model of timm: model=timm model.name={option}" if group == "model" else ""


def _timm_name(file: Path) -> str | None:
    content = yaml.safe_load(file.read_text())
    found = content.get("reference") if isinstance(content, dict) else None
    return str(found.get("timm")).partition(".")[0] if isinstance(found, dict) else None

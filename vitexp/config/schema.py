"""The keys of a run that belong to no group, the groups, short names, and the ranges that values must keep to."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import II, MISSING

ALIASES = {
    "lr": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "bs": "data.batch_size",
    "size": "data.image_size",
    "what": "benchmark.what",
    "against": "benchmark.against",
    "backbone": "model.backbone",
}

# Groups in the order of `vitexp --help`; each is a folder of conf/.
GROUPS = (
    "model",
    "data",
    "attention",
    "regime",
    "task",
    "augment",
    "optimizer",
    "schedule",
    "trainer",
    "logger",
    "analysis",
    "sweeper",
    "experiment",
)

# Keys of a sweep (-m) that say how it goes, not what its jobs are.
SWEEP_KEYS = ("slots", "only", "new")

# Key -> what it may be, where the configuration has it; the constructors know the same, but need torch to say so.
# `boxes` is what a set with boxes says of itself; it needs augment=detection, which has no geometry.
CHOICES: dict[str, tuple[Any, ...]] = {
    "precision": ("auto", "32", "bf16", "16", "64"),
    "select": ("last", "best"),
    "benchmark.what": ("model", "runner", "start", "data", "regimes", "packing"),
    "benchmark.against": ("timm", "hf", "none"),
    "to": ("safetensors", "timm", "onnx"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.channels_last": ("auto", True, False),
    "logger.choice": ("auto", "tensorboard", "csv", "wandb", "mlflow", "trackio", "none"),
    "task.loss": ("softmax", "sigmoid"),
    "augment.geometry": ("none", "affine", "crop_flip", "resized_crop_flip", "boxes"),
    "data.geometry": ("none", "affine", "crop_flip", "resized_crop_flip", "boxes"),
    "data.interpolation": ("bilinear", "bicubic", "lanczos"),
    "data.changed": ("stop", "accept"),
    "data.on_corrupt": ("error", "skip"),
    "data.labels": ("fine", "coarse"),
    "data.sampler": ("fixed", "multi_scale", "packed"),
    "model.pool": ("token", "mean"),
    "analysis.split": ("train", "val", "test"),
}

# What `bs=auto` stands for: the global batch stays, and the number of micro-batches is found.
AUTO_BATCH = {"data.batch_size=auto": "trainer.accumulate=auto"}

# In the names of Lightning's strategies whose processes begin inside the run, without LOCAL_RANK of their own.
FORKED = ("spawn", "fork", "notebook")
# Its other strategies, as `trainer.strategy` takes them.
STRATEGIES = (
    *("auto", "single_device", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"),
    *("fsdp", "fsdp_cpu_offload", "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload"),
    *("deepspeed_stage_3", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme"),
    *("single_xla", "single_tpu", "xla", "xla_debug"),
)

POSITIVE = (
    "epochs",
    "optimizer.lr",
    "data.batch_size",
    "trainer.accumulate",
    "trainer.log_every",
    "trainer.validate_every",
    "benchmark.repeats",
    "analysis.num_images",
    "analysis.nearest",
    "analysis.repeats",
    "analysis.rounds",
    "sweeper.trials",
    "sweeper.rung",
)
NOT_NEGATIVE = (
    "seed",
    "optimizer.weight_decay",
    "data.num_workers",
    "trainer.clip",
    "trainer.checkpoint_seconds",
    "data.timeout",
    "augment.off_epochs",
    "analysis.every",
    "analysis.finetune_epochs",
    "sweeper.seed",
    "sweeper.startup",
    "sweeper.prune_after_trials",
    "sweeper.prune_after_epochs",
)
COUNTS = ("data.num_classes", "data.channels", "data.image_size")
# Shares in [0, 1] and, as tau, cosines that are worth a threshold.
SHARES = ("analysis.tau", "analysis.block_ratio", "analysis.budget")
# Shares of which something must be left: images to train on, a step that the average still follows.
BELOW_ONE = ("data.val_fraction", "data.test_fraction", "trainer.ema")


# What conf/model/*.yaml says of a published model: parameters with 1,000 classes at image_size, multiply-accumulates
# there in 10^9, the paper, ImageNet-1k top-1 in percent and whose figure that is, timm's name of the same model. Of a
# detector: parameters with COCO's 91 ids, image_size as [height, width], and COCO's average precision in percent.
REFERENCE = ("parameters", "image_size", "mean", "std", "gmacs", "paper", "top1", "source", "timm", "ap")

# what: model, runner, start, data, regimes or packing. against: timm, hf (of a detector) or none; peer: timm's name of
# the same model, null = what the model file says. batch_size: of what=model where bs= says nothing, 1 of a detector.
# repeats: rounds, one turn each.
BENCHMARK = {"what": "model", "against": "timm", "peer": None, "batch_size": 16, "repeats": 7}


@dataclass
class RunConfig:
    """Run-level keys: one word on the command line each. A group's keys live in its YAML."""

    # resume: on a data set that has changed since, stop or accept it; the rest of the group is in its file.
    data: Any = field(default_factory=lambda: {"changed": "stop"})
    regime: Any = MISSING
    task: Any = MISSING
    augment: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    analysis: Any = MISSING
    sweeper: Any = MISSING
    model: Any = MISSING
    # Every random number of the run is a function of this one.
    seed: int = 0
    # Name of the run folder; made from model, data and regime if null.
    name: str | None = None
    # Where run folders are made, relative to the working directory.
    outputs: str = "outputs"
    # The run that evaluate, predict and resume are about: `last`, a name, a unique prefix of it, or a path.
    run: str | None = None
    # resume: keys that may differ from what the run was started with, such as [trainer.clip]; it then is another run.
    resume: Any = field(default_factory=lambda: {"allow": []})
    # On SLURM, put the job back into the queue when SIGUSR1 has stopped it; it goes on in the same folder.
    requeue: bool = False
    # Weights to start from: .safetensors, .pth, .ckpt, .npz or hf:<repository>.
    checkpoint: str | None = None
    # Weights of a detector's backbone alone, such as a classifier's; read like checkpoint.
    backbone_checkpoint: str | None = None
    # Widths of a pruned model's layers; `vitexp prune` and the header of its weights fill it in.
    pruned: Any = None
    # What a regime trained on top of a frozen checkpoint: adapter.safetensors, or the folder of its run.
    adapter: str | None = None
    # concat: the runs (or adapter files) whose memories are joined.
    adapters: list[str] = field(default_factory=list)
    # How a position table is resized: official, timm_npz, timm or hf; null = as the checkpoint's origin does.
    position_method: str | None = None
    # Passes over the training images; each data set brings its own default.
    epochs: int = II("data.epochs")
    # Arithmetic: auto (bf16 where the GPU has it, else 16 there, 32 on the CPU), 32, bf16, 16 or 64.
    precision: str = "auto"
    # torch.compile the model.
    compile: bool = False
    # Which weights are tested and exported: of the last epoch, or of the best one on val.
    select: str = "last"
    # Call what configurations name though vitexp does not know it: only for files whose author you trust.
    trust: bool = False
    # No header, no progress, no card; errors still print.
    quiet: bool = False
    # predict: an image file, a folder or a glob.
    image: str | None = None
    # report: several runs to compare, names with commas or a sweep's folder.
    runs: str | None = None
    # report, dashboard: show it in the browser; the dashboard's port on this machine.
    open: bool = False
    port: int = 8765
    # export: safetensors (ours), timm, or onnx, and the file to write; null = into the run's folder.
    to: str = "safetensors"
    file: str | None = None
    # evaluate: several sizes to test at, which size=64,96,native fills in.
    sizes: list[str] = field(default_factory=list)
    # evaluate, predict, export to=onnx: fold batch norms into convolutions first; the same outputs, sooner.
    fuse: bool = True
    # -m: jobs side by side: auto (one a GPU; else by cores and memory) or a number.
    slots: Any = "auto"
    # -m: of a sweep that is continued, only its failed jobs: failed; null = all that is left.
    only: str | None = None
    # -m: a new sweep, even where one of the same jobs could be continued.
    new: bool = False
    # Published figures of the shipped model, for `vitexp list models` and the tests; each conf/model file fills it in.
    reference: Any = field(default_factory=lambda: dict.fromkeys(REFERENCE))
    # benchmark: what is timed, beside whom, and how often they take turns.
    benchmark: Any = field(default_factory=lambda: dict(BENCHMARK))
    # The option chosen in each group; filled in by vitexp.
    chosen: Any = field(default_factory=dict)

"""Dropout and drop path of a step are a function of (seed, step, rank), not of what was drawn before."""

from pytorch_lightning import Callback, LightningModule, Trainer

from vitexp.seeding import seed_step


class StepKeys(Callback):
    """Seed torch's generators before each micro-batch with its global number."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Epoch × batches per epoch + batch is the same number in a resumed run."""
        number = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        seed_step(self.seed, number, rank=trainer.global_rank)

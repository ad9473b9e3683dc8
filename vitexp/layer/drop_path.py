"""Stochastic depth by sample (Huang et al. 2016, "Deep Networks with Stochastic Depth")."""

from torch import Tensor, nn

from vitexp.errors import ConfigError


class DropPath(nn.Module):
    """Zero a residual branch of each sample with probability `rate` in training, and scale the others by 1/(1-rate).

    (B, ...) -> (B, ...); identity in evaluation. Draws from torch's generator, which the trainer seeds by step.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ConfigError(f"drop_path_rate={rate} is not a rate; it must be in [0, 1); use 0.1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * keep.div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"

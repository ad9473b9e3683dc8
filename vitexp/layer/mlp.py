"""The position-wise feed-forward net of a Transformer block (Vaswani et al. 2017, section 3.3; ViT, equation 3)."""

from torch import Tensor, nn
from torch.nn import functional as F

from vitexp.layer.init import xavier_


class Mlp(nn.Module):
    """Linear, GELU by the error function, linear: (..., D) -> (..., D), dropout after each of the two.

    Starts as the ViT authors' code does: Xavier-uniform weights, biases from N(0, 1e-6).
    """

    def __init__(self, dim: int, hidden_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.fc1, self.fc2):
            xavier_(linear)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.gelu(self.fc1(x)))
        return self.dropout(self.fc2(x))

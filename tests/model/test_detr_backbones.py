"""Every classification model of conf/model carries DETR: its last map, and no parameter that nothing reads."""

import pytest
import torch

from vitexp.build import make
from vitexp.config.compose import compose

FAMILIES = ["vit_nano", "vit_rti_16", "deepvit_s", "swinv2", "efficientvit_m0", "mobilevit_xxs", "mobilevitv2_050"]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_gradients_reach_what_trains(backbone):
    options = ["model.dim=32", "model.depths=[1,1]", "model.mlp_dim=32", "model.num_heads=4", "data.num_classes=3"]
    cfg = compose(["model=detr", f"backbone={backbone}", "size=64", *options])
    torch.manual_seed(0)
    model = make(cfg.model).train()
    out = model(torch.randn(2, 3, 64, 64))
    assert out.logits.shape == (1, 2, 100, 4)
    (out.logits.logsumexp(-1).sum() + out.boxes_cxcywh.square().sum()).backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle

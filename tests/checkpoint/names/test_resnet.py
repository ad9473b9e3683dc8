"""torchvision's ResNet loads as it is; its classifier and the counters of its norms are left out, and that is told."""

import torch

from tests.tiny_detr import tiny_resnet
from vitexp.checkpoint.load import export_names, load_weights
from vitexp.checkpoint.names.resnet import ORIGINS


def test_a_classifier_and_counters_are_dropped_and_the_rest_is_taken(tmp_path):
    model = tiny_resnet()
    ours = {name: torch.rand_like(tensor) for name, tensor in model.state_dict().items()}
    dropped = {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
    dropped |= {name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in ours if "_var" in name}
    assert ORIGINS[0].fits(list(ours | dropped))
    assert not ORIGINS[0].fits([*ours, "head.fc.weight"])
    torch.save(ours | dropped, tmp_path / "resnet.pth")
    lines = load_weights(model, tmp_path / "resnet.pth")
    assert set(lines) == {f"{name}: dropped, the model has no such layer (torchvision or timm)" for name in dropped}
    state = export_names(model)
    assert state.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in state.items())

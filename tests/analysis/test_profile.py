"""Every operation has a kind, every multiply-accumulate a part, and shares add up."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.analysis.subjects import subject
from tests.tiny import tiny_vit
from vitexp.analysis import profile
from vitexp.analysis.profile import KINDS, Profile, Profiled, _macs, kind_of
from vitexp.build import count_macs
from vitexp.errors import ConfigError


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::addmm", "arithmetic"),
        ("aten::mkldnn_convolution", "arithmetic"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "arithmetic"),
        ("aten::native_layer_norm", "normalisation"),
        ("aten::native_batch_norm", "normalisation"),
        ("aten::add_", "element-wise"),
        ("aten::gelu", "element-wise"),
        ("aten::_softmax", "element-wise"),
        ("aten::copy_", "copy"),
        ("aten::cat", "copy"),
        ("aten::transpose", "reshape"),
        ("aten::t", "reshape"),
        ("aten::roll", "reshape"),
        ("aten::never_heard_of_it", "other"),
    ],
)
def test_kinds(operation: str, kind: str) -> None:
    assert kind_of(operation) == kind


def test_multiply_accumulates_by_part() -> None:
    model = tiny_vit(dim=32, depth=2)
    images = subject(model, count=2).images
    macs = _macs(model, lambda: model(images))
    tokens, dim = 17, 32
    assert macs["mlp"] == 2 * 2 * 8 * tokens * dim * dim
    assert macs["attention"] == 2 * 2 * (4 * tokens * dim * dim + 2 * tokens * tokens * dim)
    assert sum(macs.values()) == 2 * count_macs(model, (3, 16, 16))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_shares_and_picture(tmp_path: Path) -> None:
    kinds = dict(zip(KINDS, (6.0, 1.0, 1.0, 0.5, 0.5, 1.0), strict=True))
    parts, macs = {"attention": 2.0, "mlp": 4.0, "rest": 1.0}, {"attention": 30, "mlp": 60, "rest": 10}
    measured = Profile(kinds=kinds, parts=parts, macs=macs, latency=0.5, images=4, peak=400.0)
    analysis = Profiled(repeats=2, backward=False)
    values = analysis.summary(measured)
    assert values["memory_bound_share"] == pytest.approx(0.3)
    assert values["attention_to_mlp"] == 0.5
    assert values["images_per_second"] == 8
    assert values["share_of_peak"] == 0.5
    analysis.draw({"trained": measured}, tmp_path / "profile.png", "tiny")
    assert (tmp_path / "profile.svg").is_file()
    assert len(analysis.rows(measured)) == len(KINDS) + 3


def test_backward_is_twice_the_forward_in_multiply_accumulates() -> None:
    """Of each product the gradients of both factors."""
    model = tiny_vit(dim=32, depth=2).eval()
    looked = subject(model, count=2)
    forward = _macs(model, lambda: model(looked.images))
    step = _macs(model, Profiled(repeats=1, backward=True)._work(model, looked.images, looked.labels))
    assert step["mlp"] == 3 * forward["mlp"]
    assert step["attention"] == 3 * forward["attention"]
    assert 2 * forward["rest"] <= step["rest"] <= 3 * forward["rest"], "images need no gradient"
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"nothing of this model trains; .* use analysis\.backward=false"):
        Profiled(repeats=1, backward=True).measure(looked)


def test_the_peak_is_that_of_a_matrix_product(monkeypatch) -> None:
    products: list = []

    def median_seconds(work, device, repeats: int) -> float:
        products.append(work())
        return 0.5

    monkeypatch.setattr(profile, "_median_seconds", median_seconds)
    assert profile.peak_macs(torch.device("cpu")) == 2 * 1024**3
    assert products[0].shape == (1024, 1024)


def test_the_median_of_the_repeats_counts(monkeypatch) -> None:
    ticks, calls = iter([0.0, 1.0, 10.0, 12.0, 20.0, 26.0]), []
    monkeypatch.setattr(profile.time, "perf_counter", lambda: next(ticks))
    assert profile._median_seconds(lambda: calls.append(1), torch.device("cpu"), 3) == 2.0
    assert len(calls) == 4, "the first call is not measured"


def test_events_become_kinds_and_parts(monkeypatch) -> None:
    """Times are in microseconds, of all repeats; a mark's whole time counts, an operation's own."""

    class Recorded:
        def __init__(self, **options: object) -> None: ...

        def __enter__(self) -> "Recorded":
            return self

        def __exit__(self, *error: object) -> None: ...

        def key_averages(self) -> list[SimpleNamespace]:
            rows = [("aten::mm", 6e6, 6e6), ("aten::add_", 2e6, 8e6), ("aten::mul", 1e6, 1e6), ("mlp", 9e6, 9e6)]
            rows += [("vitexp::whole", 0.0, 20e6), ("vitexp::attention", 0.0, 8e6), ("vitexp::mlp", 0.0, 6e6)]
            return [SimpleNamespace(key=k, self_cpu_time_total=own, cpu_time_total=whole) for k, own, whole in rows]

    monkeypatch.setattr(profile, "profile", Recorded)
    model, calls = tiny_vit(), []
    kinds, parts = profile._profiled(model, lambda: calls.append(1), False, 2)
    assert len(calls) == 2
    assert {kind: seconds for kind, seconds in kinds.items() if seconds} == {"arithmetic": 3.0, "element-wise": 1.5}
    assert parts == {"attention": 4.0, "mlp": 3.0, "rest": 3.0}


def test_a_measurement_holds_what_was_measured(monkeypatch) -> None:
    kinds, parts = dict.fromkeys(KINDS, 1.0), {"attention": 1.0, "mlp": 2.0, "rest": 3.0}
    monkeypatch.setattr(profile, "_profiled", lambda *arguments: (kinds, parts))
    monkeypatch.setattr(profile, "_median_seconds", lambda work, device, repeats: 0.25 if work() is None else 0.5)
    model = tiny_vit(dim=32).train()
    looked = subject(model, count=2)
    measured = Profiled(repeats=2, backward=False).measure(looked)
    assert (measured.kinds, measured.parts, measured.latency, measured.images) == (kinds, parts, 0.5, 2)
    assert measured.peak == 2 * 1024**3
    assert sum(measured.macs.values()) == 2 * count_macs(model, (3, 16, 16))
    assert model.training, "as it was"


@pytest.mark.slow  # the profiler takes seconds to start
@pytest.mark.parametrize("backward", [False, True])
def test_a_model_is_profiled(backward: bool) -> None:
    model, analysis = tiny_vit(dim=32, depth=2), Profiled(repeats=2, backward=backward)
    measured = analysis.measure(subject(model, count=2))
    values = analysis.summary(measured)
    assert sum(values[f"{kind}_share"] for kind in KINDS) == pytest.approx(1.0)
    assert 0.0 < values["memory_bound_share"] < 1.0
    assert min(measured.parts["attention"], measured.parts["mlp"], measured.latency) > 0
    assert values["other_share"] < 0.1, "operations without a kind"

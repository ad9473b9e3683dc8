"""What each slot gets: one GPU, or its share of the threads."""

from pathlib import Path

import pytest

from vitexp.errors import ConfigError
from vitexp.machine.memory import free_memory
from vitexp.sweep import slots
from vitexp.sweep.slots import Share, shares, visible_devices


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, memory for three jobs, no GPU, no limit of threads."""
    monkeypatch.setattr(slots, "usable_cores", lambda: 8)
    monkeypatch.setattr(slots, "free_memory", lambda: 7 * 2**30)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def of(given: object, *, jobs: int = 100, devices: object = "auto", strategy: str = "auto") -> list[Share]:
    return shares(given, jobs=jobs, devices=devices, strategy=strategy)


def test_threads_are_shared_out_and_memory_is_enough() -> None:
    assert of("auto") == [Share(2, None)] * 3
    assert of(4) == [Share(2, None)] * 4
    assert of(16) == [Share(1, None)] * 16
    assert of("auto", jobs=2) == [Share(4, None)] * 2, "no more slots than jobs"


def test_one_slot_is_the_job_alone() -> None:
    assert of(1) == [Share(None, None)]


def test_a_limit_of_threads_holds_for_every_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert of(2) == [Share(1, None)] * 2


def test_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_devices() == ["2", "5"]
    assert of("auto") == [Share(4, "2"), Share(4, "5")]
    assert [share.devices for share in of(4)] == ["2", "5", "2", "5"]
    assert of(1) == [Share(None, "2")]


@pytest.mark.parametrize(("devices", "strategy"), [(2, "auto"), ("auto", "ddp")])
def test_a_job_on_several_devices_has_them_all(devices: object, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert of("auto", devices=devices, strategy=strategy) == [Share(None, None)]


@pytest.mark.parametrize("given", [0, -1, "many", True, 1.5])
def test_nonsense_is_refused(given: object) -> None:
    with pytest.raises(ConfigError, match="slots=4"):
        of(given)


def test_gpus_are_counted_without_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_devices() == []


def test_a_container_has_what_its_group_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitexp.machine.memory._GROUP", tmp_path)
    unlimited = free_memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() == pytest.approx(unlimited, rel=0.2)
    for name, text in (("max", "5000000"), ("current", "4000000"), ("stat", "anon 1\ninactive_file 250000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory() == 1_250_000

"""What the doctor says of GPUs, drivers and torch, and how bad it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachepod.environment import gpu
from cachepod.environment.config import load_settings
from cachepod.environment.diagnosis import Check, Severity
from cachepod.environment.doctor_gpu import examine_gpu
from cachepod.environment.gpu import Driver, Gpu
from cachepod.environment.probe import facts

L4 = Gpu("NVIDIA L4", 24_152_899_584, "8.9", "GPU-1")
RTX_5090 = Gpu("NVIDIA GeForce RTX 5090", 34_190_917_632, "12.0", "GPU-2")
PACKAGES = ["torch==2.7.0"]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> list[Driver | None]:
    """The driver that is found, as the only item; by default there is none, and no GPU."""
    found: list[Driver | None] = [None]
    monkeypatch.setattr(gpu, "detect", lambda environ: found[0])
    monkeypatch.setattr(gpu, "usable", lambda environ: bool(found[0] and found[0].gpus))
    return found


def examined(folder: Path, **keys: object) -> dict[str, Check]:
    asked = {"packages": PACKAGES, "store": [str(folder / "store")], **keys}
    settings = load_settings(asked, {"HOME": str(folder)}, folder)
    return {check.name: check for check in examine_gpu(settings, {})}


@pytest.mark.parametrize(
    ("found", "severity", "said"),
    [
        (Driver("560.1", "12.6", (L4,), "NVML"), Severity.OK, "it runs CUDA 12.6"),
        (Driver("570.1", "12.10", (L4,), "NVML"), Severity.OK, "it runs CUDA 12.6"),
        (Driver("570.1", "", (L4,), "NVML"), Severity.OK, "it runs CUDA 12.6"),
        (Driver("550.1", "12.4", (L4,), "nvidia-smi"), Severity.NOTE, "within a major version"),
        (Driver("470.1", "11.4", (L4,), "NVML"), Severity.PROBLEM,
         'torch will find no GPU; take cuda = "11.8", or a host with driver 525 or later'),
        (Driver("570.1", "", (), "/proc", trouble="GPU is lost"), Severity.WARNING, "may not find"),
        (Driver("", trouble="no answer within 20 s"), Severity.WARNING, "may not find"),
    ],
)  # fmt: skip
def test_a_driver_is_as_good_as_the_cuda_that_is_asked_for(
    tmp_path: Path, driver: list[Driver | None], found: Driver, severity: Severity, said: str
) -> None:
    driver[0] = found
    check = examined(tmp_path, cuda="12.6")["driver"]
    assert check.severity == severity
    assert said in check.meaning
    assert found.version in check.result
    assert found.trouble in check.result


def test_the_cuda_of_torch_counts_where_none_is_configured(
    tmp_path: Path, driver: list[Driver | None]
) -> None:
    driver[0] = Driver("470.1", "11.4", (L4,), "NVML")
    checks = examined(tmp_path)
    if facts()["platform"] != "linux_x86_64":
        pytest.skip("PyPI has no CUDA build of this torch for this machine")
    assert checks["driver"].severity == Severity.PROBLEM
    assert examined(tmp_path, packages=["six"])["driver"].severity == Severity.OK


def test_gpus_are_named_with_what_is_known_of_them(
    tmp_path: Path, driver: list[Driver | None]
) -> None:
    driver[0] = Driver("570.1", "12.8", (L4, L4, Gpu("NVIDIA T4")), "NVML", hidden=1)
    check = examined(tmp_path)["GPU"]
    assert check.result == (
        "2 x NVIDIA L4 (24.2 GB, compute capability 8.9), NVIDIA T4; 1 more are hidden"
    )
    assert check.severity == Severity.OK


def test_a_gpu_that_is_too_young_for_the_cuda_is_a_problem(
    tmp_path: Path, driver: list[Driver | None]
) -> None:
    driver[0] = Driver("570.1", "12.8", (RTX_5090,), "NVML")
    check = examined(tmp_path, cuda="12.6")["GPU"]
    assert check.severity == Severity.PROBLEM
    assert check.meaning == "CUDA 12.6 has no code for it: it needs 12.8 or later"
    assert examined(tmp_path, cuda="12.8")["GPU"].severity == Severity.OK


@pytest.mark.parametrize(
    ("found", "result", "meaning"),
    [
        (Driver("550.1", "12.4", (), "NVML"), "no GPU is visible", "was given no GPU"),
        (Driver("550.1", source="/proc"), "no GPU is visible", "neither NVML nor nvidia-smi"),
        (Driver("", trouble="no answer within 20 s"), "no GPU is visible", "neither NVML nor"),
        (Driver("550.1", "12.4", (), "NVML", hidden=2), "none of 2 is visible",
         "CUDA_VISIBLE_DEVICES hides them"),
    ],
)  # fmt: skip
def test_a_driver_without_a_gpu_is_warned_of(
    tmp_path: Path, driver: list[Driver | None], found: Driver, result: str, meaning: str
) -> None:
    driver[0] = found
    check = examined(tmp_path)["GPU"]
    assert check.severity == Severity.WARNING
    assert check.result == result
    assert meaning in check.meaning


def test_a_gpu_without_its_device_is_warned_of_where_torch_would_be_left_without_it(
    tmp_path: Path, driver: list[Driver | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver[0] = Driver("570.1", "12.8", (L4,), "NVML")
    monkeypatch.setattr(gpu, "usable", lambda environ: False)
    check = examined(tmp_path, without_gpu="cpu")["GPU"]
    assert check.severity == Severity.WARNING
    assert "its device is not in /dev" in check.meaning


def test_no_gpu_is_no_trouble_and_what_is_done_without_one_is_said(
    tmp_path: Path, driver: list[Driver | None]
) -> None:
    checks = examined(tmp_path)
    assert checks["GPU"].severity == Severity.OK
    assert "all the same" in checks["GPU"].meaning
    assert "driver" not in checks
    checks = examined(tmp_path, without_gpu="cpu")
    assert "build for the CPU is installed here" in checks["GPU"].meaning
    assert "for the CPU" in checks["torch"].result
    assert "+cpu" in checks["torch"].result
    assert checks["torch"].meaning == "from https://download.pytorch.org/whl/cpu"
    checks = examined(tmp_path, without_gpu="none")
    assert "left out" in checks["GPU"].meaning
    assert checks["torch"].result == "left out"


def test_the_wheels_of_torch_are_named(tmp_path: Path, driver: list[Driver | None]) -> None:
    url = "https://me:hunter2@mirror.example/whl/{backend}?token=hunter2"
    check = examined(tmp_path, cuda="12.8", torch_index=url)["torch"]
    abi, platform = facts()["abi"], facts()["platform"]
    assert check.result == f"2.7.0 for CUDA 12.8 (wheels {abi}-{abi}, {platform}, +cu128)"
    assert check.meaning == "from https://mirror.example/whl/cu128"
    assert "hunter2" not in repr(check)
    assert "torch" not in examined(tmp_path, packages=["six"])


def test_a_torch_that_does_not_exist_is_a_problem(
    tmp_path: Path, driver: list[Driver | None]
) -> None:
    check = examined(tmp_path, cuda="12.4")["requirements"]
    assert check.severity == Severity.PROBLEM
    assert "there is no torch 2.7.0 for CUDA 12.4" in check.result


def test_an_interpreter_that_is_not_there_is_not_told_twice(
    tmp_path: Path, driver: list[Driver | None]
) -> None:
    assert set(examined(tmp_path, python="python9.9")) == {"GPU"}

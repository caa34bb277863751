from __future__ import annotations

from pathlib import Path

import pytest

from cachepod.environment.gpu import Driver, detect

OVERVIEW = """Mon Nov 23 17:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
"""
LIST = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-2222-3333-4444-555555555555)
  MIG 1g.10gb     Device  0: (UUID: MIG-11111111-2222-3333-4444-555555555555)
GPU 1: NVIDIA RTX A6000 (UUID: GPU-66666666-7777-8888-9999-000000000000)
"""
MODULE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
    "GCC version:  gcc version 12.2.0\n"
)


def smi(folder: Path, script: str) -> dict[str, str]:
    """An environment whose PATH has a program called nvidia-smi first."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


def works(folder: Path) -> dict[str, str]:
    (folder / "overview").write_text(OVERVIEW)
    (folder / "list").write_text(LIST)
    script = f'if [ "$1" = -L ]; then cat {folder}/list; else cat {folder}/overview; fi'
    return smi(folder, script)


def test_driver_cuda_and_gpus_are_told_by_nvidia_smi(tmp_path: Path) -> None:
    driver = detect(works(tmp_path), tmp_path)
    assert driver == Driver("550.54.15", "12.4", ("NVIDIA H100 80GB HBM3", "NVIDIA RTX A6000"))


def test_a_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    assert detect({"PATH": str(tmp_path)}, tmp_path) is None
    assert detect({"PATH": ""}, tmp_path) is None


@pytest.mark.parametrize("script", ["exit 9", "echo nonsense", "kill -9 $$", "printf '\\377'"])
def test_a_program_that_does_not_work_is_no_driver(tmp_path: Path, script: str) -> None:
    assert detect(smi(tmp_path, script), tmp_path) is None


def test_the_kernel_knows_the_driver_where_the_program_is_missing(tmp_path: Path) -> None:
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    (tmp_path / "driver" / "nvidia" / "version").write_text(MODULE)
    assert detect({"PATH": "/nowhere"}, tmp_path) == Driver("570.86.15", "", ())


def test_an_older_kernel_modules_words_are_understood(tmp_path: Path) -> None:
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    (tmp_path / "driver" / "nvidia" / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
    )
    driver = detect({"PATH": "/nowhere"}, tmp_path)
    assert driver is not None
    assert driver.version == "535.183.01"


def test_a_relative_folder_of_the_path_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert detect({"PATH": "bin:."}, tmp_path) is None

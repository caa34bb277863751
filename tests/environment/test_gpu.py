"""Who knows of the GPUs, and what becomes of it if one does not answer, or lies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachepod.environment import gpu_programs
from cachepod.environment.gpu import Driver, Gpu, detect, kernel_driver, usable
from tests.support.nvml import build, compiler

# Banners as nvidia-smi prints them
OLD = """Tue Mar  7 10:00:00 2023
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 470.161.03   Driver Version: 470.161.03   CUDA Version: 11.4     |
|-------------------------------+----------------------+----------------------+
"""
USUAL = """Mon Nov 23 17:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
"""
NEW = """Wed Sep 30 21:53:38 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 610.57.04              KMD Version: 610.57.04     CUDA UMD Version: 13.3     |
+-----------------------------------------+------------------------+----------------------+
"""
WSL = """| NVIDIA-SMI 595.71.01              Driver Version: 596.36         CUDA Version: 13.2     |
"""
NO_CUDA = """| NVIDIA-SMI 535.183.01           Driver Version: 535.183.01   CUDA Version: N/A      |
"""
TABLE = """GPU-11111111-2222-3333-4444-555555555555, NVIDIA H100 80GB HBM3, 81559, 9.0
GPU-66666666-7777-8888-9999-000000000000, NVIDIA RTX A6000, 49140, 8.6
"""
H100 = Gpu("NVIDIA H100 80GB HBM3", 81559 << 20, "9.0", "GPU-11111111-2222-3333-4444-555555555555")
A6000 = Gpu("NVIDIA RTX A6000", 49140 << 20, "8.6", "GPU-66666666-7777-8888-9999-000000000000")
MODULES = [
    ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
     "GCC version:  gcc version 12.2.0\n", "535.183.01"),
    ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  "
     "(dvs-builder@U16-I3-A12-1-3)  Thu Jan 23 22:50:36 UTC 2025\n", "570.86.15"),
    ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05  Release Build\n",
     "580.95.05"),
    ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  615.71.09  Release Build  "
     "(notroot@)  Sat Oct  3 18:52:37 UTC 2026\n"
     "GCC version:  Selected multilib: .;@m64\n", "615.71.09"),
]  # fmt: skip


def smi(folder: Path, script: str) -> dict[str, str]:
    """An environment whose PATH has a program called nvidia-smi first."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


def works(folder: Path, banner: str = USUAL, table: str = TABLE) -> dict[str, str]:
    (folder / "banner").write_text(banner)
    (folder / "table").write_text(table)
    script = f'case "$1" in --query*) cat {folder}/table;; *) cat {folder}/banner;; esac'
    return smi(folder, script)


def kernel(folder: Path, text: str) -> Path:
    (folder / "proc" / "driver" / "nvidia").mkdir(parents=True)
    (folder / "proc" / "driver" / "nvidia" / "version").write_text(text)
    return folder / "proc"


# nvidia-smi


def test_driver_cuda_and_gpus_are_told_by_nvidia_smi(tmp_path: Path) -> None:
    driver = detect(works(tmp_path), tmp_path)
    assert driver == Driver("550.54.15", "12.4", (H100, A6000), "nvidia-smi")


@pytest.mark.parametrize(
    ("banner", "version", "cuda"),
    [(OLD, "470.161.03", "11.4"), (NEW, "610.57.04", "13.3"), (WSL, "596.36", "13.2"),
     (NO_CUDA, "535.183.01", "")],
)  # fmt: skip
def test_every_generation_of_its_banner_is_understood(
    tmp_path: Path, banner: str, version: str, cuda: str
) -> None:
    driver = detect(works(tmp_path, banner), tmp_path)
    assert driver is not None
    assert (driver.version, driver.cuda) == (version, cuda)


def test_an_old_one_that_does_not_know_compute_capabilities_tells_the_rest(tmp_path: Path) -> None:
    (tmp_path / "banner").write_text(OLD)
    script = f"""case "$1" in
    *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;;
    --query*) echo 'GPU-1, Tesla V100-SXM2-16GB, 16160';;
    *) cat {tmp_path}/banner;; esac"""
    driver = detect(smi(tmp_path, script), tmp_path)
    assert driver is not None
    assert driver.gpus == (Gpu("Tesla V100-SXM2-16GB", 16160 << 20, "", "GPU-1"),)


@pytest.mark.parametrize(
    ("row", "gpu"),
    [
        ("GPU-1, NVIDIA GB10, [N/A], 12.1", Gpu("NVIDIA GB10", 0, "12.1", "GPU-1")),
        ("GPU-1, NVIDIA L4, -5, ERR!", Gpu("NVIDIA L4", 0, "", "GPU-1")),
        ("GPU-1, \x1b[31mNVIDIA L4\x07, 99999999999999999, 8.9",
         Gpu("[31mNVIDIA L4", 0, "8.9", "GPU-1")),
        ("GPU-1, , 5, 8.9", None),
        ("No devices were found", None),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_not_believed(tmp_path: Path, row: str, gpu: Gpu | None) -> None:
    driver = detect(works(tmp_path, table=row + "\n"), tmp_path)
    assert driver is not None
    assert driver.gpus == ((gpu,) if gpu else ())


def test_a_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    assert detect({"PATH": str(tmp_path)}, tmp_path) is None
    assert detect({"PATH": ""}, tmp_path) is None


@pytest.mark.parametrize("script", ["exit 9", "echo nonsense", "kill -9 $$", "printf '\\377'"])
def test_a_program_that_does_not_work_is_no_driver(tmp_path: Path, script: str) -> None:
    assert detect(smi(tmp_path, script), tmp_path) is None


def test_what_it_says_in_place_of_an_answer_is_kept(tmp_path: Path) -> None:
    proc = kernel(tmp_path, MODULES[0][0])
    environ = smi(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch'\n"
                            "echo 'NVML library version: 550.54'; exit 18")  # fmt: skip
    driver = detect(environ, proc)
    assert driver is not None
    assert driver.version == "535.183.01"
    assert driver.trouble == "Failed to initialize NVML: Driver/library version mismatch"


def test_a_relative_folder_of_the_path_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert detect({"PATH": "bin:."}, tmp_path) is None


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 60",
        "trap '' TERM INT HUP; sleep 60 & wait; sleep 60",
        "yes 'Driver Version: 1.2'",
    ],
)
def test_one_that_hangs_is_left_behind_in_time(tmp_path: Path, script: str) -> None:
    proc = kernel(tmp_path, MODULES[1][0])
    started = time.monotonic()
    driver = detect(smi(tmp_path, script), proc, patience=0.5)
    assert time.monotonic() - started < 30
    assert driver is not None
    assert (driver.version, driver.source) == ("570.86.15", "/proc")
    assert "no answer within" in driver.trouble


def test_a_driver_of_which_nobody_tells_in_time_is_not_taken_for_none(tmp_path: Path) -> None:
    driver = detect(smi(tmp_path, "exec sleep 60"), tmp_path, patience=0.3)
    assert driver == Driver("", trouble="no answer within 0.3 s")


def test_a_child_that_keeps_the_pipe_open_is_not_waited_for(tmp_path: Path) -> None:
    environ = works(tmp_path)
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(program.read_text() + "sleep 60 &\n")
    started = time.monotonic()
    assert detect(environ, tmp_path) is not None
    assert time.monotonic() - started < 20


# The kernel


@pytest.mark.parametrize(("text", "version"), MODULES)
def test_the_kernel_knows_the_driver_where_nobody_else_does(
    tmp_path: Path, text: str, version: str
) -> None:
    proc = kernel(tmp_path, text)
    assert kernel_driver(proc) == version
    assert detect({"PATH": "/nowhere"}, proc) == Driver(version, source="/proc")


@pytest.mark.parametrize(
    "text", ["", "\0" * 100, "NVRM version: ?\n", "x" * 100_000 + MODULES[0][0]]
)
def test_a_kernel_that_says_something_else_has_no_driver(tmp_path: Path, text: str) -> None:
    assert kernel_driver(kernel(tmp_path, text)) == ""


# NVML


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which NVML answers."""
    if compiler() is None:
        pytest.skip("there is no C compiler")
    folder = build(tmp_path_factory.mktemp("nvml") / "lib")
    return {"PATH": "/nowhere", "LD_LIBRARY_PATH": str(folder)}


L4 = [Gpu("NVIDIA L4", 24152899584, "8.9", f"GPU-0000000{number}-0000-0000-0000-000000000000")
      for number in (1, 2)]  # fmt: skip


def test_nvml_is_asked_first(tmp_path: Path, nvml: dict[str, str]) -> None:
    environ = works(tmp_path) | {"LD_LIBRARY_PATH": nvml["LD_LIBRARY_PATH"]}
    assert detect(environ, tmp_path) == Driver("570.86.15", "12.8", tuple(L4), "NVML")


def test_an_nvml_that_lacks_a_function_tells_the_rest(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("there is no C compiler")
    folder = build(tmp_path / "old", "-DOLD")
    driver = detect({"PATH": "/nowhere", "LD_LIBRARY_PATH": str(folder)}, tmp_path)
    assert driver is not None
    assert (driver.cuda, driver.gpus[1].memory, driver.gpus[1].capability) == (
        "12.8",
        24152899584,
        "",
    )


@pytest.mark.parametrize("mode", ["hang", "ignore", "shout"])
def test_an_nvml_that_hangs_is_left_behind_in_time(
    tmp_path: Path, nvml: dict[str, str], mode: str
) -> None:
    """And nvidia-smi, which would hang in the same place, is not even asked."""
    asked = tmp_path / "asked"
    environ = smi(tmp_path, f"touch {asked}") | {
        "LD_LIBRARY_PATH": nvml["LD_LIBRARY_PATH"],
        "NVML_MODE": mode,
    }
    started = time.monotonic()
    driver = detect(environ, kernel(tmp_path, MODULES[0][0]), patience=0.5)
    assert time.monotonic() - started < 30
    assert driver is not None
    assert (driver.version, driver.source) == ("535.183.01", "/proc")
    assert not asked.exists()


@pytest.mark.parametrize(
    ("mode", "trouble"),
    [("crash", "the library crashed"), ("mismatch", "Driver/library version mismatch"),
     ("exit", ""), ("nonsense", "")],
)  # fmt: skip
def test_where_nvml_fails_the_next_source_is_asked(
    tmp_path: Path, nvml: dict[str, str], mode: str, trouble: str
) -> None:
    proc = kernel(tmp_path, MODULES[0][0])
    driver = detect({**nvml, "NVML_MODE": mode}, proc)
    assert driver == Driver("535.183.01", source="/proc", trouble=trouble)
    environ = works(tmp_path) | {"LD_LIBRARY_PATH": nvml["LD_LIBRARY_PATH"], "NVML_MODE": mode}
    found = detect(environ, proc)
    assert found is not None
    assert (found.version, found.source) == ("550.54.15", "nvidia-smi")


def test_a_gpu_that_is_lost_does_not_hide_the_others(tmp_path: Path, nvml: dict[str, str]) -> None:
    driver = detect({**nvml, "NVML_MODE": "lost"}, tmp_path)
    assert driver == Driver("570.86.15", "12.8", (L4[1],), "NVML", trouble="GPU is lost")


def test_a_number_of_gpus_that_cannot_be_is_not_believed(
    tmp_path: Path, nvml: dict[str, str]
) -> None:
    driver = detect({**nvml, "NVML_MODE": "thousands"}, tmp_path)
    assert driver is not None
    assert len(driver.gpus) <= 64


def test_nvml_without_the_library_of_cuda_knows_the_driver(
    tmp_path: Path, nvml: dict[str, str]
) -> None:
    driver = detect({**nvml, "NVML_MODE": "nocuda"}, tmp_path)
    assert driver is not None
    assert (driver.version, driver.cuda, len(driver.gpus)) == ("570.86.15", "", 2)


# Whatever they say


@given(banner=st.text() | st.just(USUAL), table=st.text(), facts=st.text(), devices=st.text())
@example(USUAL, "GPU-1, NVIDIA L4, \u00b2, 8.9", "", "")
@example(USUAL, f"GPU-1, NVIDIA L4, {'9' * 5000}, 8.9", "[1]", "9" * 5000)
@example("", "", '{"driver": 1, "gpus": [1, {"name": []}], "cuda": {}, "trouble": []}', "")
@example("", "", '{"driver": "1.2", "gpus": 5, "cuda": "0.0"}', "\u0663")
def test_no_answer_of_theirs_is_more_than_wrong(
    banner: str, table: str, facts: str, devices: str
) -> None:
    def answer(command: list[str], *given: object) -> tuple[int, str]:
        if command[-1].endswith("nvml.py"):
            return 0, facts
        return 0, table if len(command) > 1 else banner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_programs, "_ask", answer)
        patch.setattr(gpu_programs, "_find", lambda *given: "/nvidia-smi")
        driver = detect({"CUDA_VISIBLE_DEVICES": devices}, Path("/nowhere"))
    if driver is not None:
        for each in driver.gpus:
            assert each.name.isprintable()
            assert 0 <= each.memory < 1 << 50


# What a process may use


@pytest.mark.parametrize(
    ("said", "gpus", "hidden"),
    [
        (None, [H100, A6000], 0), ("0,1", [H100, A6000], 0), ("1", [A6000], 1),
        ("1,0", [A6000, H100], 0), ("", [], 2), ("-1", [], 2), ("NoDevFiles", [], 2),
        ("0,7,1", [H100], 1), ("GPU-6666", [A6000], 1), ("GPU-", [], 2), ("0,0", [H100], 1),
        ("MIG-11111111-2222-3333-4444-555555555555", [H100], 1),
    ],
)  # fmt: skip
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    tmp_path: Path, said: str | None, gpus: list[Gpu], hidden: int
) -> None:
    environ = works(tmp_path)
    if said is not None:
        environ["CUDA_VISIBLE_DEVICES"] = said
    driver = detect(environ, tmp_path)
    assert driver is not None
    assert (list(driver.gpus), driver.hidden) == (gpus, hidden)


@pytest.mark.parametrize(
    ("devices", "environ", "there"),
    [
        (["null", "nvidia0", "nvidiactl", "nvidia-uvm"], {}, True),
        (["null", "nvidia11"], {}, True),
        (["null", "nvidiactl", "nvidia-uvm", "nvidia-caps"], {}, False),  # a driver and no GPU
        (["null", "dxg"], {}, True),
        (["null"], {"NVIDIA_VISIBLE_DEVICES": "all"}, False),  # asked for, not given
        (["null", "nvidia0"], {"NVIDIA_VISIBLE_DEVICES": "void"}, True),  # given by CDI
        (["null", "nvidia0"], {"CUDA_VISIBLE_DEVICES": ""}, False),
        (["null", "nvidia0"], {"CUDA_VISIBLE_DEVICES": "-1"}, False),
        (["null", "nvidia0"], {"CUDA_VISIBLE_DEVICES": "0"}, True),
    ],
)
def test_a_gpu_is_usable_if_its_device_is_there_and_not_hidden(
    tmp_path: Path, devices: list[str], environ: dict[str, str], there: bool
) -> None:
    for name in devices:
        (tmp_path / name).touch()
    assert usable(environ, tmp_path) is there


def test_nothing_is_started_to_find_out_whether_there_is_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("a program was asked")

    monkeypatch.setattr(gpu_programs, "_ask", never)
    assert usable(dict(os.environ), tmp_path) is False
    assert usable({}, tmp_path / "nothing") is False

"""What a driver runs, by its own word or by its version, and what a GPU has code for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.environment.cuda import _BRANCHES, Runs, highest, runs, too_old, unsuited
from cachepod.environment.gpu import Driver


# As the banners of nvidia-smi have them
@pytest.mark.parametrize(
    ("version", "cuda"),
    [
        ("470.161.03", "11.4"), ("510.47.03", "11.6"), ("525.60.13", "12.0"), ("530.30.02", "12.1"),
        ("535.183.01", "12.2"), ("545.23.08", "12.3"), ("550.54.15", "12.4"), ("555.42.06", "12.5"),
        ("560.35.03", "12.6"), ("565.57.01", "12.7"), ("570.86.15", "12.8"), ("575.51.03", "12.9"),
        ("580.95.05", "13.0"), ("590.48.01", "13.1"), ("595.71.05", "13.2"), ("596.36", "13.2"),
        ("610.57.04", "13.3"), ("615.71.09", "13.4"), ("617.14", "13.4"), ("390.157", ""),
    ],
)  # fmt: skip
def test_a_version_of_the_driver_tells_the_latest_cuda(version: str, cuda: str) -> None:
    assert highest(Driver(version)) == cuda


def test_what_the_driver_says_itself_counts_more() -> None:
    # a compatibility package beside an old driver
    assert highest(Driver("535.183.01", "12.8")) == "12.8"


@pytest.mark.parametrize(
    ("driver", "cuda", "found"),
    [
        (Driver("560.35.03", "12.6"), "12.6", Runs.YES),
        (Driver("570.1", "12.10"), "12.6", Runs.YES),
        (Driver("580.95.05"), "12.6", Runs.YES),
        (Driver("580.95.05"), "11.8", Runs.YES),
        (Driver("550.54.15", "12.4"), "12.6", Runs.MINOR),
        (Driver("535.183.01"), "12.8", Runs.MINOR),
        (Driver("525.60.13"), "12.9", Runs.MINOR),
        (Driver("580.95.05"), "13.2", Runs.MINOR),
        (Driver("525.53"), "12.6", Runs.NO),  # a beta before the first that is good enough
        (Driver("520.61.05"), "12.0", Runs.NO),
        (Driver("575.51.03", "12.9"), "13.0", Runs.NO),
        (Driver("470.161.03"), "11.8", Runs.MINOR),
        (Driver("390.157"), "11.8", Runs.NO),
        (Driver("700.10"), "13.9", Runs.UNKNOWN),
        (Driver("700.10"), "13.0", Runs.YES),
        (Driver(""), "12.6", Runs.UNKNOWN),
    ],
)  # fmt: skip
def test_a_driver_runs_what_it_knows_and_what_is_of_its_major_version(
    driver: Driver, cuda: str, found: Runs
) -> None:
    assert runs(driver, cuda) is found


@given(st.sampled_from(_BRANCHES), st.sampled_from(_BRANCHES))
def test_a_later_driver_runs_all_that_an_earlier_one_runs(
    one: tuple[int, str], other: tuple[int, str]
) -> None:
    (early, cuda), (late, _) = sorted([one, other])
    assert runs(Driver(f"{late}.99.99"), cuda) is Runs.YES
    assert runs(Driver(f"{early}.99.99"), cuda) is Runs.YES


def test_a_driver_that_is_too_old_is_said_with_what_to_do() -> None:
    why, hint = too_old(Driver("535.183.01"), "13.0", ("12.6", "12.8", "13.0"))
    assert why == (
        "the driver 535.183.01 runs CUDA up to 12.2, and 13.0 is asked for: torch will find no GPU"
    )
    assert hint == (
        'take cuda = "12.8", or a host with driver 580 or later, '
        "or, on data-centre GPUs, NVIDIA's package cuda-compat-13-0"
    )
    why, hint = too_old(Driver("390.157"), "12.6")
    assert why.startswith("the driver 390.157 runs no CUDA of 11.0 or later, and 12.6 is asked for")
    assert "another CUDA release" in hint


@pytest.mark.parametrize(
    ("capability", "cuda", "wrong"),
    [
        ("8.9", "12.6", ""), ("8.9", "11.7", ""), ("9.0", "12.6", ""), ("12.0", "12.8", ""),
        ("7.5", "13.0", ""), ("7.0", "12.8", ""), ("12.1", "13.0", ""),
        ("12.0", "12.6", "CUDA 12.6 has no code for it: it needs 12.8 or later"),
        ("10.0", "12.4", "CUDA 12.4 has no code for it: it needs 12.8 or later"),
        ("9.0", "11.7", "CUDA 11.7 has no code for it: it needs 11.8 or later"),
        ("7.0", "13.0", "CUDA 13.0 has no code for it: 13.x left GPUs before 7.5"),
        ("3.7", "12.1", "CUDA 12.1 has no code for it: 12.x left GPUs before 5.0"),
    ],
)  # fmt: skip
def test_a_gpu_is_younger_or_older_than_some_releases(
    capability: str, cuda: str, wrong: str
) -> None:
    assert unsuited(capability, cuda) == wrong

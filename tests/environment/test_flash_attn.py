"""Installing flash-attn: the wheel that fits what is installed, from where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.environment import download
from cachepod.environment.install import InstallReport
from tests.support.flash import (
    Releases,
    add_flash,
    add_torch,
    flash_index,
    other_pythons,
    python_tag,
    releases,
    wheel_name,
)
from tests.support.installs import INSTALLERS, Notes, installed, run
from tests.support.wheels import Index

BUILD = "import flash_attn; print(flash_attn.__version__, flash_attn.BUILD)"


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return flash_index(tmp_path / "index")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    """GitHub's releases, with one of 2.8.0.post2 and, as it is in truth, none of 2.8.0."""
    monkeypatch.setattr(download, "PAUSE", 0.01)
    add_flash(tmp_path / "served" / "2.8.0.post2", "2.8.0.post2")
    with releases(tmp_path / "served") as server:
        yield server


def with_flash(tmp_path: Path, index: Index, *packages: str, **keys: object) -> InstallReport:
    """Install torch and what is asked for."""
    return installed(tmp_path, index, "torch", *packages, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("installer", INSTALLERS)
def test_the_first_version_that_has_a_fitting_wheel_is_installed(
    tmp_path: Path, index: Index, served: Releases, installer: str
) -> None:
    notes = Notes()
    report = with_flash(
        tmp_path, index, flash_attn=["2.8.0", "2.8.0.post2"], flash_attn_sources=[served.url],
        installer=installer, progress=notes,
    )  # fmt: skip
    prefix = tmp_path / "env"
    assert run(prefix, BUILD) == "2.8.0.post2 cu12torch2.7cxx11abiTRUE"
    assert report.flash_attn is not None
    assert report.flash_attn.outcome == "installed"
    assert report.flash_attn.wheel == wheel_name("2.8.0.post2")
    assert len(report.flash_attn.tried) == 1
    assert "404 Not Found" in report.flash_attn.tried[0]
    assert report.packages == 3
    assert "flash-attn" in notes.phases
    assert os.listdir(prefix / ".cachepod") == ["stamp.json"]
    # the plus sign is a blank to some servers unless it is written out
    assert [path for path in served.asked if "+" in path and "objects" not in path] == []


def test_a_wheel_is_looked_for_by_what_is_installed_and_not_by_what_was_asked_for(
    tmp_path: Path, index: Index, served: Releases
) -> None:
    add_torch(index, "2.6.1+cu118", cuda="11.8", abi=False)
    build = "cu11torch2.6cxx11abiFALSE"
    add_flash(served.folder / "2.8.0", "2.8.0", build=build)
    installed(tmp_path, index, "torch<2.7", flash_attn=["2.8.0"], flash_attn_sources=[served.url])
    assert run(tmp_path / "env", BUILD) == f"2.8.0 {build}"


@pytest.mark.parametrize("python", other_pythons(), ids=lambda path: path.name)
def test_each_python_gets_its_own_wheel(tmp_path: Path, index: Index, python: Path) -> None:
    tag = python_tag(python)
    for each in ("cp310", "cp311", "cp312", "cp313"):
        add_flash(tmp_path / "wheels", tag=each, code=f"TAG = {each!r}")
    with_flash(
        tmp_path, index, python=str(python), flash_attn=["2.8.0"],
        flash_attn_sources=[str(tmp_path / "wheels")],
    )  # fmt: skip
    assert run(tmp_path / "env", "import flash_attn; print(flash_attn.TAG)") == tag

"""A CUDA tree in the start-up hook: captured where there is one, restored where there is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.cuda import listing, make_tree
from tests.support.project import Project


@pytest.fixture
def place(project: Project) -> Path:
    """Where the configuration of *project* wants a CUDA tree, with one there."""
    place = project.root / "local" / "cuda-13.0"
    project.configure(more=f'toolkit = "{place}"')
    return make_tree(place)


def wipe(project: Project, place: Path) -> None:
    """What a new container does not have."""
    project.wipe()
    shutil.rmtree(place.parent)


def test_a_cuda_tree_is_restored_with_the_links_to_it(project: Project, place: Path) -> None:
    before = listing(place)
    project.ready()
    wipe(project, place)
    result = project.run("restore")
    assert result.code == 0, result.err
    assert listing(place) == before
    assert os.readlink(place.parent / "cuda") == str(place)
    assert os.readlink(place.parent / "cuda-13") == "cuda-13.0"
    assert "stays" not in result.err


def test_a_cuda_tree_that_is_not_there_is_said_before_anything_is_downloaded(
    project: Project, place: Path
) -> None:
    wipe_all = shutil.rmtree
    wipe_all(place.parent)
    result = project.run("install")
    assert result.code == 2
    assert f"cachepod.toml:5: toolkit: there is no CUDA tree at {place}" in result.err
    assert "Traceback" not in result.err
    assert not project.prefix.exists()


def test_the_tree_of_the_image_itself_stays_and_the_rest_is_restored(
    project: Project, place: Path
) -> None:
    project.ready()
    project.wipe()
    (place / "include/version-of-this-tree.h").write_text("another")
    before = listing(place)
    result = project.run("restore")
    assert result.code == 0, result.err
    assert project.version_of("alpha") == "1.0"
    assert listing(place) == before
    assert project.run("publish", "--json").json["outcome"] == "present"


def test_commands_find_the_toolkit_by_its_variables(project: Project, place: Path) -> None:
    project.ready()
    said = project.run(
        "run",
        "--",
        "sh",
        "-c",
        "command -v nvcc; echo $CUDA_HOME; echo $LD_LIBRARY_PATH; echo $PATH",
    ).out.splitlines()
    assert said[0] == f"{place}/bin/nvcc"
    assert said[1] == str(place)
    assert said[2].split(":")[-1] == f"{place}/lib64"
    assert said[3].split(":")[:2] == [f"{project.prefix}/bin", f"{place}/bin"]

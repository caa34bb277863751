"""A CUDA tree in the start-up hook: captured where there is one, restored where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.cuda import listing, make_tree
from tests.support.imports import imported_by
from tests.support.mounts import tmpfs
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
    shutil.rmtree(place.parent)
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


def test_other_requirements_take_the_tree_from_the_snapshot_that_has_it(
    project: Project, place: Path
) -> None:
    before = listing(place)
    project.ready()
    wipe(project, place)
    project.configure('["alpha==2.0"]', more=f'toolkit = "{place}"')
    missed = project.run("restore")
    assert missed.code == 4
    assert f"the CUDA toolkit in {place} comes from " in missed.err
    assert listing(place) == before
    project.ready()
    wipe(project, place)
    assert project.run("restore").code == 0
    assert project.version_of("alpha") == "2.0"
    assert listing(place) == before
    assert os.readlink(place.parent / "cuda") == str(place)


def test_the_tree_comes_from_another_family_as_well(project: Project, place: Path) -> None:
    before = listing(place)
    project.ready()
    wipe(project, place)
    project.configure(more=f'toolkit = "{place}"\ncuda = "12.6"')
    missed = project.run("restore")
    assert missed.code == 3
    assert listing(place) == before
    project.ready()


def test_force_puts_the_snapshots_tree_in_the_place_of_the_images_own(
    project: Project, place: Path
) -> None:
    before = listing(place)
    project.ready()
    project.wipe()
    (place / "include/version-of-this-tree.h").write_text("another")
    assert project.run("restore", "--force").code == 0
    assert listing(place) == before


def test_a_copy_of_a_snapshot_tells_what_lies_around_the_tree(
    project: Project, place: Path
) -> None:
    key = project.ready()
    assert project.run("copy", "store", "second").code == 0
    shutil.rmtree(project.store)
    wipe(project, place)
    shown = project.run("show", key, "--store", "second", "--json").json
    (tree,) = (each for each in shown["trees"] if each["name"] == "cuda")
    assert tree["around"]["links"] == {"cuda": True, "cuda-13": False}
    assert f"{place} (CUDA 13.0.88)" in project.run("show", key, "--store", "second").out
    assert project.run("restore", "--store", "second").code == 0
    assert os.readlink(place.parent / "cuda") == str(place)


def test_a_publish_after_a_hit_looks_at_no_tree(project: Project, place: Path) -> None:
    project.ready()
    wipe(project, place)
    assert project.run("restore").code == 0
    done, imported = imported_by("publish", cwd=project.root)
    assert done.code == 0
    assert " present in " in done.err
    assert not imported & {
        "cachepod.environment.around",
        "cachepod.environment.cudatree",
        "cachepod.snapshot.scan",
        "zstandard",
        "subprocess",
    }


def test_the_key_of_a_cuda_tree_is_its_place(project: Project, place: Path) -> None:
    with_tree = project.run("key", "-q").out
    shutil.rmtree(place.parent)
    assert project.run("key", "-q").out == with_tree
    lines = project.run("key", "--explain").out.splitlines()
    assert ["toolkit", str(place), "cachepod.toml:5"] in [line.split() for line in lines]
    project.configure(more=f'toolkit = "{place}.1"')
    assert project.run("key", "-q").out != with_tree


def test_a_toolkit_alone_needs_no_requirements(project: Project, place: Path) -> None:
    (project.root / "cachepod.toml").write_text(f'store = ["store"]\ntoolkit = "{place}"\n')
    before = listing(place)
    for command, code in (("restore", 3), ("install", 0), ("publish", 0)):
        assert project.run(command).code == code
    shutil.rmtree(place.parent)
    assert project.run("restore").code == 0
    assert listing(place) == before


def test_a_toolkit_of_the_image_alone_is_no_trouble(project: Project, place: Path) -> None:
    (project.root / "cachepod.toml").write_text(f'store = ["store"]\ntoolkit = "{place}"\n')
    before = listing(place)
    assert project.run("publish").code == 0
    again = project.run("restore")
    assert again.code == 0, again.err
    assert listing(place) == before


@pytest.mark.parametrize(
    ("toolkit", "more", "sentence"),
    [
        ("/usr/local", "", "toolkit: /usr/local holds more than a CUDA toolkit"),
        ("{root}", "", "the toolkit ({root}) and the prefix ({root}/.venv) overlap"),
        ("{root}/cuda", '[trees]\ncuda = "/data"', "the tree cuda is the toolkit's own name"),
    ],
)
def test_a_place_that_cannot_be_a_toolkits_is_refused(
    project: Project, toolkit: str, more: str, sentence: str
) -> None:
    project.configure(more=f'toolkit = "{toolkit.format(root=project.root)}"\n{more}')
    result = project.run("key")
    assert result.code == 2
    assert "cachepod.toml:" in result.err
    assert sentence.format(root=project.root) in result.err


def test_a_link_to_a_toolkit_is_not_captured_in_its_place(project: Project, place: Path) -> None:
    link = place.parent / "cuda"
    project.configure(more=f'toolkit = "{link}"')
    result = project.run("install")
    assert result.code == 2
    assert f"cachepod.toml:5: toolkit: {link} is a link to {place}; name the tree" in result.err


def test_a_directory_without_a_compiler_is_no_toolkit(project: Project, place: Path) -> None:
    (project.root / "other").mkdir()
    project.configure(more='toolkit = "./other"')
    result = project.run("install")
    assert result.code == 2
    assert "other is not a CUDA tree, there is neither nvcc nor cuda.h in it" in result.err


def test_without_the_tree_the_rest_starts_if_that_is_allowed(project: Project, place: Path) -> None:
    more = f'toolkit = "{place}"\napt_missing = "warning"'
    project.configure(more=more)
    shutil.rmtree(place.parent)
    assert project.run("restore").code == 3
    installed = project.run("install")
    assert installed.code == 0
    assert f"there is no CUDA tree at {place}" in installed.err
    assert "; going on without" in installed.err
    published = project.run("publish")
    assert published.code == 0
    assert f"it lacks the CUDA toolkit {place}" in published.err
    assert project.manifests() == []
    assert project.run("run", "--", "sh", "-c", "echo [$CUDA_HOME]").out == "[]\n"


@pytest.fixture
def forbidden(project: Project, place: Path) -> Iterator[str]:
    """The place of a tree that this user may not make; the snapshot has it."""
    project.ready()
    wipe(project, place)
    place.parent.mkdir(mode=0o500)
    with ExitStack() as stack:
        if os.geteuid() == 0:  # whom a mode does not keep out
            stack.enter_context(tmpfs(place.parent, 1 << 20, "ro"))
        yield f"toolkit: this user may not make {place}"
    place.parent.chmod(0o700)


def test_a_place_that_this_user_may_not_make_is_named(project: Project, forbidden: str) -> None:
    for command in ("restore", "install"):
        result = project.run(command)
        assert result.code == 2
        assert f"cachepod.toml:5: {forbidden}; run the container as root" in result.err


def test_a_snapshot_is_restored_without_a_tree_that_cannot_be_made_if_that_is_allowed(
    project: Project, place: Path, forbidden: str
) -> None:
    project.configure(more=f'toolkit = "{place}"\napt_missing = "warning"')
    result = project.run("restore")
    assert result.code == 0
    assert forbidden in result.err
    assert project.version_of("alpha") == "1.0"
    assert project.run("publish", "--json").json["outcome"] == "present"

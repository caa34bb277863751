"""What lies around a CUDA tree: seen where it was captured, made again where it was restored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cachepod.environment.around import settle
from cachepod.environment.config import Settings, load_settings
from cachepod.environment.cudatree import around_of, release_of
from cachepod.environment.diagnosis import Check, Severity
from cachepod.environment.doctor_toolkit import examine_toolkit
from cachepod.environment.toolkit import CACHE, linker_knows
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.surroundings import Surroundings
from cachepod.snapshot.progress import NoProgress
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.restore import Target, restore
from cachepod.stores.memory import MemoryStore
from tests.support.cuda import make_tree

LDCONFIG = os.access("/sbin/ldconfig", os.X_OK)


class Told(NoProgress):
    """Keeps what a user would be told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Machine:
    """A directory with a place for a CUDA tree and files of the dynamic linker's of its own."""

    def __init__(self, root: Path) -> None:
        self.place = root / "löcal" / "cuda-13.0"
        self.etc = root / "etc"
        (self.etc / "ld.so.conf.d").mkdir(parents=True)
        (self.etc / "ld.so.conf").write_text(f"include {self.etc}/ld.so.conf.d/*.conf\n")
        self.settings: Settings = load_settings({"toolkit": str(self.place)}, {}, root)
        self.told = Told()

    def settle(self, *, fresh: bool = False) -> list[str]:
        self.told.notes.clear()
        settle(self.settings, self.told, fresh=fresh, etc=self.etc)
        return self.told.notes

    def configuration(self, name: str) -> Path:
        return self.etc / "ld.so.conf.d" / name

    @property
    def linked(self) -> bool:
        return linker_knows(self.place / "lib64", self.etc)


@pytest.fixture
def source(tmp_path: Path) -> Machine:
    """Where a tree was installed, as packages do it."""
    machine = Machine(tmp_path / "source")
    make_tree(machine.place)
    machine.configuration("000_cuda.conf").write_text(
        f"# the one that is chosen\n{machine.place.parent}/cuda/targets/x86_64-linux/lib\n"
    )
    machine.configuration("zz-cuda-13-0.conf").write_text(f"{machine.place}/lib\n")
    machine.configuration("libc.conf").write_text("/usr/local/lib\n")
    return machine


@pytest.fixture
def bring(tmp_path: Path, source: Machine) -> Callable[[], Machine]:
    """Restores the tree of *source* on a new machine, without what lies around it."""

    def brought() -> Machine:
        store, fingerprint = MemoryStore(), Fingerprint("trees", {"toolkit": "here"})
        found = TreeSource("cuda", source.place, around_of(source.place, source.etc))
        publish(store, fingerprint.key, fingerprint, [found])
        machine = Machine(tmp_path / "new")
        restore(store, fingerprint.key, [Target("cuda", machine.place)])
        return machine

    return brought


def test_links_and_linker_files_are_seen_whichever_way_they_name_the_tree(source: Machine) -> None:
    (source.place.parent / "cuda-12").symlink_to("cuda-12.4")
    (source.place.parent / "other").symlink_to(source.place)
    assert around_of(source.place, source.etc) == Surroundings(
        links={"cuda": True, "cuda-13": False},
        linker={
            "000_cuda.conf": ("cuda/targets/x86_64-linux/lib",),
            "zz-cuda-13-0.conf": ("./lib",),
        },
        release="13.0.88",
    )


def test_a_link_through_the_alternatives_is_seen_as_one_to_the_tree(source: Machine) -> None:
    link = source.place.parent / "cuda"
    link.unlink()
    alternative = source.etc / "alternatives" / "cuda"
    alternative.parent.mkdir()
    alternative.symlink_to(source.place)
    link.symlink_to(alternative)
    assert around_of(source.place, source.etc).links == {"cuda": True, "cuda-13": False}


def test_nothing_around_a_tree_is_nothing(tmp_path: Path) -> None:
    place = make_tree(tmp_path / "cuda-13.0")
    for name in ("cuda", "cuda-13"):
        (tmp_path / name).unlink()
    around = around_of(place, tmp_path / "etc")
    assert (around.links, around.linker) == ({}, {})


@pytest.mark.parametrize(
    ("files", "release"),
    [
        ({"version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.3"}}'}, "12.6.3"),
        ({"version.txt": "CUDA Version 10.2.89\n"}, "10.2.89"),
        ({"version.json": "[]", "include/cuda.h": "#define CUDA_VERSION 12060\n"}, "12.6"),
        ({"include/cuda.h": "// nothing\n"}, ""),
        ({}, ""),
    ],
)
def test_a_release_is_read_from_what_the_tree_has(
    tmp_path: Path, files: dict[str, str], release: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert release_of(tmp_path) == release


@pytest.mark.skipif(not LDCONFIG, reason="there is no ldconfig")
def test_links_and_linker_files_are_made_again_once(bring: Callable[[], Machine]) -> None:
    machine = bring()
    assert not machine.linked
    assert machine.settle(fresh=True) == []
    assert machine.linked
    place = machine.place
    assert os.readlink(place.parent / "cuda") == str(place)
    assert os.readlink(place.parent / "cuda-13") == place.name
    listed = machine.configuration("000_cuda.conf").read_text()
    assert listed == f"{place.parent}/cuda/targets/x86_64-linux/lib\n"
    assert machine.configuration("zz-cuda-13-0.conf").read_text() == f"{place}/lib\n"
    assert len(list(machine.configuration("").iterdir())) == 2
    before = (machine.etc / CACHE).stat().st_mtime_ns
    assert machine.settle() == []
    assert (machine.etc / CACHE).stat().st_mtime_ns == before


@pytest.mark.skipif(not LDCONFIG, reason="there is no ldconfig")
def test_what_a_killed_start_left_undone_is_done_by_the_next(bring: Callable[[], Machine]) -> None:
    machine = bring()
    machine.settle(fresh=True)
    for path in (
        machine.etc / CACHE,
        machine.configuration("000_cuda.conf"),
        machine.place.parent / "cuda-13",
    ):
        path.unlink()
        assert machine.settle() == []
        assert path.exists()
        assert machine.linked


def test_what_is_something_elses_stays_and_is_named(bring: Callable[[], Machine]) -> None:
    machine = bring()
    other = machine.place.parent / "cuda-12.4"
    other.mkdir()
    (machine.place.parent / "cuda").symlink_to(other)
    (machine.place.parent / "cuda-13").mkdir()
    machine.configuration("zz-cuda-13-0.conf").write_text("/opt/lib\n")
    notes = machine.settle()
    place = machine.place
    assert notes == [
        f"{place.parent}/cuda is a link to {other} and stays so; the toolkit is {place}",
        f"{place.parent}/cuda-13 is no link and stays so; the toolkit is {place}",
        f"{machine.configuration('zz-cuda-13-0.conf')} lists other directories and stays as it is",
    ]
    assert (place.parent / "cuda").resolve() == other
    assert not machine.configuration("000_cuda.conf").exists()
    assert machine.configuration("zz-cuda-13-0.conf").read_text() == "/opt/lib\n"


def test_a_user_without_root_is_told_once_what_is_lacking(
    bring: Callable[[], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = bring()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cachepod.environment.around.os.symlink", refuse)
    monkeypatch.setattr("cachepod.environment.around.os.replace", refuse)
    notes = machine.settle(fresh=True)
    assert len(notes) == 1
    assert f"{machine.place.parent}/cuda, " in notes[0]
    assert "zz-cuda-13-0.conf cannot be written here" in notes[0]
    assert list(machine.configuration("").iterdir()) == []
    assert not (machine.etc / CACHE).exists()


def test_doctor_says_what_it_sees_of_a_toolkit(
    bring: Callable[[], Machine], source: Machine, tmp_path: Path
) -> None:
    def told(machine: Machine, path: str = os.defpath) -> dict[str, Check]:
        found = examine_toolkit(machine.settings, {"PATH": path}, machine.etc)
        return {check.name: check for check in found}

    own = told(source, str(tmp_path))
    assert own["directory"].result == f"{source.place}, 13.0.88"
    assert "this image's own" in own["directory"].meaning
    assert own["libraries"].severity is Severity.NOTE
    assert own["compiler"].result == "there is no g++"
    assert told(bring())["directory"].meaning == "cachepod brought it"
    nowhere = Machine(tmp_path / "nowhere")
    (lacking,) = told(nowhere).values()
    assert lacking.result == f"{nowhere.place} does not exist"
    nowhere.place.mkdir(parents=True)
    (wrong,) = told(nowhere).values()
    assert wrong.severity is Severity.PROBLEM
    assert "is not a CUDA tree" in wrong.result


def test_the_tree_of_the_image_is_not_touched(source: Machine) -> None:
    before = sorted(source.place.parent.iterdir())
    (source.place.parent / "cuda").unlink()
    assert source.settle(fresh=True) == []
    assert sorted(source.place.parent.iterdir()) == [path for path in before if path.name != "cuda"]

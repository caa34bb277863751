from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.environment.filesystem import (
    PROBES,
    can_be_renamed,
    existing,
    mtime_granularity,
    try_probe,
    workshop,
)
from cachepod.stores.local import temporary_of
from tests.support.faults import failing


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A fresh tmpfs, which has all that a local file system has but, before Linux 6.6, O_DIRECT."""
    with mounted("tmpfs", tmp_path / "tmpfs", "tmpfs", "size=16m") as point:
        yield point


class mounted:  # noqa: N801
    """Mount a file system for as long as the ``with`` lasts, or skip the test."""

    def __init__(self, kind: str, point: Path, device: str, options: str) -> None:
        self.command = ["mount", "-t", kind, "-o", options, device, str(point)]
        self.point = point

    def __enter__(self) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root mounts")
        self.point.mkdir()
        done = subprocess.run(self.command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        return self.point

    def __exit__(self, *unused: object) -> None:
        subprocess.run(["umount", str(self.point)], check=True)


@pytest.mark.parametrize("name", [name for name in PROBES if name != "O_DIRECT"])
def test_a_local_file_system_can_do_everything(tmp_path: Path, name: str) -> None:
    assert try_probe(name, tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "function", "code"),
    [
        ("rename", "rename", errno.EIO),
        ("link", "link", errno.EPERM),
        ("O_EXCL", "open", errno.EIO),
        ("fsync", "fsync", errno.EINVAL),
        ("fsync of a directory", "fsync", errno.EINVAL),
        ("chmod", "chmod", errno.EPERM),
        ("O_DIRECT", "open", errno.EINVAL),
    ],
)
def test_a_refusal_is_told_in_the_kernels_words(
    tmp_path: Path, name: str, function: str, code: int
) -> None:
    with failing(function, code):
        assert try_probe(name, tmp_path) == os.strerror(code)


def test_locks_that_everybody_gets_are_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, flags: None)
    assert try_probe("flock", tmp_path) == "two held it at once"


def test_modes_that_are_ignored_are_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chmod", lambda path, mode: None)
    assert try_probe("chmod", tmp_path) == "a change of mode was ignored"


def test_a_rename_that_copies_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "rename", lambda old, new: Path(new).write_bytes(Path(old).read_bytes())
    )
    assert try_probe("rename", tmp_path) == "it did not replace the other file"


@pytest.mark.parametrize(
    "granularity", [1, 100, 1000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000]
)
def test_the_granularity_of_times_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granularity: int
) -> None:
    utime = os.utime

    def coarse(path: object, *, ns: tuple[int, int]) -> None:
        kept = ns[0] // granularity * granularity
        utime(path, ns=(kept, kept))  # type: ignore[call-overload]

    monkeypatch.setattr(os, "utime", coarse)
    assert mtime_granularity(tmp_path) == granularity


def test_times_that_cannot_be_set_have_no_granularity(tmp_path: Path) -> None:
    with failing("utime", errno.EPERM):
        assert mtime_granularity(tmp_path) is None


def test_a_workshop_leaves_nothing_behind(tmp_path: Path) -> None:
    with workshop(tmp_path) as work:
        assert temporary_of(work.name) is not None
        (work / "a" / "b").mkdir(parents=True)
        (work / "a" / "file").write_bytes(b"1")
    assert os.listdir(tmp_path) == []


def test_the_nearest_existing_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert existing(tmp_path) == tmp_path
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert existing(tmp_path / "file" / "a") == tmp_path


def test_a_directory_is_still_itself_after_the_question_whether_it_can_be_renamed(
    tmp_path: Path,
) -> None:
    tree = tmp_path / "tree"
    (tree / "in" / "it").mkdir(parents=True)
    inode = tree.stat().st_ino
    assert can_be_renamed(tree)
    assert tree.stat().st_ino == inode
    assert os.listdir(tmp_path) == ["tree"]
    assert os.listdir(tree) == ["in"]


def test_an_empty_directory_can_be_asked_too(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    assert can_be_renamed(tmp_path / "tree")
    assert os.listdir(tmp_path) == ["tree"]


def test_a_file_system_that_replaces_full_directories_is_not_tried_on_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file system does so; if one did, the tree would be at stake."""
    tree = tmp_path / "tree"
    (tree / "precious").mkdir(parents=True)
    asked: list[str] = []
    monkeypatch.setattr(os, "rename", lambda old, new: asked.append(os.fspath(old)))
    assert not can_be_renamed(tree)
    assert str(tree) not in asked
    assert (tree / "precious").is_dir()


def test_a_parent_that_cannot_be_written_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with failing("mkdir", errno.EACCES):
        assert not can_be_renamed(tmp_path / "tree")


@pytest.mark.root
def test_a_mount_point_cannot_be_renamed(tmpfs: Path) -> None:
    assert not can_be_renamed(tmpfs)
    (tmpfs / "tree").mkdir()
    assert can_be_renamed(tmpfs / "tree")


@pytest.mark.root
def test_a_tree_of_an_image_cannot_be_renamed_and_one_made_later_can(tmpfs: Path) -> None:
    for name in ("lower/image/tree", "upper", "work"):
        (tmpfs / name).mkdir(parents=True)
    (tmpfs / "lower/image/tree/file").write_bytes(b"1")
    options = ",".join(f"{name}dir={tmpfs / name}" for name in ("lower", "upper", "work"))
    with mounted("overlay", tmpfs / "merged", "overlay", options) as merged:
        (merged / "image" / "new").mkdir()
        assert not can_be_renamed(merged / "image" / "tree")
        assert can_be_renamed(merged / "image" / "new")
        assert sorted(os.listdir(merged / "image")) == ["new", "tree"]
        assert os.listdir(merged / "image" / "tree") == ["file"]
        assert try_probe("RENAME_EXCHANGE", merged / "image") == ""

"""What goes into a store comes back as it was."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from cachepod.model.fingerprint import Fingerprint
from cachepod.snapshot import scan as scan_module
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.progress import NoProgress
from cachepod.snapshot.publish import PublishReport, TreeSource, publish
from cachepod.snapshot.restore import RestoreReport, Target, restore
from cachepod.stores.base import WriteStore
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.trees import (
    MTIME,
    Directory,
    File,
    Link,
    Same,
    Sparse,
    look,
    make,
    trees,
)

NOTHING = Fingerprint("trees", {})


def store_tree(store: WriteStore, root: Path, key: str = "k", **options: object) -> PublishReport:
    return publish(store, key, NOTHING, [TreeSource("data", root)], **options)  # type: ignore[arg-type]


def bring(store: WriteStore, root: Path, key: str = "k", **options: object) -> RestoreReport:
    options.setdefault("min_free", 0.0)
    return restore(store, key, [Target("data", root)], **options)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees)
def test_any_tree_comes_back_as_it_was(tree: Directory) -> None:
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        source = make(room / "source", tree)
        store = MemoryStore()
        before = look(source)
        store_tree(store, source)
        bring(store, room / "there")
        assert look(room / "there") == before
        assert bring(store, room / "there").outcome == "confirmed"
        remove_tree(source)
        remove_tree(room / "there")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=trees, second=trees)
def test_any_tree_turns_into_any_other(first: Directory, second: Directory) -> None:
    with tempfile.TemporaryDirectory() as place:
        room = Path(place)
        store = MemoryStore()
        store_tree(store, make(room / "one", first), "one")
        store_tree(store, make(room / "two", second), "two")
        bring(store, room / "there", "one")
        bring(store, room / "there", "two")
        assert look(room / "there") == look(room / "two")
        assert bring(store, room / "there", "two").outcome == "confirmed"
        for name in ("one", "two", "there"):
            remove_tree(room / name)


def everything() -> Directory:
    blob = os.urandom(1024)
    return Directory(
        {
            b"empty": File(),
            b"empty directory": Directory(),
            b"closed": Directory({b"inside": File(b"x" * 10, 0o400)}, mode=0o555),
            b"script": File(b"#!/bin/sh\n", 0o755),
            b"sticky": Directory(mode=0o1777),
            b"dangling": Link(b"nowhere"),
            b"absolute": Link(b"/etc/passwd"),
            b"to a directory": Link(b"empty directory"),
            b"first name": File(b"linked" * 100, mtime=MTIME + 1),
            b"second name": Same(b"first name"),
            b"deep": Directory({b"third name": Same(b"first name")}),
            b"exactly a chunk": File(blob * 4096),
            b"a chunk and a byte": File(blob * 4096 + b"!"),
            b"big": File(os.urandom(9 * 1024 * 1024 + 77)),
            b"big again": File(b"again" * 3_000_000, 0o640),
            b"small limit": File(b"s" * (1 << 20)),
            b"over small limit": File(b"s" * ((1 << 20) + 1)),
            b"latin \xff\xfe": File(b"not UTF-8"),
            b"n" * 255: File(b"long name"),
            b"new\nline and \x1b[31m": File(b"control"),
            b"old": File(b"before 1970", mtime=-5_000_000_001),
        },
        mtime=MTIME + 7,
    )


def test_everything_a_tree_can_hold_comes_back(room: Path, store: LocalStore) -> None:
    source = make(room / "source", everything())
    before = look(source)
    report = store_tree(store, source)
    assert report.outcome == "stored"
    assert report.files == sum(1 for seen in before.values() if seen.kind == "file")
    for direct in (True, False):
        there = room / f"there {direct}"
        assert bring(store, there, direct=direct).outcome == "restored"
        assert look(there) == before


def test_files_that_are_the_same_are_stored_once(room: Path, store: LocalStore) -> None:
    content = os.urandom(6 * 1024 * 1024)
    source = make(
        room / "source",
        Directory(
            {b"a": File(content), b"b": File(content), b"c": Directory({b"d": File(content)})}
        ),
    )
    report = store_tree(store, source)
    assert report.stored_new < 1.1 * len(content)
    bring(store, room / "there")
    assert look(room / "there") == look(source)


def test_holes_stay_holes(room: Path, store: LocalStore) -> None:
    step = 1 << 20
    tree = Directory(
        {
            b"nothing but a hole": Sparse(50 * step, {}),
            b"hole at the end": Sparse(20 * step, {0: b"head"}),
            b"hole at the start": Sparse(20 * step, {20 * step - 5: b"tail!"}),
            b"islands": Sparse(64 * step, {7 * step: b"one" * 5000, 33 * step: b"two" * step}),
            b"small": Sparse(100_000, {65_536: b"x"}),
        }
    )
    source = make(room / "source", tree)
    before = look(source, holes=True)
    if max(seen.blocks for seen in before.values()) * 512 > 30 * step:
        pytest.skip("this file system has no sparse files")
    report = store_tree(store, source)
    assert report.read < 10 * step
    bring(store, room / "there")
    after = look(room / "there", holes=True)
    assert {path: (seen.content, seen.mtime) for path, seen in after.items()} == {
        path: (seen.content, seen.mtime) for path, seen in before.items()
    }
    used = sum(seen.blocks for seen in after.values()) * 512
    assert used < 12 * step


def test_paths_longer_than_the_kernel_takes_come_back(room: Path, store: LocalStore) -> None:
    source = room / "source"
    source.mkdir()
    here = os.open(source, os.O_RDONLY)
    for level in range(25):
        name = b"%03d" % level + b"d" * 240
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        file = os.open(b"f", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
        os.write(file, b"level %d" % level)
        os.close(file)
        os.symlink(b"f", b"link", dir_fd=here)
    os.close(here)
    store_tree(store, source)
    bring(store, room / "there")
    here = os.open(room / "there", os.O_RDONLY)
    for level in range(25):
        below = os.open(b"%03d" % level + b"d" * 240, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        file = os.open(b"link", os.O_RDONLY, dir_fd=here)
        assert os.read(file, 100) == b"level %d" % level
        os.close(file)
    os.close(here)
    assert bring(store, room / "there").outcome == "confirmed"


def test_extended_attributes_come_back(room: Path, store: LocalStore) -> None:
    source = make(room / "source", Directory({b"f": File(b"x"), b"d": Directory()}))
    try:
        os.setxattr(source / "f", "user.note", b"\0binary\xff")
        os.setxattr(source / "d", "user.colour", b"blue")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    store_tree(store, source)
    bring(store, room / "there")
    assert os.getxattr(room / "there" / "f", "user.note") == b"\0binary\xff"
    assert os.getxattr(room / "there" / "d", "user.colour") == b"blue"


def test_fifos_sockets_and_devices_are_left_out_with_a_warning(
    room: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(room / "source", Directory({b"f": File(b"x")}))
    os.mkfifo(source / "pipe")
    monkeypatch.chdir(source)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    report = store_tree(store, source)
    assert sorted(warning.rpartition(" ")[2] for warning in report.warnings) == ["FIFO", "socket"]
    bring(store, room / "there")
    assert sorted(os.listdir(room / "there")) == [".cachepod", "f"]


def test_set_uid_and_set_gid_do_not_survive(room: Path, store: LocalStore) -> None:
    source = make(room / "source", Directory({b"su": File(b"x", 0o755)}))
    os.chmod(source / "su", 0o6755)
    store_tree(store, source)
    bring(store, room / "there")
    assert os.stat(room / "there" / "su").st_mode & 0o7777 == 0o755


def test_several_trees_make_one_snapshot(room: Path, store: LocalStore) -> None:
    one = make(room / "one", Directory({b"a": File(b"1")}))
    two = make(room / "two", Directory({b"a": File(b"2")}))
    publish(store, "k", NOTHING, [TreeSource("one", one), TreeSource("two", two)])
    restore(
        store,
        "k",
        [Target("two", room / "there2"), Target("one", room / "there1")],
        min_free=0.0,
    )
    assert look(room / "there1") == look(one)
    assert look(room / "there2") == look(two)
    restore(store, "k", [Target("two", room / "only2")], min_free=0.0)
    assert look(room / "only2") == look(two)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_the_umask_does_not_matter(room: Path, store: LocalStore, mask: int) -> None:
    source = make(room / "source", everything())
    store_tree(store, source)
    old = os.umask(mask)
    try:
        bring(store, room / "there")
    finally:
        os.umask(old)
    assert look(room / "there") == look(source)


def test_a_file_with_few_blocks_but_no_hole_is_no_sparse_file(
    room: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that compresses shows fewer blocks than bytes; chunks must not differ."""
    source = make(room / "source", Directory({b"a": File(b"x" * 100_000), b"b": File(b"y")}))
    honest = scan_module.scan([TreeSource("data", source)], NoProgress())
    assert not honest.sparse
    real = os.lstat

    class Compressed:
        def __init__(self, info: os.stat_result) -> None:
            self._info = info

        def __getattr__(self, name: str) -> object:
            return 8 if name == "st_blocks" else getattr(self._info, name)

    scanner = scan_module._Scanner(NoProgress())
    path = os.fsencode(source / "a")
    scanner.add(-1, b"", path, Compressed(real(path)))  # type: ignore[arg-type]
    assert not scanner.sparse

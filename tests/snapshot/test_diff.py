from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from cachepod.model.names import PACKS
from cachepod.snapshot.diff import Diff, diff
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.stores.memory import MemoryStore
from tests.support.snapshots import fingerprint, manifest_of, publish_files, write_tree

SMALL = {f"lib/m{i:03}.py": b"value = %03d\n" % i * 30 for i in range(300)}
BIG = random.Random(3).randbytes(9_000_000)


def compare(before: Mapping[str, bytes], after: Mapping[str, bytes], *, read: bool = True) -> Diff:
    store = MemoryStore()
    a = manifest_of(store, publish_files(store, fingerprint(), before))
    b = manifest_of(store, publish_files(store, fingerprint(handler="new"), after))
    return diff(a, b, (store, store) if read else None)


def told(found: Diff) -> set[tuple[str, str]]:
    return {(change.what, change.path) for change in found.files}


def test_equal_trees_have_no_differences() -> None:
    found = compare({**SMALL, "big": BIG}, {**SMALL, "big": BIG})
    assert found.files == ()
    assert found.unchanged == 301
    assert found.distributions == ()
    assert [(each.name, each.ours, each.theirs) for each in found.inputs] == [
        ("handler", None, "new")
    ]


def test_added_removed_and_changed_files_are_told_with_their_sizes() -> None:
    before = {**SMALL, "gone": b"12345", "grown": b"1"}
    after = {**SMALL, "come": b"123", "grown": b"123456789"}
    found = compare(before, after)
    assert [(c.path, c.what, c.before, c.after) for c in found.files] == [
        ("come", "added", None, 3),
        ("gone", "removed", 5, None),
        ("grown", "content", 1, 9),
    ]
    assert found.unchanged == 300


def test_a_change_of_the_same_size_is_found_and_its_neighbours_are_not_accused() -> None:
    after = {**SMALL, "lib/m100.py": SMALL["lib/m101.py"]}
    found = compare(SMALL, after)
    assert told(found) == {("content", "lib/m100.py")}
    assert found.unchanged == 299


def test_a_file_that_comes_between_others_does_not_change_them() -> None:
    found = compare(SMALL, {**SMALL, "lib/m0995.py": b"new"})
    assert told(found) == {("added", "lib/m0995.py")}


def test_without_a_store_doubtful_files_are_called_unknown() -> None:
    found = compare(SMALL, {**SMALL, "lib/m100.py": SMALL["lib/m101.py"]}, read=False)
    assert ("unknown", "lib/m100.py") in told(found)
    assert {change.what for change in found.files} == {"unknown"}
    assert len(found.files) + found.unchanged == 300


def test_a_changed_byte_of_a_big_file_needs_no_reading() -> None:
    changed = bytearray(BIG)
    changed[8_500_000] ^= 1
    found = compare({"big": BIG}, {"big": bytes(changed)}, read=False)
    assert told(found) == {("content", "big")}


def test_links_are_compared_by_their_targets() -> None:
    before = {"same@": b"a", "other@": b"a", "file-now@": b"a", "link-now": b"a"}
    after = {"same@": b"a", "other@": b"b", "file-now": b"a", "link-now@": b"a"}
    found = compare(before, after)
    assert told(found) == {("content", "other"), ("kind", "file-now"), ("kind", "link-now")}
    assert found.unchanged == 1


def test_a_directory_that_became_a_file_is_told_once_and_its_files_are_removed() -> None:
    found = compare({"x/a": b"1", "x/b": b"2"}, {"x": b"1"})
    assert told(found) == {("kind", "x"), ("removed", "x/a"), ("removed", "x/b")}


def publish_tree(store: MemoryStore, root: Path, handler: str, tree: str = "env"):  # type: ignore[no-untyped-def]
    print_ = fingerprint(handler=handler)
    publish(store, print_.key, print_, [TreeSource(tree, root)], threads=1)
    return manifest_of(store, print_.key)


def test_modes_are_compared_and_times_are_not(tmp_path: Path) -> None:
    store = MemoryStore()
    write_tree(tmp_path, {"a": b"1", "b": b"2"})
    a = publish_tree(store, tmp_path, "1")
    (tmp_path / "a").chmod(0o755)
    os.utime(tmp_path / "b", (5, 5))
    b = publish_tree(store, tmp_path, "2")
    found = diff(a, b, (store, store))
    assert told(found) == {("mode", "a")}


def test_a_hard_link_is_compared_by_its_bytes(tmp_path: Path) -> None:
    store = MemoryStore()
    write_tree(tmp_path, {"a": b"1" * 99, "b": b"1" * 99, "c": b"1" * 99})
    a = publish_tree(store, tmp_path, "1")
    for name in "bc":
        (tmp_path / name).unlink()
        os.link(tmp_path / "a", tmp_path / name)
    b = publish_tree(store, tmp_path, "2")
    found = diff(a, b, (store, store))
    assert found.files == ()
    (tmp_path / "a").write_bytes(b"2" * 99)
    c = publish_tree(store, tmp_path, "3")
    assert told(diff(b, c, (store, store))) == {("content", name) for name in "abc"}


def test_sparse_files_are_compared(tmp_path: Path) -> None:
    store = MemoryStore()
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"data")
    a = publish_tree(store, tmp_path, "1")
    assert told(diff(a, publish_tree(store, tmp_path, "2"), (store, store))) == set()
    with open(tmp_path / "sparse", "r+b") as file:
        file.seek(20_000_000)
        file.write(b"atad")
    found = diff(a, publish_tree(store, tmp_path, "3"), (store, store))
    assert {what for what, _ in told(found)} <= {"content", "unknown"}
    assert len(found.files) == 1


def test_a_tree_of_one_side_only_is_added_or_removed(tmp_path: Path) -> None:
    store = MemoryStore()
    write_tree(tmp_path, {"a": b"1"})
    a = publish_tree(store, tmp_path, "1", tree="one")
    b = publish_tree(store, tmp_path, "2", tree="two")
    found = diff(a, b)
    assert [(c.tree, c.path, c.what) for c in found.files] == [
        ("one", "a", "removed"),
        ("two", "a", "added"),
    ]


def test_names_that_are_not_text_are_told(tmp_path: Path) -> None:
    store = MemoryStore()
    a = publish_tree(store, tmp_path, "1")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")).write_bytes(b"1")
    [change] = diff(a, publish_tree(store, tmp_path, "2")).files
    assert os.fsencode(change.path) == b"\xff\xfe"


def distribution(name: str, version: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files as an installer leaves them, with their RECORD."""
    site = "lib/python3.10/site-packages"
    info = f"{name}-{version}.dist-info"
    inside = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
    }
    record = "".join(f"{path},,\n" for path in [*inside, f"{info}/RECORD"])
    inside[f"{info}/RECORD"] = record.encode()
    return {f"{site}/{path}": data for path, data in inside.items()}


def test_distributions_that_come_go_and_change_are_told_and_own_their_files() -> None:
    stays = distribution("stays", "1.0", {"stays.py": b"s"})
    before = {
        **stays,
        **distribution("goes", "2.0", {"goes.py": b"g"}),
        **distribution("moves", "1.0", {"moves.py": b"m1"}),
    }
    after = {
        **stays,
        **distribution("comes", "3.0", {"comes.py": b"c"}),
        **distribution("moves", "1.1", {"moves.py": b"m2"}),
    }
    found = compare(before, after)
    assert [(each.name, each.before, each.after) for each in found.distributions] == [
        ("comes", None, "3.0"),
        ("goes", "2.0", None),
        ("moves", "1.0", "1.1"),
    ]
    owners = {os.path.basename(change.path): change.owner for change in found.files}
    assert owners["comes.py"] == "comes"
    assert owners["goes.py"] == "goes"
    assert owners["moves.py"] == "moves"


def test_a_pack_that_is_gone_leaves_doubtful_files_unknown() -> None:
    store = MemoryStore()
    a = manifest_of(store, publish_files(store, fingerprint(), SMALL))
    after = {**SMALL, "lib/m100.py": SMALL["lib/m101.py"]}
    b = manifest_of(store, publish_files(store, fingerprint(handler="new"), after))
    for info in list(store.list(PACKS)):
        store.delete(info.name)
    found = diff(a, b, (store, store))
    assert ("unknown", "lib/m100.py") in told(found)
    assert {change.what for change in found.files} == {"unknown"}


def reference(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> set[tuple[str, str]]:
    found = {("removed", path) for path in before.keys() - after.keys()}
    found |= {("added", path) for path in after.keys() - before.keys()}
    both = before.keys() & after.keys()
    return found | {("content", path) for path in both if before[path] != after[path]}


@pytest.mark.parametrize("seed", range(6))
def test_random_changes_are_all_found_and_nothing_else(seed: int) -> None:
    chance = random.Random(seed)
    before = {
        f"d{chance.randrange(5)}/f{i}": chance.randbytes(chance.choice([0, 9, 5000, 300_000]))
        for i in range(80)
    }
    after = dict(before)
    for path in chance.sample(sorted(after), 20):
        how = chance.randrange(3)
        if how == 0:
            del after[path]
        elif how == 1:
            after[path] = chance.randbytes(len(after[path]))
        else:
            after[path] += b"+"
            after[path + "-new"] = chance.randbytes(99)
    found = compare(before, after)
    assert told(found) == reference(before, after)
    assert found.unchanged == sum(after.get(path) == data for path, data in before.items())


def test_the_comparison_is_its_own_mirror_image() -> None:
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), SMALL)
        a = publish_tree(store, Path(folder), "1")
        write_tree(Path(folder), {"lib/m007.py": b"x", "new": b"y"})
        b = publish_tree(store, Path(folder), "2")
    there, back = diff(a, b, (store, store)), diff(b, a, (store, store))
    mirror = {"added": "removed", "removed": "added"}
    assert {(mirror.get(what, what), path) for what, path in told(there)} == told(back)
    assert there.unchanged == back.unchanged

"""What need not be read, written or stored again is not; and what must be noticed is."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachepod.errors import ForeignDirectory, TreeChanged, TreeUnreadable, UsageProblem
from cachepod.model.layout import MIB
from cachepod.model.manifest import Manifest
from cachepod.model.names import PACKS, manifest_name
from cachepod.snapshot import publish as publishing
from cachepod.snapshot import reading
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.scan import Scan
from cachepod.snapshot.stamp import Stamp, State, read_stamp, write_stamp
from cachepod.stores.base import PruneStore, WriteStore
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_roundtrip import NOTHING, bring, store_tree
from tests.support.faults import failing
from tests.support.snapshots import manifest_of
from tests.support.stores import Around, CountingStore, FaultyStore
from tests.support.trees import MTIME, Directory, File, Link, Same, Sparse, look, make


def unreachable() -> FaultyStore:
    """A store of which every call fails."""
    methods = ("read", "read_range", "size", "list", "create", "move", "delete")
    return FaultyStore(MemoryStore(), dict.fromkeys(methods, "U*"))


TREE = Directory(
    {
        **{b"%03d" % n: File(b"%d" % n * 3000) for n in range(100)},
        b"big": File(os.urandom(9 * MIB)),
        b"d": Directory({b"e": File(b"e" * 5000), b"link": Link(b"e"), b"same": Same(b"d/e")}),
        b"sparse": Sparse(20 * MIB, {5 * MIB: b"island" * 1000}),
    }
)


@pytest.fixture
def source(room: Path) -> Path:
    return make(room / "source", TREE)


@pytest.fixture
def there(room: Path, source: Path, store: LocalStore) -> Path:
    """A tree restored from the snapshot ``k`` of *source*."""
    store_tree(store, source)
    bring(store, room / "there")
    return room / "there"


# What is there already


def test_an_equal_tree_is_confirmed_without_the_store(there: Path, source: Path) -> None:
    before = os.stat(there / "big")
    report = bring(unreachable(), there)
    assert report.outcome == "confirmed"
    assert report.read == report.written == 0
    assert report.files == sum(1 for seen in look(source).values() if seen.kind == "file")
    assert os.stat(there / "big").st_ino == before.st_ino


def test_a_tree_published_from_here_is_confirmed_too(room: Path, store: LocalStore) -> None:
    make(room / "there", TREE)
    write_stamp(room / "there", Stamp(State.INSTALLED, "k", "data"))
    store_tree(store, room / "there")
    assert bring(unreachable(), room / "there").outcome == "confirmed"


def test_force_restores_what_is_equal_anew(there: Path, store: LocalStore) -> None:
    before = os.stat(there / "big").st_ino
    report = bring(store, there, force=True)
    assert report.outcome == "restored"
    assert report.written > 9 * MIB
    assert os.stat(there / "big").st_ino != before


def edit(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def edit_in_place(path: Path) -> None:
    """The same size and the same mtime."""
    info = path.stat()
    with open(path, "r+b") as file:
        file.write(b"#")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def replace(path: Path) -> None:
    """The same size and the same mtime, another inode."""
    info = path.stat()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(b"#" + content[1:])
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def write_through_a_map(path: Path) -> None:
    import mmap

    info = path.stat()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] ^= 1
        memory.flush()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def close(path: Path) -> None:
    os.chmod(path, 0o400)


def become_a_symlink(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: list[Callable[[Path], None]] = [
    *(edit, edit_in_place, replace, write_through_a_map, close, Path.unlink),
    *(become_a_symlink, become_a_directory),
]


@pytest.mark.parametrize("name", ["050", "big", "sparse", "d/e"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_touched_file_is_brought_again_and_little_else(
    there: Path, source: Path, store: LocalStore, change: Callable[[Path], None], name: str
) -> None:
    change(there / name)
    counting = CountingStore(store)
    report = bring(counting, there)
    assert report.outcome == "updated"
    assert look(there) == look(source)
    # The chunk of small files as a whole, or the big file.
    assert report.written < 10 * MIB if name == "big" else report.written < MIB
    assert report.read == counting.bytes_read
    assert bring(unreachable(), there).outcome == "confirmed"


@pytest.mark.parametrize("name", ["d/link", "d"])
def test_a_symlink_or_directory_that_is_gone_comes_back(
    there: Path, source: Path, store: LocalStore, name: str
) -> None:
    remove_tree(there / name)
    bring(store, there)
    assert look(there) == look(source)


def test_what_was_added_is_not_minded_and_goes_with_the_next_restore(
    there: Path, source: Path, store: LocalStore
) -> None:
    (there / "cache").mkdir()
    (there / "cache" / "x").write_bytes(b"mine")
    assert bring(unreachable(), there).outcome == "confirmed"
    (there / "050").unlink()
    bring(store, there)
    assert look(there) == look(source)


def test_of_a_related_snapshot_only_the_difference_is_read(
    room: Path, there: Path, store: LocalStore
) -> None:
    changed = {**TREE.children, b"050": File(b"new"), b"new": File(os.urandom(2 * MIB))}
    related = make(room / "related", Directory(changed))
    store_tree(store, related, "related")
    inode = os.stat(there / "big").st_ino
    counting = CountingStore(store)
    report = bring(counting, there, "related")
    assert report.outcome == "updated"
    assert look(there) == look(related)
    assert os.stat(there / "big").st_ino == inode
    assert 2 * MIB < counting.bytes_read < 2 * MIB + 200_000
    assert report.written < 3 * MIB


def test_a_partial_tree_is_one_and_is_completed(room: Path, there: Path, store: LocalStore) -> None:
    bring(store, there, partial=True)
    stamp = read_stamp(there)
    assert stamp is not None
    assert stamp.state == State.PARTIAL
    assert bring(unreachable(), there, partial=True).outcome == "confirmed"
    with pytest.raises(UsageProblem):
        store_tree(store, there, "never")
    report = bring(store, there)
    assert report.written == 0
    assert read_stamp(there).state == State.COMPLETE  # type: ignore[union-attr]


# What a prefix may be


def test_an_empty_directory_is_filled(room: Path, source: Path, store: LocalStore) -> None:
    store_tree(store, source)
    (room / "there").mkdir()
    assert bring(store, room / "there").outcome == "restored"
    assert look(room / "there") == look(source)


def test_a_foreign_directory_is_left_alone_but_for_force(
    room: Path, source: Path, store: LocalStore
) -> None:
    store_tree(store, source)
    foreign = make(room / "there", Directory({b"a": File(b"mine")}))
    before = look(foreign)
    with pytest.raises(ForeignDirectory) as caught:
        bring(store, foreign)
    assert caught.value.exit_code == 1
    assert "--force" in caught.value.hint
    assert look(foreign) == before
    assert not (room / ".there.cachepod").exists()
    bring(store, foreign, force=True)
    assert look(foreign) == look(source)


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_its_place(room: Path, source: Path, store: LocalStore, force: bool) -> None:
    store_tree(store, source)
    (room / "there").write_bytes(b"mine")
    if force:
        bring(store, room / "there", force=True)
        assert look(room / "there") == look(source)
    else:
        with pytest.raises(TreeUnreadable):
            bring(store, room / "there")
        assert (room / "there").read_bytes() == b"mine"


@pytest.mark.parametrize("made", [True, False], ids=["to a directory", "dangling"])
def test_a_symlink_in_its_place_is_followed(
    room: Path, source: Path, store: LocalStore, made: bool
) -> None:
    store_tree(store, source)
    if made:
        (room / "real").mkdir()
    (room / "there").symlink_to("real")
    bring(store, room / "there")
    assert (room / "there").is_symlink()
    assert look(room / "real") == look(source)
    assert bring(unreachable(), room / "there").outcome == "confirmed"


@pytest.mark.parametrize("state", list(State))
def test_a_tree_in_any_state_is_ours_and_is_replaced(
    room: Path, there: Path, store: LocalStore, source: Path, state: State
) -> None:
    (there / "extra").write_bytes(b"left by an installer")
    write_stamp(there, Stamp(state, "another", "data", ""))
    assert bring(store, there).outcome == "updated"
    assert look(there) == look(source)


@pytest.mark.parametrize("name", ["stamp.json", "manifest", "index"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"[" * 60_000, b"garbage", b'{"state": "from the future", "key": "k"}'],
    ids=["empty", "zeros", "nested without end", "garbage", "of the future"],
)
def test_state_that_cannot_be_read_costs_time_and_nothing_else(
    there: Path, source: Path, store: LocalStore, name: str, content: bytes
) -> None:
    (there / ".cachepod" / name).write_bytes(content)
    assert bring(store, there).outcome in ("restored", "updated")
    assert look(there) == look(source)
    assert bring(unreachable(), there).outcome == "confirmed"


@pytest.mark.parametrize("name", ["stamp.json", "manifest", "index"])
def test_state_that_is_a_directory_or_cut_short(
    there: Path, source: Path, store: LocalStore, name: str
) -> None:
    path = there / ".cachepod" / name
    os.truncate(path, path.stat().st_size // 2)
    bring(store, there)
    assert look(there) == look(source)
    path.unlink()
    path.mkdir()
    bring(store, there)
    assert look(there) == look(source)


def test_a_tree_with_an_unreadable_stamp_is_not_published(there: Path) -> None:
    (there / ".cachepod" / "stamp.json").write_bytes(b"")
    with pytest.raises(UsageProblem):
        store_tree(MemoryStore(), there)


def test_state_of_another_snapshot_is_not_believed(
    room: Path, there: Path, source: Path, store: LocalStore
) -> None:
    store_tree(store, make(room / "other", Directory({b"050": File(b"other")})), "other")
    bring(store, room / "elsewhere", "other")
    for name in ("manifest", "index"):
        os.replace(room / "elsewhere" / ".cachepod" / name, there / ".cachepod" / name)
    bring(store, there)
    assert look(there) == look(source)


def test_one_place_for_two_trees_is_refused(room: Path, source: Path) -> None:
    store = MemoryStore()
    publish(store, "k", NOTHING, [TreeSource("a", source), TreeSource("b", source)])
    (room / "link").symlink_to("there")
    for other in ("there", "link", "there/below"):
        targets = [Target("a", room / "there"), Target("b", room / other)]
        with pytest.raises(UsageProblem):
            restore(store, "k", targets, min_free=0.0)
        assert not (room / "there").exists()


def test_several_trees_change_together_or_not_at_all(
    room: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    for key, content in (("one", b"1"), ("two", b"2")):
        trees = [
            TreeSource(name, make(room / f"{key}-{name}", Directory({b"f": File(content)})))
            for name in ("a", "b")
        ]
        publish(store, key, NOTHING, trees)
    targets = [Target("a", room / "a"), Target("b", room / "b")]
    for before in ("absent", "one"):
        if before == "one":
            restore(store, "one", targets, min_free=0.0)

        def onto_b(source: object, target: object, *rest: object) -> bool:
            return os.fsdecode(os.fspath(target)).endswith("/old-b") or (  # type: ignore[arg-type]
                os.path.basename(os.fsdecode(os.fspath(target))) == "b"  # type: ignore[arg-type]
            )

        from cachepod.snapshot import swap

        monkeypatch.setattr(swap, "_renameat2", lambda stage, root: errno.ENOSYS)
        with failing("rename", errno.EIO, calls="E", when=onto_b), pytest.raises(TreeUnreadable):
            restore(store, "two", targets, min_free=0.0)
        if before == "absent":
            assert not (room / "a").exists()
            assert not (room / "b").exists()
        else:
            assert look(room / "a") == look(room / "one-a")
            assert look(room / "b") == look(room / "one-b")
    restore(store, "two", targets, min_free=0.0)
    assert look(room / "a") == look(room / "two-a")
    assert look(room / "b") == look(room / "two-b")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
def test_a_kernel_that_cannot_exchange_names_moves_the_old_tree_aside(
    room: Path, there: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    from cachepod.snapshot import swap

    monkeypatch.setattr(swap, "_renameat2", lambda stage, root: code)
    other = make(room / "other", Directory({b"f": File(b"f")}))
    store_tree(store, other, "other")
    bring(store, there, "other")
    assert look(there) == look(other)
    assert os.listdir(room / ".there.cachepod") == ["lock"]


def test_a_name_of_255_bytes_has_a_workspace_all_the_same(
    room: Path, source: Path, store: LocalStore
) -> None:
    store_tree(store, source)
    there = room / ("n" * 255)
    for _ in range(2):
        bring(store, there, force=True)
    assert look(there) == look(source)


# What a publish reads


def test_a_second_publish_of_the_same_tree_reads_nothing(there: Path, store: LocalStore) -> None:
    report = store_tree(store, there, "again")
    assert report.outcome == "stored"
    assert report.read == 0
    assert report.stored_new < 20_000


def test_a_publish_of_a_key_that_is_there_does_nothing(source: Path, store: LocalStore) -> None:
    store_tree(store, source)
    counting = CountingStore(store)
    report = store_tree(counting, source)
    assert report.outcome == "present"
    assert set(counting.calls) == {"size"}


@pytest.mark.parametrize("change", [edit, edit_in_place, replace, write_through_a_map])
def test_a_publish_reads_what_was_touched_and_stores_what_is_there(
    room: Path, there: Path, store: LocalStore, change: Callable[[Path], None]
) -> None:
    """Also where size and mtime are what they were."""
    for name in ("050", "big"):
        change(there / name)
    wanted = look(there)
    report = store_tree(store, there, "again")
    assert 9 * MIB < report.read < 10 * MIB
    assert report.stored_new < 6 * MIB
    bring(store, room / "copy", "again")
    assert look(room / "copy") == wanted


def test_a_changed_file_costs_no_more_than_its_chunk(
    room: Path, there: Path, store: LocalStore
) -> None:
    edit(there / "050")
    report = store_tree(store, there, "again")
    assert report.read < 600_000
    bring(store, room / "copy", "again")
    assert look(room / "copy") == look(there)


class Meeting(Around):
    """Whoever begins a pack waits a moment for another that does, too."""

    def __init__(self, store: PruneStore) -> None:
        super().__init__(store)
        self.begun: list[str] = []
        self._met = threading.Event()

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        if method == "create" and name.startswith(PACKS):
            self.begun.append(name)
            if len(self.begun) > 1:
                self._met.set()
            self._met.wait(0.5)
        return act()


def test_a_publish_with_little_new_leaves_one_pack_however_many_cores_there_are(
    room: Path, store: LocalStore
) -> None:
    names = [b"%d" % number for number in range(6)]
    files = {name: File(os.urandom(2 * MIB)) for name in names}
    store_tree(store, make(room / "source", Directory(files)))
    bring(store, room / "there")
    for name in names[1:]:
        (room / "there" / name.decode()).write_bytes(os.urandom(2 * MIB))
    meeting = Meeting(store)
    report = store_tree(meeting, room / "there", "next", threads=8)
    assert (report.read, report.reused) == (10 * MIB, 2 * MIB)
    assert len(meeting.begun) == 1
    bring(store, room / "copy", "next")
    assert look(room / "copy") == look(room / "there")


def test_a_publish_with_much_new_has_as_many_workers_as_it_may(
    room: Path, store: LocalStore
) -> None:
    files = {b"%d" % number: File(os.urandom(6 * MIB)) for number in range(6)}
    meeting = Meeting(store)
    store_tree(meeting, make(room / "source", Directory(files)), threads=2)
    assert len(meeting.begun) == 2


def test_a_tree_of_unknown_origin_is_read_and_not_stored_again(
    room: Path, source: Path, store: LocalStore
) -> None:
    store_tree(store, source)
    copy = make(room / "copy", TREE)
    report = store_tree(store, copy, "again")
    assert report.read > 9 * MIB
    assert report.reused == report.read
    assert report.stored_new < 20_000
    assert not (copy / ".cachepod").exists()


# How files are grouped


def environment(*distributions: str, extra: bytes = b"") -> Directory:
    """A prefix with wheels in it, each with files of its own and what an installer adds."""
    site: dict[bytes, object] = {}
    scripts: dict[bytes, object] = {b"python": Link(b"/usr/bin/python3")}
    for name in distributions:
        plain = name.encode()
        modules = {b"m%d.py" % n: File(b"# %s %d\n" % (plain, n) * 900) for n in range(30)}
        compiled = {
            b"m%d.cpython-310.pyc" % n: File(b"%s pyc %d" % (plain, n) * 400) for n in range(30)
        }
        site[plain] = Directory({**modules, b"__pycache__": Directory(compiled)})
        lines = [f"{name}/m{n}.py,," for n in range(30)]
        lines += [f"{name}-1.0.dist-info/{file},," for file in ("METADATA", "RECORD", "INSTALLER")]
        lines += [f"../../../bin/{name},,"]
        site[plain + b"-1.0.dist-info"] = Directory(
            {
                b"METADATA": File(b"Name: " + plain),
                b"RECORD": File("\n".join(lines).encode() + extra),
                b"INSTALLER": File(b"uv" + extra),
            }
        )
        scripts[plain] = File(b"#!/there/bin/python\n" + extra, 0o755)
    packages = Directory({b"site-packages": Directory(site)})  # type: ignore[arg-type]
    return Directory(
        {
            b"bin": Directory(scripts),  # type: ignore[arg-type]
            b"lib": Directory({b"python3.10": packages}),
            b"pyvenv.cfg": File(b"home = /usr/bin\n" + extra),
        }
    )


def chunks_of(store: WriteStore, key: str) -> dict[bytes, set[str]]:
    """Chunk id to the paths in it."""
    manifest: Manifest = manifest_of(store, key)
    paths = [os.fsdecode(path) for path in manifest.entries.paths()]
    extents = manifest.extents
    return {
        manifest.chunks.id(chunk): {
            paths[extents.entry[at]] for at in range(extents.first[chunk], extents.first[chunk + 1])
        }
        for chunk in range(len(manifest.chunks))
    }


def test_one_wheel_gives_the_same_chunks_in_every_environment(room: Path) -> None:
    store = MemoryStore()
    store_tree(store, make(room / "one", environment("alpha", "beta", "gamma")), "one")
    two = make(room / "two", environment("alpha", "gamma", "delta", extra=b"other"))
    report = store_tree(store, two, "two")
    one_chunks, two_chunks = chunks_of(store, "one"), chunks_of(store, "two")
    for name in ("alpha", "gamma"):
        (mine,) = {
            i for i, paths in one_chunks.items() if any(f"/{name}/m1.py" in p for p in paths)
        }
        assert mine in two_chunks
    sizes = sum(len(it.content) for path, it in look(two).items() if b"delta" in path)
    assert report.stored_new < sizes
    # Manifests say what belongs to what.
    names = [dist.name for dist in manifest_of(store, "two").summary.distributions]
    assert names == ["alpha", "delta", "gamma"]


def test_chunks_hold_one_distribution_and_installers_files_are_apart(room: Path) -> None:
    store = MemoryStore()
    store_tree(store, make(room / "one", environment("alpha", "beta")), "one")
    for paths in chunks_of(store, "one").values():
        owners = {name for name in ("alpha", "beta") if any(f"/{name}/" in p for p in paths)}
        volatile = {
            p for p in paths if p.endswith(("RECORD", "INSTALLER", "bin/alpha", "bin/beta"))
        }
        assert len(owners) <= 1
        assert not (owners and volatile)
        if any(p.endswith(".pyc") for p in paths):
            assert owners


@pytest.mark.parametrize(
    "record",
    [
        b"\xff\xfe",
        b'"unclosed',
        b"../../../../../../etc/passwd,,\n",
        b"a,b\n\0,c\n",
        b"/etc/passwd,,",
    ],
    ids=["no text", "an open quote", "outside", "a NUL", "absolute"],
)
def test_a_record_that_makes_no_sense_only_groups_worse(
    room: Path, store: LocalStore, record: bytes
) -> None:
    tree = environment("alpha")
    source = make(room / "source", tree)
    (info,) = source.rglob("alpha-1.0.dist-info")
    (info / "RECORD").write_bytes(record)
    store_tree(store, source)
    bring(store, room / "there")
    assert look(room / "there") == look(source)


def test_a_record_that_is_a_fifo_is_not_waited_for(room: Path, store: LocalStore) -> None:
    source = make(room / "source", environment("alpha"))
    (info,) = source.rglob("alpha-1.0.dist-info")
    (info / "RECORD").unlink()
    os.mkfifo(info / "RECORD")
    report = store_tree(store, source)
    assert report.outcome == "stored"
    assert len(report.warnings) == 1


def test_trees_that_share_inodes_are_whole_without_each_other(room: Path) -> None:
    store = MemoryStore()
    one = make(room / "one", Directory({b"a": File(b"shared" * 100)}))
    two = make(room / "two", Directory())
    os.link(one / "a", two / "b")
    publish(store, "k", NOTHING, [TreeSource("one", one), TreeSource("two", two)])
    restore(store, "k", [Target("two", room / "there")], min_free=0.0)
    assert look(room / "there") == look(two)


def test_directories_nested_too_deep_to_restore_are_not_published(room: Path) -> None:
    source = room / "source"
    source.mkdir()
    here = os.open(source, os.O_RDONLY)
    for _ in range(2100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(TreeUnreadable) as caught:
        store_tree(MemoryStore(), source)
    assert "too deep" in caught.value.message


# A moving target


Meanwhile = Callable[[Path], None]


def grow(source: Path) -> None:
    with open(source / "big", "ab") as file:
        file.write(b"grown")


def shrink(source: Path) -> None:
    os.truncate(source / "big", MIB)


def shrink_a_small_one(source: Path) -> None:
    os.truncate(source / "050", 10)


def change_what_was_read(source: Path) -> None:
    edit_in_place(source / "big")


def vanish(source: Path) -> None:
    (source / "099").unlink()


def be_replaced(source: Path) -> None:
    replace(source / "099")


def become_a_link(source: Path) -> None:
    become_a_symlink(source / "099")


def a_directory_moves(source: Path) -> None:
    (source / "d").rename(source / "moved")


def fill_a_hole(source: Path) -> None:
    with open(source / "sparse", "r+b") as file:
        file.seek(15 * MIB)
        file.write(b"new data")


def lose_its_data(source: Path) -> None:
    os.truncate(source / "sparse", 0)
    os.truncate(source / "sparse", 20 * MIB)


MOVES: list[Meanwhile] = [
    *(grow, shrink, shrink_a_small_one, change_what_was_read, vanish, be_replaced),
    *(become_a_link, a_directory_moves, fill_a_hole, lose_its_data),
]


def nothing_was_published(store: LocalStore) -> bool:
    objects = [*store.list("packs"), *store.list("manifests"), *store.temporaries("packs")]
    return not objects


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_what_changes_after_the_scan_ends_the_publish(
    source: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch, move: Meanwhile
) -> None:
    original = publishing.scan

    def scan_then_change(*arguments: object) -> Scan:
        found = original(*arguments)  # type: ignore[arg-type]
        move(source)
        return found

    monkeypatch.setattr(publishing, "scan", scan_then_change)
    with pytest.raises(TreeChanged) as caught:
        store_tree(store, source)
    assert str(source) in caught.value.path
    assert caught.value.exit_code == 1
    assert nothing_was_published(store)
    monkeypatch.undo()
    assert store_tree(store, source).outcome == "stored"


@pytest.mark.parametrize("move", [grow, shrink, change_what_was_read])
def test_what_changes_while_it_is_read_ends_the_publish(
    source: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch, move: Meanwhile
) -> None:
    original = reading.Reader.fill
    moved = []

    def fill(self: reading.Reader, pieces: list[reading.Piece], buffer: memoryview) -> memoryview:
        plain = original(self, pieces, buffer)
        if pieces[0].offset == 4 * MIB and not moved:  # the second chunk of the big file
            moved.append(True)
            move(source)
        return plain

    monkeypatch.setattr(reading.Reader, "fill", fill)
    with pytest.raises(TreeChanged) as caught:
        store_tree(store, source)
    assert moved
    assert caught.value.path.endswith("/big")
    assert nothing_was_published(store)


def test_what_vanishes_during_the_scan_ends_the_publish(
    source: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.scandir

    def scandir(path: bytes) -> object:
        if path.endswith(b"/source/d"):
            os.rename(path, path + b" moved")
        return original(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        with pytest.raises(TreeChanged):
            store_tree(store, source)
    assert nothing_was_published(store)


def test_a_write_in_the_instant_of_the_scan_shows(room: Path, store: LocalStore) -> None:
    """Two writes within one tick of the file system's clock have one ctime."""
    source = make(room / "there", Directory({b"f": File(b"one", mtime=MTIME)}))
    write_stamp(source, Stamp(State.INSTALLED, "k", "data"))
    for content in (b"two", b"six", b"ten"):
        (source / "f").write_bytes(content)
        os.utime(source / "f", ns=(MTIME, MTIME))
        key = content.decode()
        write_stamp(source, Stamp(State.INSTALLED, key, "data"))
        store_tree(store, source, key)
        bring(store, room / f"copy-{key}", key)
        assert (room / f"copy-{key}" / "f").read_bytes() == content


def test_only_ticks_that_may_still_run_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from cachepod.snapshot.ticks import outlast

    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    now = 1_700_000_000_123_456_789
    monkeypatch.setattr(time, "time_ns", lambda: now)
    outlast(now - 50_000_000)
    outlast(now + 5_000_000_000)
    outlast(0)
    assert slept == []
    outlast(now - 1_000_000)
    outlast(1_700_000_000_000_000_000)
    assert slept == [pytest.approx(0.009), pytest.approx(0.886543211)]


def test_the_manifest_of_a_forced_publish_replaces_the_old(
    room: Path, source: Path, store: LocalStore
) -> None:
    store_tree(store, source)
    first = store.read(manifest_name("k"), limit=1 << 30)
    edit(source / "050")
    assert store_tree(store, source).outcome == "present"
    assert store_tree(store, source, force=True).outcome == "stored"
    assert store.read(manifest_name("k"), limit=1 << 30) != first
    bring(store, room / "there")
    assert look(room / "there") == look(source)

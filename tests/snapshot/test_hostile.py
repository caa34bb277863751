"""What lies on a volume is not trusted: whatever a manifest says, nothing else is touched."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from cachepod.errors import CachepodError, CorruptObject, Miss, NewerFormat
from cachepod.model.layout import CHUNK_SIZE, MAX_FILE_SIZE
from cachepod.model.names import manifest_name
from cachepod.model.tables import Encoding
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.restore import Target, restore
from cachepod.stores.base import WriteStore
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.hostile import (
    HUGE,
    ROOT,
    Chunk,
    Forgery,
    directory,
    file,
    hardlink,
    replace_manifest,
    symlink,
)
from tests.support.manifests import block_of, build, sections_of, summary_of, take_apart
from tests.support.trees import Directory, File, Link, Same, look, make

TREE = Directory(
    {
        b"a": File(b"alpha" * 2000),
        b"b": Directory({b"x": File(b"x" * 30, 0o755), b"y": Same(b"a")}),
        b"c": Link(b"a"),
        b"empty": File(),
        b"big": File(os.urandom(3000) * 400),
    }
)


class Place:
    """A directory with a good tree in it, a store, and something beside them to be left alone."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.there = room / "there"
        self.outside = make(room / "outside", Directory({b"secret": File(b"secret")}))
        self.store = MemoryStore()
        store_tree(self.store, make(room / "source", TREE), "good")
        bring(self.store, self.there, "good")
        self.before = self._look()

    def _look(self) -> list[object]:
        return [
            sorted(os.listdir(self.room)),
            look(self.room / "outside"),
            look(self.there),
            look(self.room / "source"),
        ]

    def is_untouched(self) -> bool:
        """Whether all is as it was, with nothing left beside it."""
        left = sorted(os.listdir(self.room / ".there.cachepod"))
        return self._look() == self.before and left == ["lock"]

    def refuses(self, kind: type[CachepodError] = CorruptObject, key: str = "k") -> CachepodError:
        """Restore and see it refused."""
        with pytest.raises(kind) as caught:
            bring(self.store, self.there, key)
        assert self.is_untouched()
        with pytest.raises(kind):
            bring(self.store, self.room / "new", key)
        assert not (self.room / "new").exists()
        remove_tree(self.room / ".new.cachepod")
        return caught.value


@pytest.fixture
def place(room: Path) -> Place:
    return Place(room)


ROWS = {
    "a name that is ..": [ROOT, file(b"..", 0)],
    "a name that is .": [ROOT, file(b".", 0)],
    "a directory that is ..": [ROOT, directory(b".."), file(b"x", 0, 1)],
    "a name with a slash": [ROOT, file(b"../outside/secret", 0)],
    "an absolute name": [ROOT, file(b"/etc/cachepod-was-here", 0)],
    "a name with a NUL": [ROOT, file(b"a\0b", 0)],
    "no name": [ROOT, file(b"", 0)],
    "a name too long": [ROOT, file(b"n" * 256, 0)],
    "a name twice": [ROOT, file(b"a", 0), file(b"a", 0)],
    "names in the wrong order": [ROOT, file(b"b", 0), file(b"a", 0)],
    "a file in a symlink": [ROOT, symlink(b"a"), file(b"secret", 0, 1)],
    "a file in a file": [ROOT, file(b"a", 0), file(b"x", 0, 1)],
    "a directory below itself": [ROOT, directory(b"a", 1)],
    "an entry before its directory": [ROOT, file(b"x", 0, 2), directory(b"a")],
    "an entry of no directory": [ROOT, file(b"x", 0, 77)],
    "a root that is a symlink": [symlink(b"")],
    "a root that is a file": [file(b"", 0)],
    "no root": [],
    "a file of 2^60 bytes": [ROOT, file(b"a", 1 << 60)],
    "a file of 2^64 - 1 bytes": [ROOT, file(b"a", (1 << 64) - 1)],
    "a symlink without a target": [ROOT, symlink(b"a", 5)],
    "a hard link to a directory": [ROOT, directory(b"a"), hardlink(b"b", 1)],
    "a hard link to the root": [ROOT, hardlink(b"b", 0)],
    "a hard link to itself": [ROOT, hardlink(b"b", 1)],
    "a hard link to a later file": [ROOT, hardlink(b"a", 2), file(b"b", 0)],
    "a hard link to a symlink": [ROOT, symlink(b"a"), hardlink(b"b", 1)],
    "a hard link to a hard link": [ROOT, file(b"a", 0), hardlink(b"b", 1), hardlink(b"c", 2)],
    "a hard link to nothing": [ROOT, hardlink(b"b", 1 << 40)],
    "state of cachepod's own": [ROOT, directory(b".cachepod"), file(b"stamp.json", 0, 1)],
    "a symlink for the state": [ROOT, symlink(b".cachepod")],
    "a file for the state": [ROOT, file(b".cachepod", 0)],
    "an unknown kind": [ROOT, file(b"a", 0).__class__(9, 0, b"a")],  # type: ignore[arg-type]
    "an unknown owner": [ROOT, file(b"a", 0).__class__(1, 0, b"a", owner=9)],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", ROWS)
def test_entries_that_cannot_be_are_refused(place: Place, what: str) -> None:
    Forgery(ROWS[what], targets=[os.fsencode(place.outside)]).store(place.store)
    place.refuses()


PLAIN = b"0123456789" * 100


def frame_of(plain: bytes, size: int) -> bytes:
    """A frame that holds *plain* and claims *size* bytes."""
    honest = zstandard.ZstdCompressor().compress(bytes(size))
    return honest[:4] + zstandard.ZstdCompressor(write_content_size=False).compress(plain)[4:]


CHUNKS = {
    "an extent beyond its file": [Chunk(PLAIN, [(1, 1, 1000, 0)])],
    "an extent far beyond its file": [Chunk(PLAIN, [(1, 1 << 62, 1000, 0)])],
    "an extent that wraps around": [Chunk(PLAIN, [(1, (1 << 64) - 500, 1000, 0)])],
    "an extent beyond its chunk": [Chunk(PLAIN[:999], [(1, 0, 1000, 0)])],
    "an extent that starts beyond its chunk": [Chunk(PLAIN, [(1, 0, 1, 1000)])],
    "an extent that is longer than any chunk": [Chunk(PLAIN, [(1, 0, HUGE, 0)])],
    "an extent of nothing": [Chunk(PLAIN, [(1, 0, 1000, 0), (1, 1000, 0, 0)])],
    "extents of nothing in an empty file": [Chunk(PLAIN, [(2, 0, 0, 0), (2, 0, 0, 0)])],
    "extents that overlap": [Chunk(PLAIN, [(1, 0, 500, 0), (1, 400, 500, 0)])],
    "extents that overlap behind a hole": [Chunk(PLAIN, [(1, 0, 300, 0), (1, 100, 300, 0)])],
    "an extent twice": [Chunk(PLAIN, [(1, 0, 1000, 0), (1, 0, 1000, 0)])],
    "an extent of a directory": [Chunk(PLAIN, [(0, 0, 0, 0)])],
    "an extent of a symlink": [Chunk(PLAIN, [(3, 0, 0, 0)])],
    "an extent of nobody": [Chunk(PLAIN, [(9, 0, 1, 0)])],
    "a chunk in no pack": [Chunk(PLAIN, [(1, 0, 1000, 0)], pack=1)],
    "a chunk beyond its pack": [Chunk(PLAIN, [(1, 0, 1000, 0)], offset=1 << 20)],
    "a chunk at the end of numbers": [Chunk(PLAIN, [(1, 0, 1000, 0)], offset=HUGE)],
    "a huge stored size": [Chunk(PLAIN, [(1, 0, 1000, 0)], stored=HUGE)],
    "a huge plain size": [Chunk(PLAIN, [(1, 0, 1000, 0)], raw=HUGE)],
    "a plain size over the limit": [Chunk(PLAIN, [(1, 0, 1000, 0)], raw=CHUNK_SIZE + 1)],
    "a plain size of zero": [Chunk(PLAIN, [], raw=0)],
    "a stored size of zero": [Chunk(PLAIN, [(1, 0, 1000, 0)], stored=0)],
    "a stored size above the plain one": [Chunk(PLAIN, [(1, 0, 1000, 0)], stored=1001)],
    "an unknown encoding": [Chunk(PLAIN, [(1, 0, 1000, 0)], encoding=7)],
    "a raw chunk of two sizes": [
        Chunk(PLAIN, [(1, 0, 1000, 0)], encoding=Encoding.RAW, stored=500)
    ],
    "a wrong checksum": [Chunk(PLAIN, [(1, 0, 1000, 0)], check=bytes(16))],
    "a frame of fewer bytes": [Chunk(PLAIN[:700], [(1, 0, 1000, 0)], raw=1000)],
    "a frame of more bytes": [Chunk(PLAIN * 3, [(1, 0, 1000, 0)], raw=1000)],
    "a bomb": [Chunk(bytes(CHUNK_SIZE * 16), [(1, 0, 1000, 0)], raw=CHUNK_SIZE)],
    "no frame at all": [Chunk(PLAIN, [(1, 0, 1000, 0)], frame=PLAIN[:900])],
    "half a frame": [
        Chunk(PLAIN, [(1, 0, 1000, 0)], frame=zstandard.ZstdCompressor().compress(PLAIN)[:-5])
    ],
    "a skippable frame": [Chunk(PLAIN, [(1, 0, 1000, 0)], frame=b"\x50\x2a\x4d\x18\1\0\0\0x")],
    "a frame with a window of 2 GiB": [
        Chunk(PLAIN, [(1, 0, 1000, 0)], frame=b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\0\0" * 3)
    ],
}


@pytest.mark.parametrize("what", CHUNKS)
def test_contents_that_cannot_be_are_refused(place: Place, what: str) -> None:
    rows = [ROOT, file(b"a", 1000), file(b"b", 0), symlink(b"c")]
    Forgery(rows, CHUNKS[what], [b"a"]).store(place.store)
    place.refuses()


def test_a_bomb_for_a_big_file_is_refused_too(place: Place) -> None:
    chunk = Chunk(bytes(CHUNK_SIZE + 1), [(1, 0, CHUNK_SIZE, 0)], raw=CHUNK_SIZE)
    Forgery([ROOT, file(b"a", 2 * CHUNK_SIZE)], [chunk]).store(place.store)
    place.refuses()


@pytest.mark.parametrize(
    "target", [b"", b"\0", b"a\0b", b"t" * 4096], ids=["empty", "NUL", "a NUL inside", "too long"]
)
def test_a_target_that_no_symlink_can_have_is_refused(place: Place, target: bytes) -> None:
    Forgery([ROOT, symlink(b"a")], targets=[target]).store(place.store)
    place.refuses()


@pytest.mark.parametrize(
    "attribute",
    [(9, b"user.x", b""), (0, b"user.\0", b""), (0, b"user." + b"x" * 251, b""), (0, b"", b"")],
    ids=["of no entry", "with a NUL", "too long", "without a name"],
)
def test_an_extended_attribute_that_cannot_be_is_refused(
    place: Place, attribute: tuple[int, bytes, bytes]
) -> None:
    Forgery([ROOT, file(b"a", 0)], xattrs=(attribute,)).store(place.store)
    place.refuses()


def test_only_attributes_of_the_user_are_set(place: Place) -> None:
    names = (b"security.capability", b"trusted.x", b"system.posix_acl_access", b"security.selinux")
    xattrs = tuple((1, name, b"\1\0\0\2" + bytes(16)) for name in names)
    Forgery([ROOT, file(b"a", 0)], xattrs=xattrs).store(place.store)
    bring(place.store, place.there)
    assert os.listxattr(place.there / "a") == []


def test_set_uid_and_set_gid_bits_are_dropped(place: Place) -> None:
    rows = [
        ROOT,
        directory(b"d", mode=0o7777),
        file(b"f", 0, mode=0o6755),
        file(b"g", 5, 0, 0o7777),
    ]
    Forgery(rows, [Chunk(b"hello", [(3, 0, 5, 0)], encoding=Encoding.RAW)]).store(place.store)
    bring(place.store, place.there)
    modes = {name: os.stat(place.there / name).st_mode & 0o7777 for name in ("d", "f", "g")}
    assert modes == {"d": 0o1777, "f": 0o755, "g": 0o1777}


def test_bits_beyond_a_mode_are_dropped(place: Place) -> None:
    Forgery([ROOT, file(b"f", 0, mode=0o120644)]).store(place.store)
    bring(place.store, place.there)
    assert os.lstat(place.there / "f").st_mode == 0o100644


def test_a_symlink_out_of_the_tree_is_made_and_never_followed(place: Place) -> None:
    rows = [ROOT, file(b"a", 4), symlink(b"b"), hardlink(b"c", 1)]
    chunk = Chunk(b"text", [(1, 0, 4, 0)], encoding=Encoding.RAW)
    Forgery(rows, [chunk], [os.fsencode(place.outside / "secret")]).store(place.store)
    bring(place.store, place.there)
    assert (place.there / "b").is_symlink()
    assert look(place.outside) == place.before[1]
    # Nor is it on the way out, nor where a directory is wanted in its place.
    inside = Chunk(b"text", [(2, 0, 4, 0)], encoding=Encoding.RAW)
    Forgery([ROOT, directory(b"b"), file(b"x", 4, 1)], [inside]).store(place.store, "other")
    bring(place.store, place.there, "other")
    assert (place.there / "b" / "x").read_bytes() == b"text"
    assert look(place.outside) == place.before[1]


def test_a_hard_link_from_one_tree_to_another_is_refused(place: Place) -> None:
    rows = [
        ROOT,
        ROOT.__class__(ROOT.kind, 1, b"", mode=0o755),
        file(b"a", 0),
        hardlink(b"b", 2, 1),
    ]
    Forgery(rows, trees=("data", "more")).store(place.store)
    for trees in (["data"], ["more"], ["data", "more"]):
        targets = [Target(tree, place.room / f"new-{tree}") for tree in trees]
        with pytest.raises(CorruptObject):
            restore(place.store, "k", targets, min_free=0.0)
    assert not list(place.room.glob("new-*"))


def test_a_file_of_nothing_but_the_largest_hole_takes_no_space(place: Place) -> None:
    """The largest size that is believed; a file system may refuse it, and nothing is left then."""
    Forgery([ROOT, file(b"a", MAX_FILE_SIZE)]).store(place.store)
    try:
        bring(place.store, place.there)
    except CachepodError:
        assert place.is_untouched()
    else:
        assert os.stat(place.there / "a").st_blocks == 0


def test_directories_nested_without_end_are_refused_or_restored_and_removed(place: Place) -> None:
    rows = [ROOT, *(directory(b"d", row) for row in range(3000))]
    Forgery(rows).store(place.store)
    with pytest.raises(CorruptObject):
        bring(place.store, place.there)
    assert place.is_untouched()
    rows = rows[:1500]
    Forgery(rows).store(place.store)
    bring(place.store, place.there)
    bring(place.store, place.there, "good")
    assert place.is_untouched()


SUMMARIES: dict[str, bytes] = {
    "nothing": b"",
    "garbage": b"\xff\xfe garbage",
    "not an object": b"[1, 2]",
    "an empty object": b"{}",
    "nested without end": b"[" * 200_000,
    "objects nested without end": b'{"a":' * 200_000,
    "a number without end": b'{"key":"k","files":' + b"9" * 100_000 + b"}",
}


@pytest.mark.parametrize("what", SUMMARIES)
def test_a_summary_that_is_none_is_refused(place: Place, what: str) -> None:
    data = place.store.read(manifest_name("good"), limit=1 << 30)
    replace_manifest(place.store, "k", build(SUMMARIES[what], take_apart(data)[1]))
    place.refuses()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("key", "other"),
            ("trees", []),
            ("trees", {}),
            ("trees", [{"name": "../x", "root": ""}]),
        ),
        *(("trees", [{"name": "data"}]), ("trees", "data"), ("fingerprint", None)),
        *(("fingerprint", {"family": "../..", "inputs": {}}), ("distributions", [1])),
        *(("distributions", [["a"]]), ("creator", []), ("created", "soon"), ("created", None)),
        *(("created", 10**400), ("created", float("nan")), ("created", float("inf"))),
        *(("created", 1e300), ("files", float("inf")), ("files", "many"), ("size", 1e999)),
        *(("size", -1), ("stored", [1])),
        ("trees", [{"name": "data", "root": ""}, {"name": "data", "root": ""}]),
    ],
)
def test_a_summary_that_makes_no_sense_is_refused(place: Place, field: str, value: object) -> None:
    document = {**summary_of(key="k").to_json(), field: value}
    data = place.store.read(manifest_name("good"), limit=1 << 30)
    replace_manifest(place.store, "k", build(json.dumps(document).encode(), take_apart(data)[1]))
    place.refuses()


def test_a_manifest_of_another_key_is_refused(place: Place) -> None:
    replace_manifest(place.store, "k", place.store.read(manifest_name("good"), limit=1 << 30))
    place.refuses()


@pytest.mark.parametrize("change", [{"version": 2}, {"version": 65535}, {"flags": 2}])
def test_a_manifest_of_a_newer_format_is_a_miss(place: Place, change: dict[str, int]) -> None:
    parts = take_apart(place.store.read(manifest_name("good"), limit=1 << 30))
    replace_manifest(place.store, "good", build(*parts, **change))
    with pytest.raises(NewerFormat) as caught:
        bring(place.store, place.room / "new", "good")
    assert isinstance(caught.value, Miss)
    assert caught.value.exit_code == 3
    assert "update cachepod" in caught.value.hint
    assert not (place.room / "new").exists()


def test_columns_that_this_version_does_not_know_are_passed_over(place: Place) -> None:
    summary, columns = take_apart(place.store.read(manifest_name("good"), limit=1 << 30))
    sections = {"new!": (8, bytes(800)), **sections_of(columns), "more": (1, b"from the future")}
    replace_manifest(place.store, "good", build(summary, block_of(sections)))
    bring(place.store, place.room / "new", "good")
    assert look(place.room / "new") == look(place.room / "source")


@pytest.mark.parametrize("tag", ["ekin", "epar", "enam", "xfst", "craw", "c_id", "psiz", "axva"])
def test_a_manifest_without_one_of_its_columns_is_refused(place: Place, tag: str) -> None:
    summary, columns = take_apart(place.store.read(manifest_name("good"), limit=1 << 30))
    sections = sections_of(columns)
    del sections[tag]
    replace_manifest(place.store, "good", build(summary, block_of(sections)))
    with pytest.raises(CorruptObject):
        bring(place.store, place.room / "new", "good")


def test_a_manifest_that_claims_to_be_huge_is_refused_before_memory_is_taken(place: Place) -> None:
    summary, columns = take_apart(place.store.read(manifest_name("good"), limit=1 << 30))
    for claim in (1 << 31, 1 << 40, (1 << 64) - 1):
        replace_manifest(place.store, "k", build(summary, columns, columns_plain=claim))
        place.refuses()
    for claim in (1 << 27, HUGE):
        replace_manifest(place.store, "k", build(summary, columns, summary_plain=claim))
        place.refuses()


def test_a_manifest_cut_short_at_any_length_is_refused(place: Place) -> None:
    data = place.store.read(manifest_name("good"), limit=1 << 30)
    for length in range(len(data)):
        replace_manifest(place.store, "good", data[:length])
        with pytest.raises(CorruptObject):
            bring(place.store, place.room / "new", "good")
    replace_manifest(place.store, "good", data + b"\0")
    with pytest.raises(CorruptObject):
        bring(place.store, place.room / "new", "good")
    assert not (place.room / "new").exists()


# Flipped bits

_SOURCE = tempfile.TemporaryDirectory()
_HERE = Path(_SOURCE.name)


@contextmanager
def _attempt() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        for left in Path(name).iterdir():
            remove_tree(left)


def _published() -> tuple[MemoryStore, dict[bytes, object]]:
    store = MemoryStore()
    source = _HERE / "source"
    if not source.exists():
        make(source, TREE)
    store_tree(store, source)
    return store, dict(look(source))


def _flip(store: WriteStore, name: str, change: Callable[[bytearray], object]) -> None:
    data = bytearray(store.read(name, limit=1 << 30))
    change(data)
    store.delete(name)
    with store.create(name) as writer:
        writer.write(data)
        writer.commit()


NUMBERS = ("ekin", "epar", "emod", "emtm", "esiz", "enle", "xfst", "xent", "xoff", "xlen", "xsta")
RELAXED = settings(
    max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@RELAXED
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_manifest_is_noticed(place: float, bit: int) -> None:
    store, _ = _published()

    def change(data: bytearray) -> None:
        data[int(place * len(data))] ^= 1 << bit

    _flip(store, manifest_name("k"), change)
    with _attempt() as room:
        with pytest.raises((CorruptObject, Miss)):
            bring(store, room / "there")
        assert not (room / "there").exists()


@RELAXED
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_pack_is_noticed_or_does_no_harm(place: float, bit: int) -> None:
    store, before = _published()
    pack = max(store.list("packs"), key=lambda info: info.size).name

    def change(data: bytearray) -> None:
        data[int(place * len(data))] ^= 1 << bit

    _flip(store, pack, change)
    with _attempt() as room:
        refused = None
        try:
            bring(store, room / "there")
        except CorruptObject as error:
            refused = error.name
        if refused is None:
            assert look(room / "there") == before
        else:
            assert refused == pack
            assert not (room / "there").exists()


@RELAXED
@given(
    flips=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4
    )
)
def test_columns_changed_by_one_who_knows_the_digest_do_no_harm(
    flips: list[tuple[float, int]],
) -> None:
    store, _ = _published()
    summary, columns = take_apart(store.read(manifest_name("k"), limit=1 << 30))
    changed = bytearray(columns)
    for place, value in flips:
        changed[int(place * len(changed))] ^= value
    replace_manifest(store, "k", build(summary, bytes(changed)))
    with _attempt() as room:
        target = room / "a" / "b" / "there"
        target.parent.mkdir(parents=True)
        try:
            bring(store, target)
        except CachepodError:
            assert not target.exists()
        assert os.listdir(room) == ["a"]
        assert os.listdir(room / "a") == ["b"]
        assert set(os.listdir(room / "a" / "b")) <= {"there", ".there.cachepod"}


@RELAXED
@given(
    tag=st.sampled_from(
        ("ekin", "epar", "emod", "emtm", "esiz", "enle", "xfst", "xent", "xoff", "xlen", "xsta")
    ),
    item=st.floats(0, 1, exclude_max=True),
    value=st.one_of(st.integers(0, 20), st.sampled_from([255, 65535, (1 << 32) - 1, 1 << 63])),
)
def test_a_number_changed_by_one_who_knows_the_digest_does_no_harm(
    tag: str, item: float, value: int
) -> None:
    store, _ = _published()
    summary, columns = take_apart(store.read(manifest_name("k"), limit=1 << 30))
    sections = sections_of(columns)
    size, data = sections[tag]
    numbers = array({1: "B", 2: "H", 4: "I", 8: "Q"}[size], data)
    numbers[int(item * len(numbers))] = value & ((1 << 8 * size) - 1)
    sections[tag] = size, numbers.tobytes()
    replace_manifest(store, "k", build(summary, block_of(sections)))
    with _attempt() as room:
        target = room / "a" / "there"
        target.parent.mkdir()
        try:
            bring(store, target)
        except CachepodError:
            assert not target.exists()
        assert os.listdir(room) == ["a"]
        assert set(os.listdir(room / "a")) <= {"there", ".there.cachepod"}


def test_a_checksum_that_was_made_to_match_does_not_hide_a_wrong_frame(place: Place) -> None:
    frame = bytearray(zstandard.ZstdCompressor().compress(PLAIN))
    frame[-3] ^= 0xFF
    chunk = Chunk(
        PLAIN, [(1, 0, 1000, 0)], frame=bytes(frame[:-4]), check=xxh3_128_digest(bytes(frame[:-4]))
    )
    Forgery([ROOT, file(b"a", 1000)], [chunk]).store(place.store)
    place.refuses()

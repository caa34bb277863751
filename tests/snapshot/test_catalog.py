from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from cachepod.errors import (
    CachepodError,
    CorruptObject,
    Miss,
    NewerFormat,
    ObjectMissing,
    StoreUnreachable,
)
from cachepod.model.manifest import HEADER
from cachepod.model.names import manifest_name
from cachepod.snapshot.catalog import (
    Relative,
    load_manifest,
    nearest,
    restorable,
    summaries,
    summary,
)
from cachepod.stores.base import WriteStore, put
from cachepod.stores.memory import MemoryStore
from tests.support.snapshots import FAMILY, fingerprint, publish_files
from tests.support.stores import Around, CountingStore, FaultyStore, SlowStore

FILES = {"bin/python@": b"/usr/bin/python3", "lib/a.py": b"import b\n", "lib/b.py": b""}


class Dated(Around):
    """Objects are as old as a test says."""

    def __init__(self, store: WriteStore) -> None:
        super().__init__(store)
        self.times: dict[str, float] = {}

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        for info in self.store.list(prefix):
            yield dataclasses.replace(info, modified=self.times.get(info.name, info.modified))


def replaced(store: WriteStore, key: str, change: Callable[[bytearray], None]) -> None:
    """Change the stored manifest of *key*."""
    name = manifest_name(key)
    data = bytearray(store.read(name, limit=1 << 30))
    change(data)
    store.delete(name)
    put(store, name, bytes(data))


def cut(length: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        del data[length:]

    return change


def flip(at: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at] ^= 1

    return change


def test_a_summary_says_what_was_published() -> None:
    store = MemoryStore()
    wanted = fingerprint()
    key = publish_files(store, wanted, FILES)
    found = summary(store, key)
    assert found.key == key
    assert found.fingerprint == wanted
    assert found.files == 2
    assert found.size == 9
    assert [tree.name for tree in found.trees] == ["env"]
    assert load_manifest(store, key).summary == found


def test_a_summary_is_read_without_the_rest_of_the_manifest() -> None:
    store = CountingStore(MemoryStore())
    files = {f"lib/{i:05}-{i * 7919 % 10007}.py": b"%d" % i for i in range(20_000)}
    key = publish_files(store, fingerprint(), files)
    assert store.size(manifest_name(key)) > 200_000
    store.reset()
    summary(store, key)
    assert store.bytes_read <= 64 * 1024
    assert store.calls["list"] == 0


def test_a_long_summary_is_read_to_its_end() -> None:
    import random

    chance = random.Random(1)
    store = MemoryStore()
    inputs = {f"requirement__p{i}": f"{chance.getrandbits(256):x}" for i in range(4000)}
    wanted = fingerprint(**inputs)
    key = publish_files(store, wanted, FILES)
    assert store.size(manifest_name(key)) > 128 * 1024
    assert summary(store, key).fingerprint == wanted


@pytest.mark.parametrize("load", [summary, load_manifest])
def test_an_absent_snapshot_is_a_miss(load) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Miss) as caught:
        load(MemoryStore(), fingerprint().key)
    assert caught.value.key == fingerprint().key


@pytest.mark.parametrize("load", [summary, load_manifest])
@pytest.mark.parametrize(
    "change", [cut(0), cut(40), cut(HEADER.size), cut(HEADER.size + 9), flip(0), flip(13), flip(90)]
)
def test_a_damaged_manifest_is_named(load, change) -> None:  # type: ignore[no-untyped-def]
    store = MemoryStore()
    key = publish_files(store, fingerprint(), FILES)
    replaced(store, key, change)
    with pytest.raises(CorruptObject) as caught:
        load(store, key)
    assert caught.value.name == manifest_name(key)


@pytest.mark.parametrize("load", [summary, load_manifest])
def test_a_manifest_of_a_later_format_is_a_miss(load) -> None:  # type: ignore[no-untyped-def]
    store = MemoryStore()
    key = publish_files(store, fingerprint(), FILES)

    def later(data: bytearray) -> None:
        data[8] = 9

    replaced(store, key, later)
    with pytest.raises(NewerFormat):
        load(store, key)


@pytest.mark.parametrize("load", [summary, load_manifest])
def test_a_manifest_under_another_key_is_not_taken_for_it(load) -> None:  # type: ignore[no-untyped-def]
    store = MemoryStore()
    key = publish_files(store, fingerprint(), FILES)
    other = fingerprint(requirement__numpy="numpy==2").key
    put(store, manifest_name(other), store.read(manifest_name(key), limit=1 << 20))
    with pytest.raises(CorruptObject, match=key):
        load(store, other)


def test_a_failing_store_is_not_called_a_miss() -> None:
    store = FaultyStore(MemoryStore(), {"size": "U*", "read": "U*"})
    for load in (summary, load_manifest):
        with pytest.raises(StoreUnreachable):
            load(store, fingerprint().key)


def three(store: Dated) -> list[str]:
    """Three snapshots of one family and one named, from the oldest to the newest."""
    keys = [
        publish_files(store, fingerprint(), FILES),
        publish_files(store, fingerprint(requirement__numpy="numpy==1"), FILES),
        publish_files(store, fingerprint(handler="tts", libc="glibc 2.40"), FILES),
        publish_files(store, fingerprint("named", key="mine"), FILES, key="mine"),
    ]
    for age, key in enumerate(keys):
        store.times[manifest_name(key)] = 1e9 + age
    return keys


def test_a_listing_has_the_newest_first() -> None:
    store = Dated(MemoryStore())
    keys = three(store)
    assert [found.key for found in summaries(store)] == keys[::-1]
    assert [found.key for found in summaries(store, FAMILY)] == keys[2::-1]
    assert [found.key for found in summaries(store, "named")] == ["mine"]
    assert list(summaries(store, "other")) == []
    assert list(summaries(MemoryStore())) == []


def test_what_cannot_be_read_does_not_keep_back_the_others() -> None:
    store = Dated(MemoryStore())
    keys = three(store)
    replaced(store, keys[1], flip(90))
    put(store, "manifests/named/mine2", b"garbage")
    put(store, f"manifests/{FAMILY}/in-the-wrong-family", b"garbage")
    errors: dict[str, CachepodError] = {}
    found = {each.key for each in summaries(store, on_error=errors.__setitem__)}
    assert found == {keys[0], keys[2], "mine"}
    assert set(errors) == {keys[1], "mine2", "in-the-wrong-family"}
    assert all(isinstance(error, CorruptObject) for error in errors.values())


def test_a_snapshot_that_vanishes_during_a_listing_is_passed_over() -> None:
    memory = MemoryStore()
    publish_files(memory, fingerprint(), FILES)
    store = FaultyStore(memory, {"read_range": "M"})
    errors: dict[str, CachepodError] = {}
    assert list(summaries(store, on_error=errors.__setitem__)) == []
    assert errors == {}


def test_a_listing_that_fails_is_an_error() -> None:
    with pytest.raises(StoreUnreachable):
        list(summaries(FaultyStore(MemoryStore(), {"list": "U"})))


def test_summaries_of_a_slow_store_are_read_together() -> None:
    class Remote(SlowStore):
        @property
        def parallel_reads(self) -> int:
            return 4

    memory = MemoryStore()
    keys = {
        publish_files(memory, fingerprint(handler=str(number)), {"a": b"1"}) for number in range(8)
    }
    store = Remote(memory, 0.02)
    assert {found.key for found in summaries(store)} == keys
    assert 2 <= store.most_at_once <= 4


def test_the_nearest_differs_in_the_fewest_inputs() -> None:
    store = Dated(MemoryStore())
    keys = three(store)
    wanted = fingerprint(requirement__numpy="numpy==2")
    relative = nearest(store, wanted)
    assert relative is not None
    # Against both: one added requirement, or one changed. The newer is taken.
    assert relative.summary.key == keys[1]
    assert [(d.name, d.ours, d.theirs) for d in relative.differences] == [
        ("requirement:numpy", "numpy==2", "numpy==1")
    ]
    store.times[manifest_name(keys[0])] = 2e9
    relative = nearest(store, wanted)
    assert relative is not None
    assert relative.summary.key == keys[0]


def test_a_snapshot_is_not_its_own_relative() -> None:
    store = MemoryStore()
    publish_files(store, fingerprint(), FILES)
    assert nearest(store, fingerprint()) is None


def test_another_family_is_no_relative() -> None:
    store = MemoryStore()
    publish_files(store, fingerprint(), FILES)
    assert nearest(store, fingerprint("cp311-linux_x86_64-cu126-torch2.7.0")) is None


def test_a_relative_that_cannot_be_read_is_none() -> None:
    store = Dated(MemoryStore())
    keys = three(store)
    for key in keys[:2]:
        replaced(store, key, flip(90))
    relative = nearest(store, fingerprint(requirement__numpy="numpy==2"))
    assert relative is not None
    assert relative.summary.key == keys[2]


def test_only_the_newest_of_a_large_family_are_looked_at() -> None:
    store = CountingStore(MemoryStore())
    data = b"not a manifest" * 20
    for number in range(100):
        put(store, f"manifests/{FAMILY}/{FAMILY}-{number:016x}", data)
    store.reset()
    assert nearest(store, fingerprint()) is None
    assert store.calls["read_range"] == 32


def relative_of(ours, theirs, tree: str = "env") -> Relative:  # type: ignore[no-untyped-def]
    store = MemoryStore()
    found = summary(store, publish_files(store, theirs, FILES, tree=tree))
    return Relative(found, ours.differences(theirs))


@pytest.mark.parametrize(
    "changes",
    [
        {"requirement__numpy": "numpy==2"},
        {"requirement__torch": None},
        {"constraint__numpy": "numpy<3", "lock": "yes", "option__pre": "yes"},
        {"index": "https://mirror/simple", "index__torch": "https://torch"},
        {"apt__ffmpeg": "any version", "distribution": "debian 12"},
        {"handler": "tts"},
    ],
)
def test_what_an_installer_can_change_can_be_topped_up(changes: dict[str, str]) -> None:
    ours = fingerprint(**changes)
    assert restorable(ours, relative_of(ours, fingerprint()))
    assert restorable(fingerprint(), relative_of(fingerprint(), ours))


@pytest.mark.parametrize(
    "changes",
    [
        {"prefix": "/other"},
        {"python": "cpython 3.10.14"},
        {"libc": "glibc 2.40"},
        {"machine": "linux_aarch64"},
        {"abi": "cpython-310d"},
        {"interpreter": "/opt/python"},
        {"compile": "no"},
        {"cuda": "12.8"},
        {"something-new": "unknown"},
        {"requirement__numpy": "numpy==2", "prefix": "/other"},
    ],
)
def test_another_machine_or_interpreter_or_prefix_cannot(changes: dict[str, str]) -> None:
    ours = fingerprint(**changes)
    assert not restorable(ours, relative_of(ours, fingerprint()))


def test_packages_of_another_system_release_cannot() -> None:
    ours = fingerprint(apt__ffmpeg="any version", distribution="debian 12")
    theirs = fingerprint(apt__ffmpeg="any version", distribution="debian 13")
    assert not restorable(ours, relative_of(ours, theirs))


def test_a_snapshot_without_an_environment_cannot() -> None:
    ours = fingerprint(requirement__numpy="numpy==2")
    assert not restorable(ours, relative_of(ours, fingerprint(), tree="data"))


def test_an_object_that_vanishes_between_size_and_read_is_a_miss() -> None:
    memory = MemoryStore()
    key = publish_files(memory, fingerprint(), FILES)
    with pytest.raises(Miss):
        summary(FaultyStore(memory, {"read_range": "M"}), key)
    with pytest.raises(ObjectMissing):
        memory.size("packs/none")

"""System calls of the directory store fail, each in its own way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cachepod.errors import CachepodError, CorruptObject, SpaceExhausted, StoreUnreachable
from cachepod.stores.base import exists, put
from cachepod.stores.local import LocalStore
from cachepod.stores.wrappers import Patience, Retrying
from tests.stores.conformance import DATA, NAME, infos
from tests.support.faults import failing, short_transfers


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store that has seen one write."""
    store = LocalStore(tmp_path)
    put(store, "packs/00/first", DATA)
    return store


def patient(store: LocalStore) -> Retrying:
    return Retrying(store, Patience(attempts=4, sleep=lambda seconds: None))


def nothing_is_left(store: LocalStore) -> bool:
    names = set(infos(store, "packs"))
    return names == {"packs/00/first"} and not list(store.temporaries("packs"))


@pytest.mark.parametrize("most", [1, 7, 4096])
def test_short_reads_and_writes_are_continued(tmp_path: Path, most: int) -> None:
    with short_transfers(most):
        store = LocalStore(tmp_path)
        put(store, NAME, DATA)
        assert store.read(NAME, limit=len(DATA)) == DATA
        buffer = bytearray(5000)
        store.read_range(NAME, 100, memoryview(buffer))
    assert (tmp_path / NAME).read_bytes() == DATA
    assert buffer == DATA[100:5100]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("function", ["pwrite", "fsync", "link", "mkdir", "open"])
def test_a_full_volume_is_called_full(store: LocalStore, function: str, code: int) -> None:
    def writing(*args: object, **kwargs: object) -> bool:
        return function != "open" or bool(int(args[1]) & os.O_CREAT)  # type: ignore[call-overload]

    with failing(function, code, when=writing), pytest.raises(SpaceExhausted) as caught:
        put(store, NAME, DATA)
    assert str(store.url) in str(caught.value)
    assert "prune" in caught.value.hint
    assert nothing_is_left(store)
    assert put(store, NAME, DATA)  # once there is room again


def test_a_pack_that_fills_the_volume_half_way_is_removed(store: LocalStore) -> None:
    with failing("pwrite", errno.ENOSPC, calls="..E*"), store.create(NAME) as writer:
        writer.write(DATA)
        writer.write(DATA)
        with pytest.raises(SpaceExhausted):
            writer.write(DATA)
        assert set(infos(store, "packs")) == {"packs/00/first"}
    assert nothing_is_left(store)


@pytest.mark.parametrize(
    ("function", "code"),
    [
        *(("pwrite", errno.EIO), ("fsync", errno.EIO), ("link", errno.EIO), ("link", errno.ESTALE)),
        *(("mkdir", errno.EIO), ("mkdir", errno.EROFS), ("mkdir", errno.EACCES)),
        *(("open", errno.EIO), ("open", errno.ENFILE), ("open", errno.EACCES)),
        *(("open", errno.EROFS), ("open", errno.ENOTCONN)),
    ],
)
def test_a_write_that_fails_leaves_nothing_visible(
    store: LocalStore, function: str, code: int
) -> None:
    with failing(function, code), pytest.raises(StoreUnreachable) as caught:
        put(store, NAME, DATA)
    assert caught.value.url == store.url or caught.value.url in store.url
    assert os.strerror(code) in str(caught.value)
    assert nothing_is_left(store)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_store_that_cannot_be_written_names_the_path(tmp_path: Path, code: int) -> None:
    with failing("mkdir", code), pytest.raises(StoreUnreachable) as caught:
        LocalStore(tmp_path / "store").create(NAME)
    assert str(tmp_path / "store") in str(caught.value)
    assert caught.value.hint
    assert not caught.value.transient


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EROFS])
def test_a_directory_that_cannot_be_synced_is_taken_as_it_is(tmp_path: Path, code: int) -> None:
    def is_directory(descriptor: int) -> bool:
        return os.path.isdir(f"/proc/self/fd/{descriptor}")

    with failing("fsync", code, when=is_directory):
        assert put(LocalStore(tmp_path / "a" / "b"), NAME, DATA)
    assert (tmp_path / "a" / "b" / NAME).read_bytes() == DATA


def test_a_file_whose_sync_failed_is_never_published_even_if_asked_again(
    store: LocalStore,
) -> None:
    with patient(store).create(NAME) as writer:
        writer.write(DATA)
        for _ in range(2):
            with failing("fsync", errno.EIO, calls="E"), pytest.raises(StoreUnreachable) as caught:
                writer.commit()
            assert not caught.value.transient
    assert nothing_is_left(store)


def test_what_a_network_drops_at_close_is_not_published(store: LocalStore) -> None:
    writer = store.create(NAME)
    writer.write(DATA)
    with failing("close", errno.EDQUOT, calls="A"), pytest.raises(SpaceExhausted):
        writer.commit()
    writer.abort()
    assert nothing_is_left(store)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EAGAIN])
@pytest.mark.parametrize("function", ["pwrite", "link", "open", "mkdir"])
def test_a_passing_fault_of_a_write_is_not_noticed(
    store: LocalStore, function: str, code: int
) -> None:
    with failing(function, code, calls="EEE"):
        assert put(patient(store), NAME, DATA)
    assert store.read(NAME, limit=len(DATA)) == DATA
    assert list(store.temporaries("packs")) == []


def test_a_write_that_failed_half_way_is_repeated_from_its_own_start(store: LocalStore) -> None:
    with short_transfers(3000), failing("pwrite", errno.EIO, calls="..E"):
        assert put(patient(store), NAME, DATA)
    assert store.read(NAME, limit=len(DATA)) == DATA


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EAGAIN])
@pytest.mark.parametrize("function", ["preadv", "pread", "open", "lstat", "scandir"])
def test_a_passing_fault_of_a_read_is_not_noticed(
    store: LocalStore, function: str, code: int
) -> None:
    reader = patient(store)
    buffer = bytearray(50)
    with failing(function, code, calls="EEE"):
        assert reader.read("packs/00/first", limit=len(DATA)) == DATA
        reader.read_range("packs/00/first", 1, memoryview(buffer))
        assert reader.size("packs/00/first") == len(DATA)
        assert len(list(reader.list("packs"))) == 1
    assert buffer == DATA[1:51]


def test_a_stale_handle_is_opened_anew(store: LocalStore) -> None:
    buffer = memoryview(bytearray(1))
    store.read_range("packs/00/first", 0, buffer)
    stale = []

    def is_stale(descriptor: int, *args: object) -> bool:
        if not stale:
            stale.append(descriptor)
            # Taken, so that the file's next handle has another number.
            stale.append(os.dup(descriptor))
        return descriptor == stale[0] and len(opened) == 0

    opened: list[int] = []
    original = os.open

    def watched(*args: object, **kwargs: object) -> int:
        opened.append(1)
        return original(*args, **kwargs)  # type: ignore[arg-type]

    with failing("preadv", errno.ESTALE, when=is_stale), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", watched)
        patient(store).read_range("packs/00/first", 0, buffer)
    os.close(stale[1])
    assert opened


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOTCONN, errno.EPERM])
def test_a_lasting_fault_is_reported_once_and_at_once(store: LocalStore, code: int) -> None:
    tries = []

    def count(*args: object, **kwargs: object) -> bool:
        tries.append(1)
        return True

    with failing("lstat", code, when=count), pytest.raises(StoreUnreachable) as caught:
        patient(store).size("packs/00/first")
    assert len(tries) == 1
    assert caught.value.hint


def test_a_truncated_object_is_damage_not_a_missing_volume(store: LocalStore) -> None:
    os.truncate(Path(store.url, "packs/00/first"), 100)
    with pytest.raises(CorruptObject, match="ends at byte 100 of 150"):
        store.read_range("packs/00/first", 50, memoryview(bytearray(100)))


def test_a_lost_answer_to_a_link_does_not_lose_the_race_to_itself(store: LocalStore) -> None:
    with failing("link", errno.EIO, calls="A"):
        assert put(patient(store), NAME, DATA)
    assert store.read(NAME, limit=len(DATA)) == DATA


def test_a_lost_answer_to_a_move_is_no_missing_object(store: LocalStore) -> None:
    with failing("rename", errno.EIO, calls="A"):
        patient(store).move("packs/00/first", "trash/first")
    assert exists(store, "trash/first")


def test_a_leftover_that_cannot_be_removed_does_not_spoil_a_commit(store: LocalStore) -> None:
    with failing("unlink", errno.EIO):
        assert put(store, NAME, DATA)
    assert store.read(NAME, limit=len(DATA)) == DATA
    assert len(list(store.temporaries("packs"))) == 1
    assert NAME in infos(store, "packs")


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("function", ["open", "lstat", "scandir", "rename", "unlink"])
def test_every_failing_call_becomes_an_error_of_ours(
    store: LocalStore, function: str, code: int
) -> None:
    fresh = LocalStore(Path(store.url))
    acts = [
        lambda: fresh.read("packs/00/first", limit=len(DATA)),
        lambda: fresh.read_range("packs/00/first", 0, memoryview(bytearray(1))),
        lambda: fresh.size("packs/00/first"),
        lambda: list(fresh.list("packs")),
        lambda: fresh.move("packs/00/first", "trash/x"),
        lambda: fresh.delete("packs/00/first"),
    ]
    failed = 0
    for act in acts:
        with failing(function, code):
            try:
                act()
            except CachepodError:
                failed += 1
    assert failed >= 1

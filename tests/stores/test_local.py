"""The directory store against the conformance suite, and what only a directory store promises."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachepod.errors import (
    CorruptObject,
    NewerFormat,
    ObjectMissing,
    StoreUnreachable,
)
from cachepod.stores.base import WriteStore, exists, put
from cachepod.stores.local import LocalStore, temporary_of
from cachepod.stores.wrappers import Retrying
from tests.stores.conformance import DATA, NAME, PruneStoreConformance, infos
from tests.stores.stateful import compare_with_a_dictionary
from tests.support.faults import failing, in_a_child, killed_at_every_call


class TestLocalStore(PruneStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> WriteStore:
        return LocalStore(tmp_path / "store")

    def put_behind(self, store: WriteStore, name: str, data: bytes) -> None:
        path = Path(store.url, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get_behind(self, store: WriteStore, name: str) -> bytes | None:
        path = Path(store.url, name)
        return path.read_bytes() if path.is_file() else None


class TestRetryingLocalStore(TestLocalStore):
    @pytest.fixture
    def store(self, tmp_path: Path) -> WriteStore:
        return Retrying(LocalStore(tmp_path / "store"))


class TestLocalStoreWithoutHardLinks(TestLocalStore):
    """Commits are renames; all of it holds but that one of many at one moment is told so."""

    @pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
    def store(self, tmp_path: Path, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
        with failing("link", request.param):
            yield LocalStore(tmp_path / "store")

    def test_of_many_threads_that_write_one_name_one_is_first(self, store: WriteStore) -> None:
        barrier = threading.Barrier(8)

        def write(i: int) -> bool:
            with store.create(NAME) as writer:
                writer.write(bytes([i]) * 3000)
                barrier.wait(30)
                return writer.commit()

        with ThreadPoolExecutor(8) as pool:
            assert any(pool.map(write, range(8)))
        data = self.get_behind(store, NAME)
        assert data is not None
        assert data == data[:1] * 3000


def test_a_directory_behaves_as_a_dictionary(tmp_path: Path) -> None:
    compare_with_a_dictionary(lambda: LocalStore(Path(tempfile.mkdtemp(dir=tmp_path))))


# The store's own directory and format


def test_reading_a_missing_directory_makes_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "a" / "b")
    assert not exists(store, NAME)
    assert list(store.list("packs")) == []
    store.delete(NAME)
    with pytest.raises(ObjectMissing):
        store.move(NAME, "trash/x")
    assert os.listdir(tmp_path) == []


def test_the_first_write_makes_the_directory_and_says_what_it_is(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    assert put(LocalStore(root), NAME, DATA)
    assert (root / "cachepod.json").read_text() == '{"store": "cachepod", "format": 1}\n'
    assert (root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f0688")
    assert sorted(os.listdir(root)) == ["CACHEDIR.TAG", "cachepod.json", "packs"]


def test_a_store_that_must_exist_is_not_made(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "missing", create=False)
    with pytest.raises(StoreUnreachable, match="there is no such directory"):
        store.create(NAME)
    assert os.listdir(tmp_path) == []


def test_a_store_that_must_exist_and_does_is_written(tmp_path: Path) -> None:
    assert put(LocalStore(tmp_path, create=False), NAME, DATA)


def test_a_directory_that_appears_later_is_seen(tmp_path: Path) -> None:
    reader = LocalStore(tmp_path / "late")
    assert not exists(reader, NAME)
    put(LocalStore(tmp_path / "late"), NAME, DATA)
    assert reader.read(NAME, limit=len(DATA)) == DATA


EVERY_METHOD = [
    lambda store: store.read(NAME, limit=1),
    lambda store: store.read_range(NAME, 0, memoryview(bytearray(1))),
    lambda store: store.size(NAME),
    lambda store: list(store.list("packs")),
    lambda store: store.create(NAME),
    lambda store: store.move(NAME, "trash/x"),
    lambda store: store.delete(NAME),
]


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_store_of_a_later_format_is_left_alone(tmp_path: Path, method) -> None:
    put(LocalStore(tmp_path), NAME, DATA)
    (tmp_path / "cachepod.json").write_text('{"format": 2, "more": [1]}')
    with pytest.raises(NewerFormat) as caught:
        method(LocalStore(tmp_path))
    assert caught.value.version == 2
    assert (tmp_path / NAME).read_bytes() == DATA


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"", b"{", b"[]", b"null", b"{}", b'{"format": "1"}', b'{"format": 0}'),
        *(b'{"format": true}', b"\xff\xfe", b" " * 100_000, b"[" * 50_000),
        b'{"format": ' + b"9" * 5000 + b"}",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_garbled_format_says_what_to_do(tmp_path: Path, garbage: bytes, method) -> None:
    put(LocalStore(tmp_path), NAME, DATA)
    (tmp_path / "cachepod.json").write_bytes(garbage)
    with pytest.raises((StoreUnreachable, NewerFormat)) as caught:
        method(LocalStore(tmp_path))
    if isinstance(caught.value, StoreUnreachable):
        assert "cachepod.json" in caught.value.why
        assert f"delete {tmp_path}/cachepod.json" in caught.value.hint
        assert not caught.value.transient
    assert (tmp_path / NAME).read_bytes() == DATA


def test_a_store_whose_format_was_deleted_is_whole_again_after_a_write(tmp_path: Path) -> None:
    put(LocalStore(tmp_path), NAME, DATA)
    (tmp_path / "cachepod.json").unlink()
    assert LocalStore(tmp_path).read(NAME, limit=len(DATA)) == DATA
    put(LocalStore(tmp_path), "packs/cd/other", DATA)
    assert (tmp_path / "cachepod.json").is_file()


@pytest.mark.parametrize("method", EVERY_METHOD)
@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_is_no_store(tmp_path: Path, below: str, method) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreUnreachable, match="Not a directory") as caught:
        method(LocalStore(tmp_path / "file" / below))
    assert "give a directory" in caught.value.hint
    assert (tmp_path / "file").read_text() == "mine"


# Many writers


_RACER = """
import sys
from pathlib import Path
from cachepod.stores.local import LocalStore
root, me = sys.argv[1:]
store = LocalStore(Path(root))
won = []
for i in range(20):
    with store.create(f"packs/ab/{i}") as writer:
        writer.write(me.encode() * 50_000)
        sys.stdin.readline()
        if writer.commit():
            won.append(i)
    print("next", flush=True)
print(*won)
"""


def test_of_several_processes_that_write_one_name_one_is_first(tmp_path: Path) -> None:
    root = tmp_path / "store"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(root), str(me)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in range(4)
    ]
    for _ in range(20):
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "next\n"
    won = []
    for racer in racers:
        assert racer.stdout is not None
        won.append([int(i) for i in racer.stdout.read().split()])
        assert racer.wait(30) == 0
    assert sorted(i for wins in won for i in wins) == list(range(20))
    for me, wins in enumerate(won):
        for i in wins:
            assert (root / f"packs/ab/{i}").read_text() == str(me) * 50_000
    assert [path for path, _ in LocalStore(root).temporaries("packs")] == []


def test_a_writer_killed_at_any_moment_leaves_no_half_object(tmp_path: Path) -> None:
    root = tmp_path / "root"

    def write() -> None:
        with LocalStore(root).create(NAME) as writer:
            writer.write(DATA[:5000])
            writer.write(DATA[5000:])
            writer.commit()

    moments = appeared = left = 0
    for _ in killed_at_every_call(write):
        moments += 1
        store = LocalStore(root)
        if exists(store, NAME):
            appeared += 1
            assert store.read(NAME, limit=len(DATA)) == DATA
        assert set(infos(store, "packs")) <= {NAME}
        leftovers = list(store.temporaries("packs"))
        left += len(leftovers)
        for path, temporary in leftovers:
            assert temporary.pid != os.getpid()
            assert temporary.host == socket.gethostname()
            path.unlink()
        # Whatever was left, the next writer gets through.
        put(store, NAME, DATA)
        assert store.read(NAME, limit=len(DATA)) == DATA
        store.delete(NAME)
        for name in ("cachepod.json", "CACHEDIR.TAG"):
            (root / name).unlink()
        assert list(store.temporaries("packs")) == []
    assert moments > 20
    assert appeared >= 2  # after the link, before the end
    assert left >= 4  # between creation and link


def test_a_killed_writer_of_a_taken_name_leaves_the_first_object(tmp_path: Path) -> None:
    put(LocalStore(tmp_path), NAME, b"first")

    def write() -> None:
        put(LocalStore(tmp_path), NAME, b"second")

    for _ in killed_at_every_call(write):
        assert LocalStore(tmp_path).read(NAME, limit=9) == b"first"


def test_a_leftover_file_is_recognised_and_an_object_never_is() -> None:
    name = ".tmp-some-host.example-123-0123456789abcdef"
    temporary = temporary_of(name)
    assert temporary is not None
    assert (temporary.host, temporary.pid) == ("some-host.example", 123)
    for other in (".tmp", ".tmp-h-1", "tmp-h-1-0123456789abcdef", "a" + name, name + "0", NAME):
        assert temporary_of(other) is None


def test_a_writer_s_temporary_file_lies_beside_its_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with store.create(NAME) as writer:
        writer.write(DATA)
        [(path, temporary)] = store.temporaries("packs")
        assert path.parent == (tmp_path / NAME).parent
        assert temporary.pid == os.getpid()
    assert list(store.temporaries("packs")) == []


# What else may lie there


def test_files_that_are_no_objects_are_not_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put(store, NAME, DATA)
    directory = (tmp_path / NAME).parent
    (directory / ".hidden").write_text("")
    (directory / "with blank").write_text("")
    (directory / "link").symlink_to(tmp_path / NAME)
    (directory / "loop").symlink_to(directory)
    os.mkfifo(directory / "fifo")
    assert set(infos(store, "packs")) == {NAME}


def test_what_is_no_regular_file_is_damage_and_never_waited_for(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put(store, NAME, DATA)
    directory = (tmp_path / NAME).parent
    os.mkfifo(directory / "fifo")
    (directory / "link").symlink_to(tmp_path / NAME)
    for name in ("packs/ab/fifo", "packs/ab/link"):
        with pytest.raises(CorruptObject):
            store.read(name, limit=10)
        with pytest.raises(CorruptObject):
            store.read_range(name, 0, memoryview(bytearray(1)))
        with pytest.raises(CorruptObject):
            store.size(name)


def test_a_root_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert put(LocalStore(tmp_path / "link"), NAME, DATA)
    assert (tmp_path / "real" / NAME).read_bytes() == DATA


def test_an_object_deleted_by_another_process_is_missing_to_a_new_reader(tmp_path: Path) -> None:
    put(LocalStore(tmp_path), NAME, DATA)
    assert in_a_child(lambda: LocalStore(tmp_path).delete(NAME)) == 0
    with pytest.raises(ObjectMissing):
        LocalStore(tmp_path).read_range(NAME, 0, memoryview(bytearray(1)))


def test_a_listing_survives_objects_that_vanish_meanwhile(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for i in range(20):
        put(store, f"packs/{i:02}/x", b"")
    listing = store.list("packs")
    seen = [next(listing).name]
    for info in list(LocalStore(tmp_path).list("packs")):
        store.delete(info.name)
        (tmp_path / info.name).parent.rmdir()
    seen += [info.name for info in listing]
    assert len(seen) < 20


def test_times_of_whole_seconds_do_no_harm(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put(store, NAME, DATA)
    os.utime(tmp_path / NAME, (1e9, 1e9))
    assert infos(store, "packs")[NAME].modified == 1e9
    store.move(NAME, "trash/x")
    assert time.time() - infos(store, "trash")["trash/x"].modified > 1e8


@pytest.mark.parametrize("function", ["chmod", "chown", "fchmod", "fchown", "posix_fallocate"])
def test_a_volume_that_refuses_modes_owners_and_preallocation_is_used(
    tmp_path: Path, function: str
) -> None:
    with failing(function, errno.EPERM):
        assert put(LocalStore(tmp_path), NAME, DATA)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_of_somebody_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)
    with pytest.raises(StoreUnreachable, match="theirs") as caught:
        LocalStore(tmp_path / "theirs" / "store").create(NAME)
    assert "another --store" in caught.value.hint


def test_a_relative_directory_is_taken_from_where_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("here"))
    monkeypatch.chdir("/")
    assert put(store, "packs/ab/x", b"data")
    assert (tmp_path / "here" / "packs" / "ab" / "x").read_bytes() == b"data"


def test_what_another_process_has_replaced_is_read_anew(tmp_path: Path) -> None:
    reader, writer = LocalStore(tmp_path / "store"), LocalStore(tmp_path / "store")
    name, buffer = "manifests/named/x", bytearray(3)
    writer.replace(name, b"old")
    reader.read_range(name, 0, memoryview(buffer))
    writer.replace(name, b"new")
    reader.read_range(name, 0, memoryview(buffer))
    assert buffer == b"new"

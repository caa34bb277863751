"""The directory store on a real MooseFS, and what two mounts of it see of each other."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cachepod.errors import ObjectMissing
from cachepod.stores.base import WriteStore, exists, put
from cachepod.stores.local import LocalStore
from cachepod.stores.mounts import mount_of
from tests.stores.conformance import DATA, NAME, PruneStoreConformance, infos
from tests.stores.stateful import compare_with_a_dictionary
from tests.support.cli import wait_until
from tests.support.faults import in_a_child

pytestmark = [
    pytest.mark.root,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


class TestLocalStoreOnMooseFS(PruneStoreConformance):
    """What goes behind the store's back goes through another mount."""

    @pytest.fixture
    def store(self, mounts: tuple[Path, Path]) -> WriteStore:
        here, there = mounts
        self.behind = there / "store"
        return LocalStore(here / "store")

    def put_behind(self, store: WriteStore, name: str, data: bytes) -> None:
        path = self.behind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get_behind(self, store: WriteStore, name: str) -> bytes | None:
        path = self.behind / name
        return path.read_bytes() if path.is_file() else None


def test_it_behaves_as_a_dictionary_on_moosefs(mounts: tuple[Path, Path]) -> None:
    compare_with_a_dictionary(lambda: LocalStore(Path(tempfile.mkdtemp(dir=mounts[0]))), 4)


def test_a_moosefs_is_known_to_be_one(mounts: tuple[Path, Path]) -> None:
    mount = mount_of(str(mounts[0]))
    assert mount is not None
    assert mount.remote
    assert mount.kind == "fuse"
    assert mount.device == "mfs#192.0.2.1:9421"
    assert LocalStore(mounts[0]).parallel_reads > 0


def test_it_keeps_whole_seconds(mounts: tuple[Path, Path]) -> None:
    """Nothing of the store may rest on more."""
    store = LocalStore(mounts[0])
    put(store, NAME, DATA)
    assert infos(store, "packs")[NAME].modified % 1 == 0


# Two mounts


@pytest.fixture
def two(mounts: tuple[Path, Path]) -> tuple[LocalStore, LocalStore]:
    """One store, as two containers have it mounted."""
    return LocalStore(mounts[0] / "store"), LocalStore(mounts[1] / "store")


def test_what_one_mount_commits_the_other_has(two: tuple[LocalStore, LocalStore]) -> None:
    here, there = two
    for number in range(20):
        name = f"packs/ab/{number}"
        assert not exists(there, name)
        with here.create(name) as writer:
            writer.write(DATA)
            assert not exists(there, name)
            assert writer.commit()
        assert there.read(name, limit=len(DATA)) == DATA
        assert name in infos(there, "packs")
        assert not put(there, name, b"late")


def test_what_one_mount_deletes_or_moves_the_other_misses(
    two: tuple[LocalStore, LocalStore],
) -> None:
    here, there = two
    for number in range(10):
        name = f"packs/ab/{number}"
        put(here, name, DATA)
        assert there.read(name, limit=len(DATA)) == DATA
        if number % 2:
            here.delete(name)
        else:
            here.move(name, f"trash/{number}")
            assert there.read(f"trash/{number}", limit=len(DATA)) == DATA
        with pytest.raises(ObjectMissing):
            there.read(name, limit=len(DATA))
        assert put(there, name, b"another")
        assert here.read(name, limit=len(DATA)) == b"another"


def test_of_threads_on_both_mounts_that_write_one_name_one_is_first(
    two: tuple[LocalStore, LocalStore],
) -> None:
    assert all(store.exclusive for store in two)
    for number in range(10):
        name = f"leases/k/{number}"
        barrier = threading.Barrier(8)

        def write(i: int, name: str = name, barrier: threading.Barrier = barrier) -> bool:
            with two[i % 2].create(name) as writer:
                writer.write(b"%d" % i * 3000)
                barrier.wait(30)
                return writer.commit()

        with ThreadPoolExecutor(8) as pool:
            first = [i for i, won in enumerate(pool.map(write, range(8))) if won]
        assert len(first) == 1
        for store in two:
            assert store.read(name, limit=10_000) == b"%d" % first[0] * 3000
    assert all(store.exclusive for store in two)


def test_of_processes_on_both_mounts_that_write_one_name_one_is_first(
    mounts: tuple[Path, Path], tmp_path: Path
) -> None:
    start = tmp_path / "start"
    put(LocalStore(mounts[0] / "store"), NAME, b"the directories are there")

    def writer(i: int) -> Callable[[], None]:
        def write() -> None:
            store = LocalStore(mounts[i % 2] / "store")
            wait_until(start.exists)
            for number in range(20):
                if put(store, f"packs/ab/{number}", b"%d" % i):
                    (tmp_path / f"{number}-{i}").touch()

        return write

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(in_a_child, writer(i)) for i in range(6)]
        start.touch()
        assert [each.result() for each in running] == [0] * 6
    for number in range(20):
        winners = [path.name.split("-")[1] for path in tmp_path.glob(f"{number}-*")]
        assert len(winners) == 1
        for mount in mounts:
            path = mount / "store" / "packs" / "ab" / str(number)
            assert path.read_bytes() == winners[0].encode()


def test_a_replacement_is_seen_by_the_other_mount(two: tuple[LocalStore, LocalStore]) -> None:
    """A lease's holder beats so; whoever waits must see it, within a second or so."""
    here, there = two
    for number in range(5):
        data = b"beat %d " % number * (1 + 100 * (number % 2))
        here.replace("leases/k/1", data)
        wait_until(lambda data=data: there.read("leases/k/1", limit=10_000) == data)


def test_a_reader_on_the_other_mount_finds_the_old_object_or_the_new_one(
    two: tuple[LocalStore, LocalStore],
) -> None:
    here, there = two
    here.replace(NAME, b"0" * 3000)
    stop = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not stop.is_set():
            seen.add(there.read(NAME, limit=100_000))
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for i in range(1, 40):
                here.replace(NAME, b"%d" % (i % 10) * (3000 + 997 * i))
        finally:
            stop.set()
        for data in reader.result():
            assert len(set(data)) == 1
            assert len(data) >= 3000


def test_leftovers_of_a_writer_on_the_other_mount_are_found(
    two: tuple[LocalStore, LocalStore],
) -> None:
    here, there = two
    put(here, "packs/ab/whole", DATA)
    writer = here.create(NAME)
    writer.write(DATA)
    (found,) = there.leftovers()
    assert -5 < found.age < 60
    there.remove(found)
    assert list(here.leftovers()) == []
    writer.abort()

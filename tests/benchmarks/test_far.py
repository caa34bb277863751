"""The model of a network: one wire for all who share it, and commands at the end of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import stores
from benchmarks.far import Far
from benchmarks.scale.subject import ROOT
from benchmarks.wire import UP, Wire
from cachepod.stores.base import exists, put
from cachepod.stores.memory import MemoryStore

# Asks so often for so many bytes, all sent at the same moment; prints when the last are there.
_ASKS = """
import sys
from pathlib import Path
from benchmarks.wire import Wire
wire = Wire(Path(sys.argv[1]))
wire.wait_at_gate()
for _ in range(int(sys.argv[2])):
    last = wire.ask("range", 100.0, int(sys.argv[3]))
print(last)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "wire"


def test_bodies_follow_one_another_and_wait_for_their_request(place: Path) -> None:
    wire = Wire.make(place, rate=100.0, latency=0.5)
    assert wire.ask("range", begun=10.0, count=100) == 11.5
    assert wire.ask("range", begun=10.0, count=100) == 12.5  # the first is in the way
    assert wire.ask("range", begun=20.0, count=50) == 21.0  # the wire was free before
    assert wire.ask("size", begun=20.0) == 20.5  # no body: nothing in the way of it
    assert wire.ask("create", begun=10.0, count=100, way=UP) == 11.5  # the other direction
    assert wire.traffic().down == 250
    assert wire.traffic().up == 100
    assert wire.traffic().requests == {"range": 3, "size": 1, "create": 1}


def test_without_a_rate_there_is_latency_alone(place: Path) -> None:
    wire = Wire.make(place, latency=0.25)
    assert [wire.ask("range", 1.0, 10**12) for _ in range(2)] == [1.25, 1.25]


def test_processes_share_the_wire_and_lose_no_byte_of_one_another(place: Path) -> None:
    wire = Wire.make(place, rate=1000.0)
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", _ASKS, str(place), "500", "7"],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        for _ in range(4)
    ]
    while wire.arrived() < 4:  # so that they do ask at the same time
        assert all(process.poll() is None for process in asking)
    wire.let_go()
    ends = [float(process.communicate()[0]) for process in asking]
    assert wire.traffic().requests == {"range": 2000}
    assert wire.traffic().down == 14_000
    assert max(ends) == pytest.approx(100.0 + 14.0)  # whoever was last waited for all


def test_threads_share_the_wire_too(place: Path) -> None:
    wire = Wire.make(place, rate=1000.0)

    def ask() -> None:
        for _ in range(500):
            wire.ask("range", 100.0, 3)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wire.traffic().down == 6000
    assert wire.ask("range", 100.0, 1000) == pytest.approx(107.0)


def test_a_far_store_is_the_store_and_counts_what_was_asked_of_it(place: Path) -> None:
    wire = Wire.make(place)
    store = Far(MemoryStore(), wire, parallel=5)
    assert put(store, "packs/aa", b"12345")
    assert not put(store, "packs/aa", b"other")
    assert not exists(store, "packs/bb")
    into = bytearray(3)
    store.read_range("packs/aa", 1, memoryview(into))
    assert into == b"234"
    store.replace("leases/x/1", b"1234567")
    assert [info.name for info in store.list("leases")] == ["leases/x/1"]
    store.move("leases/x/1", "leases/x/2")
    store.delete("leases/x/2")
    assert store.read("packs/aa", limit=10) == b"12345"
    assert store.parallel_reads == 5
    requests = {"create": 2, "size": 1, "range": 1, "replace": 1, "list": 1, "move": 1}
    assert wire.traffic().requests == {**requests, "delete": 1, "read": 1}
    assert (wire.traffic().down, wire.traffic().up) == (3 + 5, 5 + 5 + 7)


def far(place: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run :mod:`benchmarks.far`."""
    command = [sys.executable, "-m", "benchmarks.far", str(place), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False)


def test_a_real_restore_goes_over_the_wire_byte_for_byte(place: Path, tmp_path: Path) -> None:
    stores.make_sample(tmp_path / "tree", 3_000_000)
    stores.publish_tree(tmp_path / "tree", tmp_path / "store")
    stored = sum(path.stat().st_size for path in (tmp_path / "store/packs").rglob("??*[0-9a-f]"))
    wire = Wire.make(place)
    done = far(place, "cachepod", *stores.restore_words(tmp_path / "store", tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    same = ["diff", "-r", "--exclude", ".cachepod", tmp_path / "tree", tmp_path / "new"]
    assert subprocess.run(same, check=False).returncode == 0
    assert 3_000_000 < wire.traffic().down <= 1.1 * stored


def test_cat_brings_a_file_over_the_wire(place: Path, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000
    (tmp_path / "file").write_bytes(content)
    wire = Wire.make(place)
    assert far(place, "cat", str(tmp_path / "file")).stdout == content
    assert wire.traffic().down == len(content)

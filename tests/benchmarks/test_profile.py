"""Where the time goes, and the floor: what is computed, run, printed and drawn."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import floor, profile, speeds
from benchmarks.floor import Amounts, publish_floor, restore_floor
from benchmarks.measure import Cost, cores
from benchmarks.results import Results
from benchmarks.speeds import Speed
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.stores.local import LocalStore
from tests.support.s3 import BUCKET, Server
from tests.support.snapshots import fingerprint, write_tree

AMOUNTS = Amounts(stored=2_000_000_000, plain=6_000_000_000, compressed=5_000_000_000, files=40_000)
MACHINE = {
    speed.what: speed
    for speed in (
        Speed("read the store", "B", {"1 process": 4e8, "4 processes": 5e8}, 1e-10),
        Speed("read the tree", "B", {"1 process": 3e9}, 1e-10),
        Speed("decode (zstd)", "B", {"2 processes": 3e9}, 1e-9),
        Speed("compress (zstd 3)", "B", {"2 processes": 6e8}, 3e-9),
        Speed("XXH3-128", "B", {"2 processes": 3e10}, 5e-11),
        Speed("BLAKE3", "B", {"2 processes": 1e10}, 2e-10),
        Speed("create a file of 2 kB", "files", {"1 process": 2e4, "2 processes": 4e4}, 2e-5),
        Speed("write, O_DIRECT (refused here)", "B", {}, 0.0),
        Speed("write, buffered", "B", {"1 process": 2e9}, 1e-9),
    )
}


def sample(seconds: float, decode: float) -> dict[str, Any]:
    kinds = {
        "decode": {"seconds": decode, "cpu": decode / 2, "bytes": 6_000_000_000, "calls": 1500},
        "create": {"seconds": 1.0, "cpu": 0.5, "calls": 10_000},
        "idle": {"seconds": 0.5, "cpu": 0.0},
    }
    inside = {"wall": seconds - 0.25, "parallel": 1.0, "threads": 8, "readers": 0, "kinds": kinds}
    return {"seconds": seconds, "cpu": decode / 2 + 0.75, "profile": inside}


def test_a_restore_cannot_be_faster_than_the_slowest_of_what_it_must_do() -> None:
    found = restore_floor(MACHINE, AMOUNTS)
    seconds = {term.name: term.seconds for term in found.terms}
    assert seconds["read"] == pytest.approx(4.0)  # the faster way counts
    assert seconds["write"] == pytest.approx(3.0)  # the way that there is
    assert seconds["create"] == pytest.approx(1.0)
    work = {"decode": 5.0, "hash": 0.1, "read": 0.2, "write": 6.0, "create": 0.8}
    assert found.work == pytest.approx(work)
    assert seconds["cores"] == pytest.approx(12.1 / cores())
    assert found.seconds == max(seconds.values())
    table = found.table()
    first = table.rows[0]
    assert first[0] == found.longest.name
    assert first[2] == "100%"
    assert ["- write", "6.00", "50%", "CPU s; of all cores"] in table.rows


def test_a_publish_compresses_all_and_hashes_plain_and_stored_bytes() -> None:
    found = publish_floor(MACHINE, AMOUNTS)
    assert found.work == pytest.approx(
        {"read": 0.6, "hash": 1.2 + 0.1, "compress": 18.0, "write": 2.0}
    )
    seconds = {term.name: term.seconds for term in found.terms}
    assert seconds == pytest.approx({"cores": 21.9 / cores(), "read": 2.0, "write": 4.0})


def test_the_floor_of_a_publish_is_left_out_where_the_tree_was_not_measured() -> None:
    without = {what: speed for what, speed in MACHINE.items() if what != "read the tree"}
    assert [each.operation for each in floor.floors(without, AMOUNTS)] == ["restore"]
    assert [each.operation for each in floor.floors(MACHINE, AMOUNTS)] == ["restore", "publish"]


def test_processes_share_the_work_and_all_of_it_is_counted() -> None:
    units, wall, cpu = speeds.in_processes(lambda number: sum(range(50_000)) and number + 1, 3)
    assert units == 1 + 2 + 3
    assert wall > 0
    assert cpu > 0


def test_what_a_process_prepares_is_its_own_and_not_measured() -> None:
    made: list[int] = []

    def prepare() -> None:
        time.sleep(0.2)
        made.append(1)

    begun = time.monotonic()
    units, wall, _ = speeds.in_processes(lambda _: len(made), 2, prepare)
    assert units == 2
    assert wall <= time.monotonic() - begun - 0.2
    assert made == []


def test_a_process_that_fails_ends_the_measurement(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="a measurement of the machine failed"):
        speeds.in_processes(lambda number: 1 // number, 2)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_the_medians_of_the_kinds_are_told_with_what_a_core_does_in_a_second() -> None:
    runs = [sample(3.0, 4.0), sample(5.0, 8.0), sample(4.0, 6.0)]
    kinds = profile.by_kind(runs)
    assert kinds["decode"] == {"seconds": 6.0, "cpu": 3.0, "bytes": 6e9, "calls": 1500}
    assert kinds["besides"] == pytest.approx({"seconds": 0.25, "cpu": 0.25, "bytes": 0, "calls": 0})
    table = profile.kinds_table("restore", runs)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["decode"] == ["6.00", "83%", "3.00", "80%", "6.00", "1,500", "2.00 GB/s"]
    assert rows["create"][-1] == "20,000/s"
    assert rows["idle"][1] == rows["idle"][-1] == ""  # waiting has no share of the work
    assert table.notes[0].startswith("8 threads and 0 that read ahead")


def test_the_distance_is_wall_time_by_floor() -> None:
    both = {"restore": [sample(8.0, 4.0), sample(8.2, 4.0)], "publish": [sample(30.0, 4.0)]}
    bounds = floor.floors({**MACHINE, "read the store": MACHINE["read the tree"]}, AMOUNTS)
    rows = {row[0]: row for row in profile.distance_table(both, bounds).rows}
    restore = bounds[0].seconds
    assert rows["cachepod restore"][1:3] == ["8.10", "8.00-8.20"]
    assert rows["cachepod restore"][5] == f"{8.1 / restore:.2f}"
    assert rows["cachepod restore"][6:] == ["2.75", "12.10", "0.23"]
    assert rows["cachepod publish"][1] == "30.00"


def test_a_command_without_a_profile_is_no_sample() -> None:
    with pytest.raises(SystemExit, match="nothing that could be profiled"):
        profile.sample_of(Cost(1.0, 1.0, 0, 0, '{"outcome": "confirmed"}'))


def test_the_machine_is_measured_with_the_chunks_of_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_SECONDS": 0.01, "_FILES": 20, "_WRITTEN": speeds.CHUNK_SIZE}.items():
        monkeypatch.setattr(speeds, name, value)
    words = random.Random(1)
    text = " ".join(str(words.randrange(1000)) for _ in range(200_000)).encode()
    files = {"text": text, "raw": os.urandom(2_000_000), "d/small": b"x" * 100, "d/link@": b"small"}
    tree = write_tree(tmp_path / "tree", files)
    store = tmp_path / "store"
    report = publish(LocalStore(store), "k", fingerprint(), [TreeSource("data", tree)])
    found, amounts = floor.measure_machine(str(store), "k", tmp_path, tree=tree, plain=True)
    assert amounts.plain == report.size
    assert amounts.files == 3
    assert len(text) <= amounts.compressed < report.size  # random bytes are stored as they are
    assert 0 < amounts.stored < report.stored_new
    assert set(found) >= {name for name in MACHINE if "refused" not in name}
    assert all(speed.best > 0 and speed.cpu >= 0 for speed in found.values() if speed.rates)
    restore, published = floor.floors(found, amounts)
    assert restore.seconds > 0
    assert published.seconds > 0
    assert not list(tmp_path.glob("ground-*"))
    text_table = str(floor.speed_table(found))
    assert "decode (zstd)" in text_table
    assert "files" in text_table


def test_the_benchmark_publishes_restores_and_writes_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"_SECONDS": 0.01, "_FILES": 20, "_WRITTEN": speeds.CHUNK_SIZE}.items():
        monkeypatch.setattr(speeds, name, value)
    files = {f"d{n % 3}/f{n}": f"{n} ".encode() * 2000 for n in range(40)}
    tree = write_tree(tmp_path / "tree", files)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ["profile", "--tree", str(tree), "--scratch", str(scratch), "--plain", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [*words, "--json", str(tmp_path / "p.json")])
    profile.main()
    printed = capsys.readouterr().out
    found = Results.read(tmp_path / "p.json")
    assert len(found.samples["restore"]) == len(found.samples["publish"]) == 2
    for run in found.samples["restore"]:
        assert run["profile"]["kinds"]["decode"]["bytes"] == sum(map(len, files.values()))
    for name in ("restore", "publish", "restore-floor", "publish-floor", "distance", "speeds"):
        assert str(found.table(name)) in printed
    assert list(scratch.iterdir()) == []
    assert found.command.startswith("python -m benchmarks.profile --tree DIR --plain")

    pytest.importorskip("matplotlib")
    figure = profile.draw(found)
    labels = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert labels.count("time of all threads, as wall time") == 2
    assert "at least: create" in labels
    assert "at least: the cores" in labels
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["read", "hash", "zstd", "write", "create", "scan", "Python", "waiting"]


def test_a_store_in_s3_is_emptied_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto: Server, credentials: None
) -> None:
    for name, value in {"_SECONDS": 0.01, "_FILES": 5, "_WRITTEN": speeds.CHUNK_SIZE}.items():
        monkeypatch.setattr(speeds, name, value)
    tree = write_tree(tmp_path / "tree", {f"f{n}": f"{n} ".encode() * 9000 for n in range(9)})
    words = ["profile", "--tree", str(tree), "--scratch", str(tmp_path), "--plain", "--rounds", "1"]
    words += ["--store", moto.url("profiles"), "--json", str(tmp_path / "p.json")]
    monkeypatch.setattr(sys, "argv", words)
    profile.main()
    found = Results.read(tmp_path / "p.json")
    (run,) = found.samples["restore"]
    assert run["profile"]["readers"] > 0
    assert found.table("speeds").rows[0][0] == "read the store"
    listed = moto.client().list_objects_v2(Bucket=BUCKET, Prefix="profiles/")
    assert [each["Key"] for each in listed.get("Contents", [])] == []


def test_interrupted_what_was_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "tree", {"a": b"a" * 5000})

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(profile, "measure_machine", interrupted)
    words = ["profile", "--tree", str(tree), "--scratch", str(tmp_path), "--plain", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--json", str(tmp_path / "p.json")])
    with pytest.raises(KeyboardInterrupt):
        profile.main()
    found = Results.read(tmp_path / "p.json")
    assert [table.name for table in found.tables] == ["restore", "publish"]


def test_processes_that_are_measured_side_by_side_write_to_memory_of_their_own() -> None:
    memory = speeds.own_memory(4096)

    def write(number: int) -> int:
        before = bytes(memory[:8])
        memory[:8] = b"occupied"
        return before.count(0)

    assert speeds.in_processes(write, 2)[0] == 16
    assert bytes(memory[:8]) == bytes(8)

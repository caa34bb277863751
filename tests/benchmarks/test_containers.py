"""Containers at once: real processes over one wire, and a fleet of which one installs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import CommandFailed, Cost
from benchmarks.results import Results
from benchmarks.scale import containers, fleet, together
from benchmarks.scale.together import Together
from benchmarks.wire import Wire
from tests.support.mounts import need_root

SMALL = ["--size", "0.002", "--rounds", "1", "--ground", "directory"]


def test_containers_restore_at_once_and_every_byte_goes_over_the_wire(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    made, picture = tmp_path / "containers.json", tmp_path / "containers.svg"
    where = ["--scratch", str(tmp_path), "--json", str(made), "--picture", str(picture)]
    containers.main([*SMALL, "--containers", "1", "3", "--way", "cachepod", "tar", *where])
    found = Results.read(made)
    points = {
        (point["way"], point["containers"], point["rate"] / 1e6): point
        for point in found.samples["together"]
    }
    assert set(points) == {
        (way, count, rate) for way in ("cachepod", "tar") for count in (1, 3) for rate in (200, 400)
    }
    for (way, count, rate), point in points.items():
        (seconds,), (moved,) = point["seconds"], point["moved"]
        assert len(seconds) == count
        assert list(seconds) == sorted(seconds)
        alone = points[way, 1, rate]
        assert moved == pytest.approx(count * alone["moved"][0], rel=0.01)
        # The first of an hour leaves a record of its use, the others find it.
        assert 3 * count <= point["requests"][0] <= count * alone["requests"][0]
        # No process ends before the wire has brought what it was told to wait for.
        assert seconds[-1] >= moved / 1e6 / rate
    table = found.table("containers")
    assert len(table.rows) == 8
    assert "model" in table.notes[0]
    assert [row[1] for row in found.table("growth").rows[:3]] == [
        "seconds of the last",
        "memory of each",
        "requests of each",
    ]
    assert picture.read_text().startswith("<?xml")
    assert "allowed s" in capsys.readouterr().out


def test_a_container_that_fails_ends_the_others_too(tmp_path: Path) -> None:
    wire = Wire.make(tmp_path / "wire")
    (tmp_path / "file").write_bytes(b"x")
    command = together.by_tar(wire.path, tmp_path / "file")  # no archive
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    with pytest.raises(CommandFailed, match="exit code"):
        together.run_together([command(tmp_path / "a"), command(tmp_path / "b")], wire)
    with pytest.raises(CommandFailed, match="no such program"):  # never came to the gate
        together.run_together([["bash", "-c", "echo no such program >&2; exit 1"]], wire)


@pytest.mark.root
def test_containers_write_to_memory_where_that_goes(tmp_path: Path) -> None:
    need_root("mounting")
    made = tmp_path / "containers.json"
    options = ["--containers", "2", "--rate", "400", "--way", "cachepod", "--ground", "memory"]
    containers.main([*SMALL, *options, "--scratch", str(tmp_path), "--json", str(made)])
    assert Results.read(made).subject["ground"] == "a new tmpfs for each run"
    assert f" {tmp_path}" not in Path("/proc/mounts").read_text()


def a_run(ends: Sequence[float], moved: int, busy: float) -> Together:
    costs = [Cost(9.0, 0.5, 50_000_000, 0, "") for _ in ends]
    return Together(ends, costs, moved, 10 * len(ends), busy)


def test_a_row_says_what_the_wire_allows_and_what_was_the_bound() -> None:
    samples: dict[str, Any] = {}
    containers.add(samples, "cachepod", 2, 200e6, a_run([3.0, 4.0], 800_000_000, 0.4))
    containers.add(samples, "cachepod", 2, 200e6, a_run([4.0, 4.2], 800_000_000, 0.4))
    containers.add(samples, "tar", 2, 200e6, a_run([4.0, 6.0], 800_000_000, 0.95))
    containers.add(samples, "tar", 1, 200e6, a_run([6.0], 800_000_000, 0.2))
    table = containers.tables(samples)[0]
    ours, one, two = (dict(zip(table.headings, row, strict=True)) for row in table.rows)
    assert (ours["allowed s"], ours["last s"], ours["ratio"]) == ("4.00", "4.10", "1.02")
    assert (ours["range"], ours["MB/s in all"], ours["first s"]) == ("4.00-4.20", "195", "3.50")
    assert (ours["requests each"], ours["peak MB each"]) == ("10", "50")
    assert [row["bound by"] for row in (ours, one, two)] == ["wire", "neither", "cores"]


def test_what_was_measured_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def run(way: str, count: int, *rest: object) -> Together:
        if runs:
            raise KeyboardInterrupt
        runs.append(count)
        return a_run([1.0] * count, 1000, 0.1)

    monkeypatch.setattr(containers, "run_containers", run)
    made = tmp_path / "containers.json"
    where = ["--scratch", str(tmp_path), "--json", str(made), "--way", "cachepod"]
    with pytest.raises(KeyboardInterrupt):
        containers.main([*SMALL, *where])
    assert [row[1] for row in Results.read(made).table("containers").rows] == ["1"]


def test_where_no_fleet_can_be_started_its_table_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "missing", lambda: "no root here")
    made = tmp_path / "containers.json"
    containers.main([*SMALL, "--way", "fleet", "--scratch", str(tmp_path), "--json", str(made)])
    assert Results.read(made).table("fleet").rows[0][0] == "not here: no root here"


@pytest.mark.root
@pytest.mark.slow
def test_of_a_fleet_one_installs_and_what_a_waiter_asks_for_is_counted(tmp_path: Path) -> None:
    need_root("a container's own mounts")
    if fleet.missing():
        pytest.skip(fleet.missing())
    pytest.importorskip("matplotlib")
    made = tmp_path / "containers.json"
    options = ["--way", "fleet", "--containers", "1", "3", "--install", "2", "--rounds", "1"]
    containers.main([*SMALL, *options, "--scratch", str(tmp_path), "--json", str(made)])
    found = Results.read(made)
    alone, three = (
        dict(zip(found.table("fleet").headings, row, strict=True))
        for row in found.table("fleet").rows
    )
    assert (alone["installs"], three["installs"]) == ("1", "1")
    assert (alone["waited"], three["waited"]) == ("0", "2")
    assert float(three["each waiter"]) > float(three["of them lists"]) > 0
    assert len(containers.draw(found).axes) == 1

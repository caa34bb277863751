"""Cores: commands run on as many as they are told, and what is not there is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.measure import Cost
from benchmarks.results import Results
from benchmarks.scale import cores

SMALL = ["--size", "0.003", "--rounds", "1", "--plain"]
_COUNTS = "import os; print(len(os.sched_getaffinity(0)))"


def test_what_is_started_runs_on_so_many_cores_and_this_process_gets_its_own_back() -> None:
    before = os.sched_getaffinity(0)
    for count in (1, len(before)):
        with cores.on_cores(count):
            assert measure.run([sys.executable, "-c", _COUNTS]).output.strip() == str(count)
            assert os.sched_getaffinity(0) == set(cores.in_order(before)[:count])
    assert os.sched_getaffinity(0) == before


def test_second_threads_of_a_physical_core_come_last(tmp_path: Path) -> None:
    for core in range(4):
        topology = tmp_path / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text("0-1\n" if core < 2 else "2-3\n")
    assert cores.in_order({0, 1, 2, 3}, tmp_path) == [0, 2, 1, 3]
    assert cores.in_order({7, 5}, tmp_path) == [5, 7]  # nothing is known of them


def test_every_point_is_measured_for_real_and_what_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    find_tool = measure.find_tool
    monkeypatch.setattr(
        measure, "find_tool", lambda name: None if name == "mksquashfs" else find_tool(name)
    )
    here = measure.cores()
    made, picture = tmp_path / "cores.json", tmp_path / "cores.svg"
    options = ["--cores", "1", "4096", "--threads", "1", "2", "--scratch", str(tmp_path)]
    cores.main([*SMALL, *options, "--json", str(made), "--picture", str(picture)])
    found = Results.read(made)
    counts = sorted({1, here})
    for side in ("restore", "publish"):
        rows = found.table(side).rows
        ours = [row for row in rows if row[0] == f"cachepod {side}"]
        assert [row[1] for row in ours] == [str(count) for count in counts]
        assert ours[0][4:6] == ["1.00", "1.00"]
        assert [row[2] for row in rows if "squashfs" in row[0]] == ["no mksquashfs here"]
        assert rows[-1][0] == "not measured: 4096 cores"
        assert f"This machine has {here} cores" in found.table(side).notes[-1]
        threads = found.table(f"{side}-threads").rows
        assert [row[1] for row in threads] == ["1", "2", "as it chooses"]
        assert threads[-1][4] == "1.00"
    assert picture.read_text().startswith("<?xml")
    assert "restore-threads:" in capsys.readouterr().out


def test_a_speed_up_is_over_one_core_and_its_efficiency_over_the_cores() -> None:
    samples: dict[str, Any] = {"points": [], "missing": {}, "not here": []}
    for count, seconds in ((4, 3.0), (4, 5.0), (1, 12.0)):
        cost = Cost(seconds, 1.0, 10_000_000, 0, "")
        cores.add(samples, "restore", "cachepod restore", count, 0, cost)
    (table,) = cores.tables(samples)
    one, four = (dict(zip(table.headings, row, strict=True)) for row in table.rows)
    assert (one["cores"], one["speed-up"]) == ("1", "1.00")
    assert (four["median s"], four["range"]) == ("4.00", "3.00-5.00")
    assert (four["speed-up"], four["efficiency"]) == ("3.00", "0.75")


def test_what_was_measured_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def run(way: cores.Way, count: int, *rest: object, cold: bool) -> Cost:
        if runs:
            raise KeyboardInterrupt
        runs.append(count)
        return Cost(1.0, 1.0, 1, 0, "")

    monkeypatch.setattr(cores, "run_once", run)
    made = tmp_path / "cores.json"
    with pytest.raises(KeyboardInterrupt):
        cores.main([*SMALL, "--scratch", str(tmp_path), "--json", str(made)])
    assert [row[:2] for row in Results.read(made).table("restore").rows[:1]] == [
        ["cachepod restore", "1"]
    ]

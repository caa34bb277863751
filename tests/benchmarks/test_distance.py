"""Distance: every point of the grid is run, kept, shown and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.measure import Cost
from benchmarks.results import Results
from benchmarks.scale import distance
from benchmarks.scale.distance import Run

SMALL = ["--size", "0.004", "--rounds", "1", "--plain", "--latency", "0", "3"]


def test_all_ways_are_measured_for_real_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    made, picture = tmp_path / "distance.json", tmp_path / "distance.svg"
    where = ["--scratch", str(tmp_path), "--json", str(made), "--picture", str(picture)]
    distance.main([*SMALL, "--rate", "0", "400", *where])
    found = Results.read(made)
    for way in ("directory", "s3", "publish"):
        table = found.table(way)
        assert [row[:2] for row in table.rows] == [
            ["0", "no limit"],
            ["3", "no limit"],
            ["0", "400"],
            ["3", "400"],
        ]
        for point in found.samples[way]:
            assert 4_000_000 < point["moved"][0] < 5_000_000
            assert point["requests"][0] >= 3  # the format, the manifest, a pack
    assert picture.read_text().startswith("<?xml")
    assert f"directory:\n{found.table('directory')}" in capsys.readouterr().out
    figure = distance.draw(found)
    lines = figure.axes[0].lines
    # For each rate one curve, and for the one that limits a dashed one of what it allows.
    assert [line.get_label() for line in lines[:2]] == ["400 MB/s", lines[1].get_label()]
    assert list(lines[0].get_xdata()) == [0, 3]
    assert len(lines) == 3


def test_a_run_that_is_cut_short_leaves_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, runs = distance.Distance.run, []

    def run(self: distance.Distance, way: str, latency: float, rate: float) -> Run:
        if len(runs) == 1:
            raise KeyboardInterrupt
        runs.append((latency, rate))
        return real(self, way, latency, rate)

    monkeypatch.setattr(distance.Distance, "run", run)
    made = tmp_path / "distance.json"
    where = ["--scratch", str(tmp_path), "--json", str(made)]
    with pytest.raises(KeyboardInterrupt):
        distance.main([*SMALL, "--rate", "0", "--way", "directory", *where])
    assert [row[0] for row in Results.read(made).table("directory").rows] == ["0"]
    assert "directory:" in capsys.readouterr().out


def a_run(seconds: float, moved: int) -> Run:
    return Run(Cost(seconds, 1.0, 2_000_000, 0, "", 3_000_000), moved, 12, 4, 0.5)


def test_a_row_is_compared_with_what_its_rate_allows() -> None:
    samples: dict[str, object] = {}
    distance.add(samples, "publish", 0.05, 100e6, a_run(3.0, 200_000_000))
    distance.add(samples, "publish", 0.05, 100e6, a_run(5.0, 200_000_000))
    distance.add(samples, "publish", 0.05, 0.0, a_run(1.5, 200_000_000))
    distance.add(samples, "publish", 0.0, 0.0, a_run(1.0, 200_000_000))
    (table,) = distance.tables(samples)
    rows = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    assert [row["ratio"] for row in rows] == ["1.00", "1.50", "2.00"]
    assert rows[2]["range"] == measure.spread([3.0, 5.0])
    assert rows[2]["parts at once"] == "4"
    assert rows[2]["cores busy %"] == "50"

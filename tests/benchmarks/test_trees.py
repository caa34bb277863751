"""Growth with the tree: small trees, real commands, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.results import Results
from benchmarks.scale import making, trees
from tests.support.curves import curve_runner

FILES = (200, 500)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the benchmark with options and reads the result that it wrote."""
    return curve_runner(trees, tmp_path, monkeypatch, "--plain")


def test_every_step_of_every_point_is_measured_shown_and_drawn(
    measured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.svg"
    found = measured(
        *("--files", *map(str, FILES), "--bytes", "0.002", "--mixed", "0.003"),
        *("--rounds", "1", "--picture", str(picture)),
    )
    said = capsys.readouterr().out
    for kind, points in (("files", 2), ("bytes", 1), ("mixed", 1)):
        for name in (kind, *(f"{kind}-{more}" for more in ("cpu", "memory", "store"))):
            table = found.table(name)
            assert len(table.rows) == points
            assert all(len(row) == len(table.headings) and all(row) for row in table.rows)
            assert str(table) in said
        assert [row[0] for row in found.table(kind).rows] == [
            f"{point['files']:,}" for point in found.samples[kind]
        ]
        grown = found.table(f"{kind}-growth").rows
        assert {row[0] for row in grown} >= {*trees.STEPS.values(), "manifest MB"}
        (stored,) = (row[1] for row in grown if row[0] == "stored MB")
        assert stored.startswith("n^") == (points > 1)
        for point in found.samples[kind]:
            assert all(set(done) == set(trees.STEPS) for done in point["rounds"])
    assert picture.read_text(encoding="utf-8").startswith("<?xml")
    titles = [axes.get_title(loc="left") for axes in trees.draw(found).axes]
    assert titles[:2] == ["small files: time", "small files: memory"]


def test_the_steps_are_what_a_hook_meets(measured: Any) -> None:
    found = measured("--files", "2000", "--bytes", "--mixed", "--rounds", "1")
    (point,) = found.samples["files"]
    (done,) = point["rounds"]
    assert point["files"] == 2000
    assert done["publish"]["read"] == point["size"]
    assert done["restore"]["written"] == point["size"]
    assert set(done["confirm"]["phases"]) == {"confirm"}
    assert done["confirm"]["written"] == 0
    assert done["unchanged"]["read"] == 0
    # A hundredth is replaced, and only chunks with some of it are read and stored again.
    assert 0 < done["changed"]["read"] <= point["size"]
    assert done["unchanged"]["written"] < done["changed"]["written"] < done["publish"]["written"]
    assert point["manifest"] < point["stored"]


def test_what_was_measured_before_it_is_interrupted_is_kept(
    measured: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, turns = trees._measure_round, []

    def twice(*given: Any) -> Any:
        turns.append(given)
        if len(turns) > 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(trees, "_measure_round", twice)
    with pytest.raises(KeyboardInterrupt):
        measured("--files", *map(str, FILES), "--bytes", "--mixed", "--rounds", "2")
    found = Results.read(tmp_path / "trees.json")
    assert [len(point["rounds"]) for point in found.samples["files"]] == [2, 1]
    assert len(found.table("files").rows) == 2
    assert str(found.table("files-growth")) in capsys.readouterr().out


def test_a_point_has_more_rounds_only_within_the_patience(measured: Any) -> None:
    found = measured("--files", "50", "--bytes", "--mixed", "--rounds", "9", "--patience", "0")
    assert [len(point["rounds"]) for point in found.samples["files"]] == [1]


@pytest.mark.parametrize(
    ("kind", "number", "files"),
    [("files", 250, 250), ("bytes", 25_000_000, 3), ("mixed", 10**7, 71)],
)
def test_a_made_tree_is_as_large_as_asked_for_and_has_nothing_twice(
    kind: str, number: int, files: int, tmp_path: Path
) -> None:
    making.run("make", kind, number, tmp_path)
    there, size = measure.tree_size(tmp_path)
    assert there == files
    if kind != "files":
        assert size == pytest.approx(number, rel=0.02)
    blocks = set()
    for path in tmp_path.rglob("*.*"):
        data = path.read_bytes()
        parts = [data[at : at + 64_000 + 40] for at in range(0, len(data), 64_040)]
        assert not blocks.intersection(parts)
        blocks.update(parts)


@pytest.mark.parametrize(("kind", "number"), [("files", 10_000), ("bytes", 30_000_000)])
def test_a_change_replaces_some_files_and_leaves_the_rest(
    kind: str, number: int, tmp_path: Path
) -> None:
    making.run("make", kind, number, tmp_path)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.rglob("*.*")}
    making.run("change", kind, number, tmp_path)
    after = {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.rglob("*.*")}
    assert before.keys() == after.keys()
    changed = [path for path in before if before[path][1] != after[path][1]]
    assert len(changed) == (100 if kind == "files" else 1)

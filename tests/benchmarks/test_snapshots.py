"""Growth with the snapshots of a store: few of them, real commands, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results import Results
from benchmarks.scale import evolving, snapshots
from benchmarks.scale.evolving import Evolving, configuration
from cachepod.snapshot.catalog import load_manifest, summaries
from cachepod.stores.local import LocalStore
from tests.support.curves import curve_runner

OPTIONS = ("--files", "4", "--rounds", "1", "--needs", "20", "--new", "5")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the benchmark with options and reads the result that it wrote."""
    return curve_runner(snapshots, tmp_path, monkeypatch, *OPTIONS)


def test_every_step_at_every_number_is_measured_shown_and_drawn(
    measured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.svg"
    found = measured("--snapshots", "1", "4", "--picture", str(picture))
    said = capsys.readouterr().out
    for curve in ("real", "made-up"):
        for name in (curve, *(f"{curve}-{more}" for more in ("cpu", "memory", "store"))):
            table = found.table(name)
            assert [row[0] for row in table.rows] == ["1", "4"]
            assert all(len(row) == len(table.headings) and all(row) for row in table.rows)
            assert str(table) in said
        assert str(found.table(f"{curve}-growth")) in said
    for point in found.samples["real"]:
        (done,) = point["rounds"]
        assert set(done) == set(snapshots.STEPS)
    titles = [axes.get_title(loc="left") for axes in snapshots.draw(found).axes]
    assert titles == [
        *("a start: time", "a start: memory"),
        *("a look at the store: time", "a look at the store: memory"),
        *("what they take", "packs"),
        *("made-up snapshots of a real size: time", "made-up snapshots of a real size: memory"),
    ]
    assert picture.read_text(encoding="utf-8").startswith("<?xml")


def test_a_point_is_of_as_many_snapshots_as_it_says(
    measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def counting(self: Any, number: int, turn: int) -> Any:
        seen.append((number, len(list(summaries(LocalStore(self._store))))))
        return {"ls": {"seconds": 1.0, "cpu": 1.0, "peak": 1, "phases": {}}}

    monkeypatch.setattr(snapshots.Evolution, "_round", counting)
    found = measured("--snapshots", "1", "2", "5", "--only", "real", "--rounds", "3")
    assert seen == [(number, number) for number in (1, 2, 5) for _ in range(3)]
    published = [
        sum("publish" in done for done in point["rounds"]) for point in found.samples["real"]
    ]
    assert published == [1, 3, 3]  # no more than fit before the next point
    stored = [point["stored"] for point in found.samples["real"]]
    plain = [point["plain"] for point in found.samples["real"]]
    assert stored == sorted(stored)
    assert plain[2] == pytest.approx(5 * plain[0], rel=0.01)
    assert [point["packs"] for point in found.samples["real"]] != [1, 1, 1]


def test_the_steps_bring_what_they_are_called_after(measured: Any) -> None:
    found = measured("--snapshots", "3", "--only", "real")
    (point,) = found.samples["real"]
    (done,) = point["rounds"]
    assert done["hit"]["written"] == done["first"]["written"] > 4 * 1_100_000
    assert done["partial"]["written"] == done["hit"]["written"]
    assert done["miss"]["written"] == 0
    # One of four files is replaced by a version, and only that is read again.
    assert 1_100_000 <= done["publish"]["read"] < 2 * 1_100_000


def test_what_was_measured_before_it_is_interrupted_is_kept(
    measured: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = snapshots.Evolution._round

    def interrupted(self: Any, number: int, turn: int) -> Any:
        if number > 1:
            raise KeyboardInterrupt
        return real(self, number, turn)

    monkeypatch.setattr(snapshots.Evolution, "_round", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured("--snapshots", "1", "2")
    found = Results.read(tmp_path / "snapshots.json")
    assert [point["snapshots"] for point in found.samples["real"]] == [1]
    assert len(found.table("real").rows) == 1


def test_an_evolving_environment_changes_by_one_file_of_a_hundred(tmp_path: Path) -> None:
    prefix, root = tmp_path / "venv", tmp_path / "store"
    base = evolving.base_of(configuration(tmp_path / "a.toml", prefix, root, 0))
    made = Evolving(str(prefix), str(root), 3, base)
    made.make(0)
    made.fill(0, 3)
    store = LocalStore(root)
    keys = [made.fingerprint(version).key for version in range(3)]
    chunks = []
    for version, key in enumerate(keys):
        configured = evolving.base_of(configuration(tmp_path / "b.toml", prefix, root, version))
        assert configured["key"] == key  # what a command with that configuration asks for
        manifest = load_manifest(store, key)
        chunks.append({manifest.chunks.id(row) for row in range(len(manifest.chunks))})
    assert len(chunks[0]) > 3
    assert [len(chunks[0] - each) for each in chunks] == [0, 1, 2]
    assert json.dumps(base["inputs"])

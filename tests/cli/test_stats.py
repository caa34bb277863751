"""``cachepod stats``: a table, a document, and a file for Prometheus."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cachepod.cli.metrics import exposition, write_atomically
from cachepod.snapshot.stats import stats
from cachepod.snapshot.uses import Event, Use, record
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.project import Project
from tests.support.snapshots import fingerprint, publish_files


@pytest.fixture
def used(project: Project) -> Project:
    """A store with a snapshot that was restored once."""
    store = LocalStore(project.store)
    key = publish_files(store, fingerprint(), {"a": b"hello" * 1000})
    record(store, key, Use(Event.HIT, 4.0, 2_600_000_000, saved=181.0))
    record(store, key, Use(Event.MISS))
    return project


def test_a_table_says_what_the_store_is_good_for(used: Project) -> None:
    result = used.run("stats")
    assert result.code == 0
    rows = dict(line.split(maxsplit=1) for line in result.out.splitlines()[1:])
    assert str(used.store) in result.out.splitlines()[0]
    assert rows["snapshots"] == "1"
    assert rows["hits"] == "1 (50% of those who asked)"
    assert rows["misses"] == "1"
    assert "bytes restored" in result.out
    assert "2.6 GB" in result.out
    assert "time saved" in result.out
    assert "3 min 01 s" in result.out
    assert "1 snapshot in " in result.err


def test_the_keys_that_were_asked_for_are_shown_on_request(used: Project) -> None:
    shown = used.run("stats", "-v").out
    assert fingerprint().key in shown
    assert "just now" in shown


def test_the_document_has_every_figure_as_a_number(used: Project) -> None:
    document = used.run("stats", "--json").json
    (store,) = document["stores"]
    assert store["store"] == str(used.store)
    assert (store["snapshots"], store["hits"], store["misses"]) == (1, 1, 1)
    assert store["restored_bytes"] == 2_600_000_000
    assert store["saved_seconds"] == 181.0
    assert store["size"] == 5000
    assert store["dedup"] > 0
    assert store["keys"][fingerprint().key]["hits"] == 1


def test_a_store_that_is_not_there_is_an_empty_one(project: Project) -> None:
    document = project.run("stats", "--json").json
    assert document["exit_code"] == 0
    assert document["stores"][0]["snapshots"] == 0
    assert document["stores"][0]["last"] is None


def test_a_store_that_fails_does_not_keep_back_the_others(used: Project) -> None:
    (used.root / "broken").write_text("a file")
    words = ("--store", "store", "--store", "broken", "--prometheus", "it.prom")
    result = used.run("stats", *words)
    assert result.code == 5
    assert "1 (50% of those who asked)" in result.out
    assert "broken" in result.err
    samples = read((used.root / "it.prom").read_text())
    assert samples["cachepod_store_up"] == {
        str(used.store): 1.0,
        str(used.root / "broken"): 0.0,
    }
    assert samples["cachepod_hits"] == {str(used.store): 1.0}


def read(text: str) -> dict[str, dict[str, float]]:
    """What Prometheus makes of *text*: metric to store to value."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.labels.keys() == {"store"}
            stores = found.setdefault(sample.name, {})
            assert sample.labels["store"] not in stores
            stores[sample.labels["store"]] = sample.value
    return found


def test_prometheus_reads_the_file(used: Project) -> None:
    result = used.run("stats", "--prometheus", "cachepod.prom")
    assert result.code == 0
    path = used.root / "cachepod.prom"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    samples = read(path.read_text())
    store = str(used.store)
    assert samples["cachepod_store_up"] == {store: 1.0}
    assert samples["cachepod_hits"] == {store: 1.0}
    assert samples["cachepod_saved_seconds"] == {store: 181.0}
    assert samples["cachepod_restored_bytes"] == {store: 2_600_000_000.0}
    assert samples["cachepod_last_use_timestamp_seconds"][store] > 1e9
    # Written anew, it is replaced, and nothing else is left.
    assert used.run("stats", "--prometheus", "cachepod.prom").code == 0
    assert not list(used.root.glob("*.tmp"))


def test_names_and_labels_are_those_that_prometheus_allows() -> None:
    class Named(MemoryStore):
        url = 'odd "store"\\with\nlines and caf\xe9 and \udcff'

    samples = read(exposition([stats(Named())]))
    for name, stores in samples.items():
        assert name.startswith("cachepod_")
        assert stores.keys() == {'odd "store"\\with\nlines and caf\xe9 and \\udcff'}
    assert read(exposition([], ["s3://bucket"])) == {"cachepod_store_up": {"s3://bucket": 0.0}}


@pytest.mark.parametrize(
    ("place", "said"),
    [(".", "is a directory"), ("no/where.prom", "the directory no does not exist")],
)
def test_a_file_that_cannot_be_is_refused_before_the_work(
    used: Project, place: str, said: str
) -> None:
    result = used.run("stats", "--prometheus", place)
    assert result.code == 2
    assert said in result.err
    assert result.out == ""


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.prom"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cachepod.cli.metrics.os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["it.prom"]
    assert path.read_text() == "old"

"""``cachepod prune`` as a user types it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cachepod.environment.config import Settings
from cachepod.snapshot.prune import GRACE
from cachepod.stores.base import PruneStore
from tests.support.cli import COMMAND, Result, cachepod, on_terminal, start, wait_until
from tests.support.mounts import bind, need_root
from tests.support.snapshots import fingerprint, publish_files

KEYS = [fingerprint(requirement__numpy=f"numpy=={number}").key for number in range(3)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store of three snapshots of one family, of 100 kB each, the oldest first."""
    from cachepod.stores.local import LocalStore

    fill(LocalStore(tmp_path / "store"))
    return tmp_path


def fill(store: PruneStore) -> None:
    for number in range(3):
        wanted = fingerprint(requirement__numpy=f"numpy=={number}")
        publish_files(store, wanted, {"data": os.urandom(100_000)})


def prune(place: Path, *words: str, grace: str = "0") -> Result:
    return cachepod("prune", "--store", "store", "--grace", grace, *words, cwd=place)


def keys(place: Path, store: str = "store") -> list[str]:
    listed = cachepod("ls", "--store", store, "--json", cwd=place).json["snapshots"]
    return sorted(each["key"] for each in listed)


def packs(place: Path) -> int:
    return len(list((place / "store" / "packs").glob("*/*")))


def test_a_dry_run_shows_what_goes_and_why_and_changes_nothing(place: Path) -> None:
    shown = prune(place, "--keep-last", "2", "--dry-run")
    assert shown.code == 0
    header, *rows = shown.out.split("\n\n")[0].splitlines()
    assert header.split() == ["KEY", "LAST", "USED", "NEEDS", "ALONE", "FATE", "WHY"]
    fates = {row.split()[0]: row for row in rows}
    assert "goes" in fates[KEYS[0]]
    assert "not among the newest 2 of its family" in fates[KEYS[0]]
    assert "stays" in fates[KEYS[2]]
    assert "to delete: 1 pack, 100 kB" in shown.out
    assert shown.err.startswith("cachepod: would drop 1 of 3 snapshots and free 10")
    assert len(keys(place)) == packs(place) == 3


def test_a_prune_does_what_the_dry_run_showed(place: Path) -> None:
    [planned] = prune(place, "--keep-last", "2", "--dry-run", "--json").json["stores"]
    done = prune(place, "--keep-last", "2", "--json")
    assert done.code == 0
    [carried_out] = done.json["stores"]
    result = carried_out.pop("result")
    assert planned.pop("result") is None
    assert carried_out == planned
    assert result["freed"] == planned["freed"]
    assert result["dropped"] == [each["key"] for each in planned["snapshots"] if not each["kept"]]
    assert keys(place) == sorted(KEYS[1:])
    assert packs(place) == 2


def test_a_prune_says_what_it_did(place: Path) -> None:
    done = prune(place, "--keep-last", "2", grace="0.1s")
    assert KEYS[0] in done.out
    assert KEYS[1] not in done.out
    assert done.err.startswith("cachepod: dropped 1 of 3 snapshots, deleted 1 pack and freed 10")
    assert "wait 0.10 s" in done.err
    assert "nothing to do" in prune(place, "--keep-last", "2").err


def test_rules_that_leave_nothing_ask_for_force(place: Path) -> None:
    for words in (["--max-size", "1kB"], ["--max-age", "0"], ["--keep-last", "0"]):
        refused = prune(place, *words)
        assert refused.code == 2
        assert "would drop all 3 snapshots" in refused.err
        assert "--force" in refused.err
        assert KEYS[0] in refused.out
        assert prune(place, *words, "--dry-run").code == 2
        assert prune(place, *words, "--json").json["exit_code"] == 2
    assert len(keys(place)) == packs(place) == 3
    assert prune(place, "--max-size", "1kB", "--force").code == 0
    assert not keys(place)
    assert not packs(place)


def test_the_least_recently_used_goes_first(place: Path) -> None:
    old = time.time() - 40 * 86_400
    manifest = next((place / "store" / "manifests").glob(f"*/{KEYS[1]}"))
    os.utime(manifest, (old, old))
    assert prune(place, "--max-size", "250kB").code == 0
    assert keys(place) == sorted([KEYS[0], KEYS[2]])
    os.utime(next((place / "store" / "manifests").glob(f"*/{KEYS[2]}")), (old, old))
    assert prune(place, "--max-age", "30d").code == 0
    assert keys(place) == [KEYS[0]]


def test_what_is_named_stays(place: Path) -> None:
    assert prune(place, "--max-size", "0", "--keep", KEYS[0], "--keep", KEYS[1]).code == 0
    assert keys(place) == sorted(KEYS[:2])


def test_a_key_to_be_kept_that_is_not_there_is_refused(place: Path) -> None:
    refused = prune(place, "--keep-last", "1", "--keep", KEYS[0][:-1])
    assert refused.code == 2
    assert KEYS[0][:-1] in refused.err
    assert len(keys(place)) == 3


def test_a_configured_key_that_is_not_there_yet_is_only_told(place: Path) -> None:
    (place / "cachepod.toml").write_text('keep = ["models-2"]\nkeep_last = 2\ngrace = "0s"\n')
    done = cachepod("prune", "--store", "store", cwd=place)
    assert done.code == 0
    assert "models-2" in done.err
    assert len(keys(place)) == 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--max-age", "30x"], "max_age must be a span of time, not '30x'"),
        (["--max-age", "-1"], "max_age"),
        (["--max-age", "nan"], "max_age"),
        (["--max-age", "99999999999d"], "max_age"),
        (["--max-size", "lots"], "max_size must be an amount of bytes, not 'lots'"),
        (["--max-size", "1e99"], "max_size"),
        (["--grace", ""], "grace"),
        (["--keep-last", "two"], "--keep-last"),
        (["--keep-last", "-1"], "--keep-last"),
        (["--keep", "../x"], "cannot be a key"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    place: Path, words: list[str], what: str
) -> None:
    refused = cachepod("prune", "--store", "store", *words, cwd=place)
    assert refused.code == 2
    assert what in refused.err
    assert "Traceback" not in refused.err
    assert len(keys(place)) == 3


@pytest.mark.parametrize("damage", ["cut", "newer"])
def test_a_manifest_that_cannot_be_read_stops_it(place: Path, damage: str) -> None:
    manifest = next((place / "store" / "manifests").glob(f"*/{KEYS[1]}"))
    data = bytearray(manifest.read_bytes())
    if damage == "cut":
        del data[-1]
    else:
        data[8] = 9
    manifest.write_bytes(data)
    stopped = prune(place, "--keep-last", "1")
    assert stopped.code == (6 if damage == "cut" else 1)
    assert "nothing is deleted" in stopped.err
    assert stopped.err.count("\n") == 1
    assert packs(place) == 3


def test_a_store_that_is_not_there_has_nothing_to_prune(tmp_path: Path) -> None:
    done = cachepod("prune", "--store", "nowhere", "--keep-last", "1", cwd=tmp_path)
    assert done.code == 0
    assert "nothing to do" in done.err
    assert not (tmp_path / "nowhere").exists()


def test_each_store_is_pruned_on_its_own(place: Path) -> None:
    from cachepod.stores.local import LocalStore

    publish_files(
        LocalStore(place / "other"),
        fingerprint(requirement__numpy="numpy==0"),
        {"data": os.urandom(100_000)},
    )
    done = prune(place, "--store", "other", "--keep-last", "1")
    assert done.code == 0
    assert keys(place) == [KEYS[2]]
    assert keys(place, "other") == [KEYS[0]]
    (place / "file").touch()
    partly = prune(place, "--store", "file", "--keep-last", "1")
    assert partly.code == 5
    assert "nothing to do in" in partly.err


def test_an_interrupted_wait_leaves_a_good_store(place: Path) -> None:
    with start("prune", "--store", "store", "--keep-last", "1", cwd=place) as process:
        wait_until(lambda: list((place / "store" / "condemned").glob("*")))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert packs(place) == 3
    assert not list((place / "store" / "condemned").glob("*"))
    assert prune(place).code == 0
    assert packs(place) == 1
    assert cachepod("verify", "--store", "store", cwd=place).code == 0


def test_a_person_sees_how_long_is_waited_and_what_for(place: Path) -> None:
    words = [*COMMAND, "prune", "--store", "store", "--keep-last", "1", "--grace", "2"]
    code, drawn = on_terminal(words, cwd=place)
    assert code == 0
    assert "waiting 2 s for those at work" in drawn
    assert "dropped 2 of 3 snapshots" in drawn


@pytest.mark.root
def test_a_store_that_may_only_be_read_is_left_as_it_is(place: Path) -> None:
    need_root()
    store = place / "store"
    with bind(store, store):
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
        assert prune(place, "--keep-last", "1", "--dry-run").code == 0
        refused = prune(place, "--keep-last", "1")
        assert refused.code == 5
        assert "mount it writable" in refused.err
    assert len(keys(place)) == packs(place) == 3


def test_the_default_grace_period_is_that_of_the_design() -> None:
    assert Settings.grace == GRACE

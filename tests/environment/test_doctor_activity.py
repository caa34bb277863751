"""What doctor tells of others that use a store, and of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachepod.environment.config import load_settings
from cachepod.environment.diagnosis import Check, Severity
from cachepod.environment.doctor import examine
from cachepod.environment.doctor_activity import activity
from cachepod.environment.doctor_speed import sample_directory, told
from cachepod.environment.doctor_store import examine_store
from cachepod.environment.filesystem import try_probe
from cachepod.errors import human_bytes
from cachepod.snapshot.claim import Claim, Holder, State
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.signing import Keyring
from cachepod.stores.base import put
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.keys import pair_of_files, secret_file
from tests.support.snapshots import fingerprint, publish_files, write_tree
from tests.support.stores import METHODS, FaultyStore


def seen(store: MemoryStore) -> dict[str, Check]:
    return {check.name: check for check in activity("store", store)}


def claim(state: State = State.BUILDING) -> bytes:
    return Claim(Holder("worker-7", 1, "pod-x"), "t", elapsed=93.4, state=state).encode()


def test_a_store_where_nothing_goes_on_has_nothing_to_tell() -> None:
    assert seen(MemoryStore()) == {}


def test_who_builds_what_is_told() -> None:
    store = MemoryStore()
    put(store, "leases/one/1", claim(State.FAILED))
    put(store, "leases/one/10", claim())
    put(store, "leases/one/9", claim(State.FREE))
    put(store, "leases/two/1", claim(State.FREE))
    put(store, "leases/three/1", b"nonsense")
    put(store, "leases/three/x", b"")
    check = seen(store)["builders"]
    assert check.result == "one by worker-7 (pod pod-x) for 93 s"
    assert check.severity == Severity.NOTE


def test_many_builders_are_counted() -> None:
    store = MemoryStore()
    for number in range(5):
        put(store, f"leases/key-{number}/1", claim())
    assert seen(store)["builders"].result.endswith(", and 2 more")


def test_pins_prunes_damage_and_what_is_unfinished_are_told(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    put(store, "pins/0123456789abcdef", b"{}")
    put(store, "condemned/0123456789abcdef", b"{}")
    put(store, f"damaged/{'ab' * 16}", b"{}")
    with store.create("packs/ab/cd") as writer:
        writer.write(b"x" * 1000)
        found = {check.name: check for check in activity("store", store)}
    assert found["pins"].result == "1"
    assert "interrupted" in found["prune"].result
    assert found["damage"].severity == Severity.WARNING
    assert found["unfinished"].result == "1 object, 1.0 kB"


@pytest.mark.parametrize("letter", "EUMC")
@pytest.mark.parametrize("method", METHODS)
def test_a_store_that_fails_is_told_and_no_error(method: str, letter: str) -> None:
    store = MemoryStore()
    put(store, "leases/one/1", claim())
    put(store, "pins/0123456789abcdef", b"{}")
    for check in activity("store", FaultyStore(store, {method: letter + "*"})):
        assert check.result


# Tiers


def test_a_store_that_is_given_twice_is_told_and_looked_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    settings = load_settings(
        {"packages": ["six"], "store": [str(tmp_path / "store"), str(tmp_path / "link")]},
        {"HOME": str(tmp_path)},
        tmp_path,
    )
    found = list(examine(settings, {"HOME": str(tmp_path)}))
    (check,) = [check for check in found if check.name == "places"]
    assert check.severity == Severity.PROBLEM
    assert "are the same store" in check.result
    assert str(tmp_path / "link") not in {check.about for check in found}


# Signatures


def looked_at(folder: Path, **flags: str) -> dict[str, Check]:
    variables = {f"CACHEPOD_{name.upper()}": value for name, value in flags.items()}
    settings = load_settings(
        {"packages": ["six"], "store": [str(folder / "store")]},
        {"HOME": str(folder), **variables},
        folder,
    )
    found = examine(settings, {"HOME": str(folder)})
    return {check.name: check for check in found if check.about != str(folder / ".venv")}


def test_without_keys_nothing_is_said_of_them(tmp_path: Path) -> None:
    assert not {"keys", "signatures"} & looked_at(tmp_path).keys()


def test_keys_are_named_by_their_id_and_unsigned_snapshots_counted(tmp_path: Path) -> None:
    private, public = pair_of_files(tmp_path / "key")
    ring = Keyring.load(private)
    store = LocalStore(tmp_path / "store")
    publish_files(store, fingerprint(), {"a": b"1"})
    signed = fingerprint(requirement__x="x")
    tree = TreeSource("env", write_tree(tmp_path / "tree", {"a": b"1"}))
    publish(store, signed.key, signed, [tree], sign=ring.sign)
    assert ring.own is not None
    found = looked_at(tmp_path, signing_key=str(private))
    assert found["keys"].severity == Severity.OK
    assert found["keys"].result == f"trusted: {ring.own.id.hex()} (Ed25519)"
    assert found["signatures"].result == "1 of 2 snapshots are not signed"
    assert found["signatures"].severity == Severity.NOTE
    reader = looked_at(tmp_path, trusted_keys=str(public))
    assert "none are published" in reader["keys"].meaning


def test_a_key_that_cannot_be_used_is_a_problem(tmp_path: Path) -> None:
    found = looked_at(tmp_path, signing_key=str(tmp_path / "5e5e"))
    assert found["keys"].severity == Severity.PROBLEM
    assert "5e5e" not in found["keys"].result


def test_a_secret_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "secret")
    path.chmod(0o644)
    found = looked_at(tmp_path, signing_key=str(path))
    (check,) = [check for check in found.values() if check.severity == Severity.WARNING]
    assert str(path) in check.result
    assert "chmod 600" in check.meaning


# What a volume really does


def test_a_sample_of_speed_leaves_nothing_and_says_what_it_is(tmp_path: Path) -> None:
    size, writing, reading = sample_directory(tmp_path)
    assert size > 0
    assert list(tmp_path.iterdir()) == []
    check = told("store", size, writing, reading, "one file")
    assert human_bytes(size) in check.result
    assert "a sample" in check.meaning


def test_the_sample_of_a_slow_volume_is_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(range(100_000))
    monkeypatch.setattr(
        "cachepod.environment.doctor_speed.time.monotonic", lambda: float(next(moments))
    )
    size, _, _ = sample_directory(tmp_path)
    assert 0 < size <= 4 * 1024 * 1024


def test_a_lock_that_two_hold_at_once_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachepod.environment.filesystem.fcntl.flock", lambda fd, how: None)
    assert try_probe("flock", tmp_path) == "two held it at once"


def test_names_that_are_given_twice_at_one_moment_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    real = os.link

    def lying(source: Path, target: Path) -> None:
        if target.name == "first":
            target.write_bytes(source.read_bytes())
        else:
            real(source, target)

    monkeypatch.setattr("cachepod.environment.filesystem.os.link", lying)
    assert "told that they were first" in try_probe("link", tmp_path)


def test_reads_at_the_wrong_place_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    real = os.pread
    monkeypatch.setattr(
        "cachepod.environment.filesystem.os.pread", lambda fd, size, at: real(fd, size, 0)
    )
    assert try_probe("ranges", tmp_path)
    checks = {check.name: check for check in examine_store(str(tmp_path))}
    assert checks["ranges"].severity == Severity.PROBLEM

"""A restore that misses: where the lease lies, and what faults of a store may cost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cachepod.environment import beater, building, restoration
from cachepod.environment.config import Settings
from cachepod.environment.hook import publish_environment
from cachepod.environment.identity import Identity
from cachepod.environment.private import private_file
from cachepod.environment.restoration import Restoration, restore_environment
from cachepod.errors import CachepodError, StoreUnreachable
from cachepod.snapshot import lease as leases
from cachepod.snapshot import turn
from cachepod.snapshot.turn import await_turn
from cachepod.stores.base import PruneStore
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.support.cli import wait_until
from tests.support.installs import Notes
from tests.support.keys import pair_of_files
from tests.support.stores import Around, CountingStore, FaultyStore
from tests.support.wheels import configured

KEY = "my-data"


@pytest.fixture(autouse=True)
def a_machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(turn, "PAUSE", (0.005, 0.02))


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Settings, Identity]:
    """A snapshot of one tree, which is not there."""
    return configured(tmp_path, None, trees={"data": str(tmp_path / "data")}, key=KEY, wait=0)


class Named(Around):
    """A store with a name of its own."""

    def __init__(self, name: str, store: PruneStore | None = None) -> None:
        super().__init__(store or MemoryStore())
        self._name = name

    @property
    def url(self) -> str:
        return self._name


def leased(store: PruneStore, name: str = KEY) -> list[dict[str, Any]]:
    names = sorted(info.name for info in store.list(f"leases/{name}"))
    return [json.loads(store.read(each, limit=4096)) for each in names]


@contextmanager
def another_builds(store: PruneStore) -> Iterator[None]:
    lease = await_turn(store, KEY, ready=lambda: False, wait=0).lease
    with leases.beating(lease):
        yield


def make(settings: Settings, content: str) -> None:
    (settings.trees["data"]).mkdir(exist_ok=True)
    (settings.trees["data"] / "file").write_text(content)


def test_the_note_names_the_store_without_what_is_secret(
    asked: tuple[Settings, Identity],
) -> None:
    settings, identity = asked
    result = restore_environment(settings, identity, [Named("s3://bucket/x")])
    assert result.lease == "taken"
    file = private_file("build", [settings.trees["data"]], ".json")
    assert file.parent.stat().st_mode & 0o077 == 0
    note = json.loads(file.read_text())
    assert (note["key"], note["store"]) == (KEY, "s3://bucket/x")


def test_the_farthest_store_that_answers_has_the_lease(
    asked: tuple[Settings, Identity],
) -> None:
    settings, identity = asked
    near, far = Named("near"), Named("far")
    dead = FaultyStore(Named("dead"), {"read": "U*", "read_range": "U*", "list": "U*"})
    assert restore_environment(settings, identity, [near, far, dead]).lease == "taken"
    assert (len(leased(near)), len(leased(far))) == (0, 1)


@pytest.mark.parametrize("letters", ["U*", "S*", "E*", "A*"])
@pytest.mark.parametrize("method", ["create", "commit"])
def test_a_store_that_cannot_be_written_leaves_the_lease_to_a_nearer_one(
    asked: tuple[Settings, Identity], method: str, letters: str
) -> None:
    settings, identity = asked
    near = Named("near")
    full = FaultyStore(Named("far"), {method: letters, "read": "..U*"})
    result = restore_environment(settings, identity, [near, full])
    assert result.lease == "taken"
    assert len(leased(near)) == 1 or letters == "A*"


LETTERS = ("E", "A", "U", "S", "M", "C")


def calls_of(act: Callable[[PruneStore], object]) -> dict[str, int]:
    store = CountingStore(MemoryStore())
    act(store)
    return dict(store.calls)


@pytest.mark.parametrize("letter", LETTERS)
def test_a_fault_at_any_call_of_a_miss_leaves_a_hook_that_works(
    asked: tuple[Settings, Identity], letter: str
) -> None:
    settings, identity = asked
    tried = 0
    for method, count in calls_of(
        lambda store: restore_environment(settings, identity, [store])
    ).items():
        if letter == "S" and method not in ("create", "write", "commit", "replace"):
            continue  # who only reads needs no space
        for call in range(count):
            building.drop_note(settings)
            inner = MemoryStore()
            faulty = FaultyStore(inner, {method: "." * call + letter})
            result = restore_environment(settings, identity, [faulty])
            assert result.exit_code in (3, 5, 6), (method, call)
            make(settings, "x")
            assert publish_environment(settings, identity, [inner])
            assert leased(inner) == [] or result.lease != "taken", (method, call)
            assert restore_environment(settings, identity, [inner], force=True).exit_code == 0
            _clear(settings)
            tried += 1
    assert tried >= 3


def _clear(settings: Settings) -> None:
    shutil.rmtree(settings.trees["data"])


@pytest.mark.parametrize("letter", LETTERS)
def test_a_fault_at_any_call_of_a_publish_s_lease_does_not_fail_the_publish(
    asked: tuple[Settings, Identity], letter: str
) -> None:
    settings, identity = asked

    def only_leases(method: str, name: str) -> bool:
        return name.startswith("leases/")

    for method in ("list", "read", "replace", "delete"):
        for call in range(4):
            building.drop_note(settings)
            inner = MemoryStore()
            assert restore_environment(settings, identity, [inner]).lease == "taken"
            make(settings, "x")
            faulty = FaultyStore(inner, {method: "." * call + letter}, only_leases)
            (done,) = publish_environment(settings, identity, [faulty])
            assert done.outcome == "stored", (method, call)
            assert building.read_note(settings, KEY) is None
            _clear(settings)


@pytest.mark.parametrize("letter", ["E", "A", "U"])
@pytest.mark.parametrize("method", ["read", "read_range", "list", "size"])
def test_a_store_that_fails_for_a_time_while_one_waits_is_waited_for(
    asked: tuple[Settings, Identity], method: str, letter: str
) -> None:
    settings, identity = asked
    settings = replace(settings, wait=60)
    inner = MemoryStore()
    make(settings, "x")
    source = MemoryStore()
    publish_environment(settings, identity, [source])
    _clear(settings)
    looks = 0

    class Published(Around):
        """Another container publishes after some looks."""

        def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
            nonlocal looks
            looks += method == "list"
            if looks == 12:
                for info in source.list("packs"):
                    inner.replace(info.name, source.read(info.name, limit=1 << 30))
                for info in source.list("manifests"):
                    inner.replace(info.name, source.read(info.name, limit=1 << 30))
            return act()

    faulty = FaultyStore(Published(inner), {method: "..." + 5 * letter})
    with another_builds(inner):
        result = restore_environment(settings, identity, [faulty])
    assert result.lease == "awaited"
    assert result.exit_code == 0


def test_what_others_are_told_grows_with_the_time(asked: tuple[Settings, Identity]) -> None:
    settings, identity = asked
    told, store = Notes(), MemoryStore()
    with another_builds(store):
        result = restore_environment(replace(settings, wait=1.2), identity, [store], progress=told)
    assert result.lease == "none"
    assert result.waited >= 1.2
    assert "wait" in told.phases
    assert len(set(told.statuses)) >= 2
    assert all("which has been building for " in each for each in told.statuses)


def test_waiting_is_marked_as_such(asked: tuple[Settings, Identity]) -> None:
    settings, identity = asked
    marked: list[str] = []

    @contextmanager
    def pause() -> Iterator[None]:
        marked.append("begins")
        yield
        marked.append("ends")

    restore_environment(settings, identity, [MemoryStore()], pause=pause)
    assert marked == ["begins", "ends"]


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt, "free"), (OSError, "building")])
def test_a_restore_that_is_stopped_with_the_lease_hands_it_over(
    asked: tuple[Settings, Identity],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    state: str,
) -> None:
    settings, identity = asked
    store = MemoryStore()

    def stopped(*words: object) -> Restoration:
        assert leased(store)[0]["state"] == "building"
        raise error

    monkeypatch.setattr(restoration, "_no_hit", stopped)
    with pytest.raises(error):
        restore_environment(settings, identity, [store])
    assert leased(store)[0]["state"] == state
    # After an error the install of the same hook follows, and goes on with the lease.
    assert (building.read_note(settings, KEY) is None) == (state == "free")


def test_the_lease_is_renewed_while_a_relative_is_brought(
    asked: tuple[Settings, Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, identity = asked
    store = MemoryStore()
    monkeypatch.setattr(leases, "BEAT", 0.01)
    rest = restoration._no_hit

    def slow(*words: Any) -> Restoration:
        wait_until(lambda: leased(store)[0]["beat"] > 3)
        return rest(*words)

    monkeypatch.setattr(restoration, "_no_hit", slow)
    assert restore_environment(settings, identity, [store]).lease == "taken"


def test_a_publish_that_fails_says_so_to_those_who_wait(
    asked: tuple[Settings, Identity],
) -> None:
    settings, identity = asked
    store = MemoryStore()
    restore_environment(settings, identity, [store])
    make(settings, "x")
    broken = FaultyStore(store, {"create": "U*"})
    with pytest.raises(StoreUnreachable):
        publish_environment(settings, identity, [broken])
    assert leased(store)[0]["state"] == "failed"


def test_who_can_only_check_signatures_does_not_keep_others_waiting(
    asked: tuple[Settings, Identity], tmp_path: Path
) -> None:
    settings, identity = asked
    private, public = pair_of_files(tmp_path / "key")
    store = MemoryStore()
    readers = replace(settings, trusted_keys=(public,))
    result = restore_environment(readers, identity, [store])
    assert (result.exit_code, result.lease, leased(store)) == (3, "", [])
    signers = replace(settings, signing_key=private)
    assert restore_environment(signers, identity, [store]).lease == "taken"


def test_a_snapshot_that_nobody_trusted_has_signed_is_built_anew_once(
    asked: tuple[Settings, Identity], tmp_path: Path
) -> None:
    settings, identity = asked
    store = MemoryStore()
    make(settings, "not signed")
    publish_environment(settings, identity, [store])
    _clear(settings)
    signing = replace(settings, signing_key=pair_of_files(tmp_path / "key")[0])
    first = restore_environment(signing, identity, [store])
    assert (first.exit_code, first.lease) == (3, "taken")
    building.drop_note(settings)  # the other container is another machine
    second = restore_environment(replace(signing, wait=0.1), identity, [store])
    assert (second.exit_code, second.lease) == (3, "none")
    assert second.waited >= 0.1, "what is there is not what is waited for"


def test_an_abandoned_lease_is_handed_over(
    asked: tuple[Settings, Identity], tmp_path: Path
) -> None:
    settings, identity = asked
    settings = replace(settings, store=(str(tmp_path / "store"),))
    store = LocalStore(tmp_path / "store")
    for failed, state in ((True, "failed"), (False, "free")):
        assert restore_environment(settings, identity, [store]).lease.startswith("taken")
        building.abandon(settings, KEY, failed=failed)
        assert leased(store)[-1]["state"] == state
        assert building.read_note(settings, KEY) is None
        building.abandon(settings, KEY, failed=failed)  # there is nothing any more


def test_a_beater_that_is_stuck_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(beater, "_PATIENCE", 0.1)
    ends, begins = os.pipe()

    def stuck() -> None:
        os.read(ends, 1)  # for ever: the other end stays open

    child = beater.Beater(stuck)
    child.end(beater.FAILED)
    os.close(begins)
    with pytest.raises(ChildProcessError):  # it is gone, and was waited for
        os.waitpid(child._pid, os.WNOHANG)


def test_errors_of_a_lease_are_never_a_hook_s(asked: tuple[Settings, Identity]) -> None:
    settings, identity = asked
    store = MemoryStore()
    restore_environment(settings, identity, [store])
    with building.publishing(settings, KEY, []):  # another --store than that of the restore
        pass
    with pytest.raises(CachepodError), building.publishing(settings, KEY, [store]):
        raise StoreUnreachable("x", "y")

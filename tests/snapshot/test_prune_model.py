"""
Publishes, restores, prunes, crashes and expiry in any order, against a model that knows what must
be there.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cachepod.errors import Miss
from cachepod.model.names import CONDEMNED, INCOMING, MANIFESTS, PINS, TRASH, family_of
from cachepod.snapshot.paths import remove_tree
from cachepod.stores.base import put
from cachepod.stores.memory import MemoryStore
from tests.snapshot.test_roundtrip import bring, store_tree
from tests.support.prunes import (
    Between,
    HookedBeat,
    Killed,
    Mortal,
    Time,
    check_sound,
    keys_of,
    needed_by,
    packs_of,
    prune_now,
    publishers,
)
from tests.support.snapshots import manifest_of
from tests.support.trees import Directory, File, look, make

DAY = 86_400.0
F, G = "cp310-linux_x86_64-cu126-torch2.7.0", "cp311-linux_x86_64-nocuda-notorch"
KEYS = [f"{family}-{number:016x}" for family in (F, G) for number in range(3)]
KEYS += ["my-own-name"]
#: Each is a chunk of its own; a snapshot holds some of them.
BLOBS = [random.Random(number).randbytes(6000) for number in range(5)]
SMALL = 1000

keys = st.sampled_from(KEYS)
contents = st.sets(st.integers(0, len(BLOBS) - 1), min_size=1)
calls = st.integers(0, 45)
rules = st.fixed_dictionaries(
    {},
    optional={
        "keep_last": st.integers(0, 2),
        "max_age": st.integers(0, 4).map(lambda days: days * DAY),
        "keep": st.frozensets(keys, max_size=2),
    },
)


class Prunes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.room = Path(tempfile.mkdtemp())
        self.store = MemoryStore()
        self.clock = Time()
        self.wall = 1_800_000_000.0
        self.model: dict[str, frozenset[int]] = {}
        self.created: dict[str, float] = {}
        self.used: dict[str, float] = {}

    def teardown(self) -> None:
        with self.at_work():
            prune_now(self.store, self.clock, later=DAY)
        assert packs_of(self.store) == needed_by(self.store)
        for prefix in (PINS, CONDEMNED, TRASH, INCOMING):
            assert not list(self.store.list(prefix))
        for key, content in self.model.items():
            self.check(key, content)
        for left in self.room.iterdir():
            remove_tree(left)
        shutil.rmtree(self.room)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self.wall += 1
        with (
            mock.patch("time.time", return_value=self.wall),
            mock.patch("cachepod.snapshot.grouping.SMALL_FILE", SMALL),
            mock.patch("cachepod.snapshot.prune.Beat", HookedBeat),
            mock.patch("cachepod.snapshot.restore.outlast"),
            publishers(self.clock, alive=True),
        ):
            yield

    def tree(self, content: frozenset[int]) -> Path:
        path = self.room / "".join(map(str, sorted(content)))
        if not path.exists():
            make(path, Directory({b"%d" % n: File(BLOBS[n]) for n in content}))
        return path

    def check(self, key: str, content: frozenset[int]) -> None:
        bring(self.store, self.room / "there", key, latest=True)
        assert look(self.room / "there") == look(self.tree(content)), key

    def holds(self, key: str) -> frozenset[int]:
        """What the snapshot *key* holds, as its manifest names it."""
        return frozenset(int(name) for name in manifest_of(self.store, key).entries.names if name)

    def published(self, key: str, content: frozenset[int]) -> None:
        self.model[key] = content
        self.created[key] = self.wall

    @rule(key=keys, content=contents, force=st.booleans())
    def publish(self, key: str, content: set[int], force: bool) -> None:
        wanted = frozenset(content)
        with self.at_work():
            report = store_tree(self.store, self.tree(wanted), key, threads=1, force=force)
        assert report.outcome == ("present" if key in self.model and not force else "stored")
        if report.outcome == "stored":
            self.published(key, wanted)

    @rule(key=keys, content=contents, force=st.booleans(), call=calls)
    def publish_and_crash(self, key: str, content: set[int], force: bool, call: int) -> None:
        wanted, before = frozenset(content), self.model.get(key)
        with self.at_work():
            try:
                store_tree(Mortal(self.store, call), self.tree(wanted), key, threads=1, force=force)
            except Killed:
                pass
        if key not in keys_of(self.store):
            assert before is None
            return
        found = self.holds(key)
        assert found in (before, wanted)
        if found == wanted and (before is None or force):
            self.model[key] = found
            self.created[key] = manifest_of(self.store, key).summary.created

    @rule(key=keys)
    def restore(self, key: str) -> None:
        with self.at_work():
            if key not in self.model:
                with pytest.raises(Miss):
                    bring(self.store, self.room / "there", key, force=True)
                return
            self.check(key, self.model[key])
            put(self.store, f"uses/{key}/2027-01-15T{len(self.used) % 24:02}", b"")
            self.used[key] = self.wall

    @rule(days=st.integers(1, 3))
    def time_passes(self, days: int) -> None:
        self.wall += days * DAY

    def survivors(self, policy: dict[str, object]) -> set[str]:
        """What the rules say, in other words than the code's."""
        last, age = policy.get("keep_last"), policy.get("max_age")
        modified = {
            info.name.rpartition("/")[2]: info.modified for info in self.store.list(MANIFESTS)
        }
        uses: dict[str, float] = {}
        for info in self.store.list("uses"):
            key = info.name.split("/")[1]
            uses[key] = max(uses.get(key, 0), info.modified)
        stay = set(policy.get("keep", ())) & set(self.model)  # type: ignore[call-overload]
        for key in self.model:
            named = family_of(key) == "named"
            newer = [
                other
                for other in self.model
                if family_of(other) == family_of(key) and self.created[other] > self.created[key]
            ]
            by_number = last is not None and not named
            if by_number and len(newer) < last:  # type: ignore[operator]
                stay.add(key)
            if age is not None and self.wall - max(modified[key], uses.get(key, 0)) <= age:  # type: ignore[operator]
                stay.add(key)
            if not by_number and age is None:
                stay.add(key)
        return stay

    @rule(policy=rules)
    def prune(self, policy: dict[str, object]) -> None:
        with self.at_work():
            stay = self.survivors(policy)
            prune_now(self.store, self.clock, later=0, **policy)
        assert keys_of(self.store) == stay
        self.model = {key: self.model[key] for key in stay}

    @rule(policy=rules, call=st.integers(0, 120))
    def prune_and_crash(self, policy: dict[str, object], call: int) -> None:
        with self.at_work():
            stay = self.survivors(policy)
            try:
                prune_now(Mortal(self.store, call), self.clock, later=0, **policy)
            except Killed:
                pass
        there = keys_of(self.store)
        assert stay <= there <= set(self.model)
        self.model = {key: self.model[key] for key in there}

    @rule(share=st.floats(0, 1))
    def prune_to_a_size(self, share: float) -> None:
        store = self.store
        before = sum(info.size for p in ("packs", MANIFESTS) for info in store.list(p))
        most = int(before * share)
        with self.at_work():
            prune_now(store, self.clock, later=0, max_size=most)
        there = keys_of(store)
        assert there <= set(self.model)
        pinned = any(True for _ in store.list(PINS))
        if there and not pinned:
            after = sum(info.size for p in ("packs", MANIFESTS) for info in store.list(p))
            assert after <= most
        self.model = {key: self.model[key] for key in there}

    @precondition(lambda self: len(self.model) < len(KEYS))
    @rule(data=st.data(), content=contents, policy=rules, call=st.integers(0, 60))
    def publish_beside_a_prune(
        self, data: st.DataObject, content: set[int], policy: dict[str, object], call: int
    ) -> None:
        key = data.draw(st.sampled_from(sorted(set(KEYS) - set(self.model))))
        wanted = frozenset(content)

        def publish() -> None:
            store_tree(self.store, self.tree(wanted), key, threads=1)

        with self.at_work():
            stay = self.survivors(policy)
            beside = Between(self.store, call, publish)
            prune_now(beside, self.clock, later=0, **policy)
            if beside.calls <= call:
                publish()
        there = keys_of(self.store)
        if call > beside.log.index(("list", "manifests")):
            assert there == stay | {key}
        else:
            assert there <= set(self.model) | {key}
        if key in there:
            self.published(key, wanted)
        self.model = {key: self.model[key] for key in there}

    @invariant()
    def every_snapshot_is_whole(self) -> None:
        assert keys_of(self.store) == set(self.model)
        check_sound(self.store)


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Prunes,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_order_leaves_what_must_survive() -> None:
    run(examples=25, steps=15)


@pytest.mark.slow
def test_any_long_order_leaves_what_must_survive() -> None:
    run(examples=80, steps=40)

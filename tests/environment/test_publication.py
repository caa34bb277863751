"""Publishing to several stores, with faults at every call of any of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from cachepod.environment.config import Settings, load_settings
from cachepod.environment.hook import publish_environment
from cachepod.environment.identity import Identity, identify
from cachepod.environment.publication import Publication
from cachepod.errors import CachepodError, SpaceExhausted, StoreUnreachable
from cachepod.model.names import MANIFESTS, PACKS, manifest_name
from cachepod.snapshot.verify import verify
from cachepod.stores.base import PruneStore, exists
from cachepod.stores.memory import MemoryStore
from tests.support.stores import FaultyStore

KEY = "mine"


class Named(MemoryStore):
    """A store in memory with a name of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def url(self) -> str:
        return f"memory:{self._name}"


class Case:
    """A tree to publish, under a name of the user's own."""

    def __init__(self, root: Path) -> None:
        (root / "tree").mkdir()
        (root / "tree" / "data").write_bytes(bytes(range(256)) * 100)
        flags = {"trees": (f"data={root / 'tree'}",), "key": KEY, "config": "/dev/null"}
        self.settings: Settings = load_settings(flags, {"HOME": str(root)}, root)
        self.identity: Identity = identify(self.settings)

    def publish(self, *stores: PruneStore, force: bool = False) -> list[Publication]:
        return publish_environment(self.settings, self.identity, stores, force=force)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def objects(store: MemoryStore) -> dict[str, bytes]:
    return {
        info.name: store.read(info.name, limit=1 << 30)
        for prefix in (MANIFESTS, PACKS)
        for info in store.list(prefix)
    }


def outcomes(done: list[Publication]) -> list[str]:
    return [each.outcome for each in done]


def test_the_trees_are_compressed_once_however_many_stores_there_are(case: Case) -> None:
    near, middle, far = Named("near"), Named("middle"), Named("far")
    assert outcomes(case.publish(near, middle, far)) == ["stored", "copied", "copied"]
    assert objects(near) == objects(middle) == objects(far)


def test_a_store_that_lacks_it_gets_it_from_one_that_has_it(case: Case) -> None:
    near, far = Named("near"), Named("far")
    case.publish(far)
    assert outcomes(case.publish(near, far)) == ["copied", "present"]
    assert objects(near) == objects(far)


def test_a_damaged_origin_is_not_replicated_but_published_anew(case: Case) -> None:
    near, far = Named("near"), Named("far")
    case.publish(near)
    for info in list(near.list(PACKS)):
        near.replace(info.name, b"x" * info.size)
    assert outcomes(case.publish(near, far)) == ["present", "stored"]
    assert verify(far).problems == ()


def test_forced_it_is_replaced_everywhere_and_alike(case: Case) -> None:
    near, far = Named("near"), Named("far")
    case.publish(near)
    case.publish(far)
    before = objects(far)
    assert outcomes(case.publish(near, far, force=True)) == ["stored", "copied"]
    assert objects(near)[manifest_name(KEY)] == objects(far)[manifest_name(KEY)]
    assert objects(far)[manifest_name(KEY)] != before[manifest_name(KEY)]
    assert verify(far).problems == ()


METHODS = ("size", "list", "read", "read_range", "create", "write", "commit", "replace", "delete")


@pytest.mark.parametrize("letter", ["U", "S"])
@pytest.mark.parametrize("method", METHODS)
def test_a_far_store_that_fails_at_any_call_never_costs_the_near_one_its_snapshot(
    case: Case, method: str, letter: str
) -> None:
    for call in range(30):
        near, far = Named("near"), Named("far")
        faulty = FaultyStore(far, {method: "." * call + letter})
        with suppress(SpaceExhausted if letter == "S" else StoreUnreachable):
            case.publish(near, faulty)
        assert verify(near, [KEY]).problems == ()
        assert verify(far).problems == ()
        if faulty._calls[method] <= call:
            break
        assert "copied" in outcomes(case.publish(near, far)) or exists(far, manifest_name(KEY))
    else:
        raise AssertionError("more calls than expected")


@pytest.mark.parametrize("method", METHODS)
def test_a_near_store_that_fails_at_any_call_never_keeps_the_far_one_from_it(
    case: Case, method: str
) -> None:
    for call in range(30):
        near, far = Named("near"), Named("far")
        faulty = FaultyStore(near, {method: "." * call + "U*"})
        error: CachepodError | None = None
        try:
            case.publish(faulty, far)
        except StoreUnreachable as raised:
            error = raised
        assert verify(far, [KEY]).problems == ()
        assert verify(near).problems == ()
        if faulty._calls[method] <= call:
            assert error is None
            break
    else:
        raise AssertionError("more calls than expected")

"""What a restore and a publish note of themselves, and where."""

from __future__ import annotations

import pytest

from cachepod.environment.account import note_publish, note_restore
from cachepod.environment.publication import Publication
from cachepod.environment.restoration import Restoration
from cachepod.model.names import FORMAT_OBJECT
from cachepod.snapshot.copy import CopyReport
from cachepod.snapshot.publish import PublishReport
from cachepod.snapshot.restore import RestoreReport
from cachepod.snapshot.uses import Tally, read_uses
from cachepod.stores.base import put
from cachepod.stores.memory import MemoryStore
from tests.support.stores import FaultyStore


class Named(MemoryStore):
    """One of several tiers."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        put(self, FORMAT_OBJECT, b"")

    @property
    def url(self) -> str:
        return self._url


@pytest.fixture
def tiers() -> tuple[Named, Named]:
    return Named("near"), Named("far")


def noted(store: MemoryStore) -> Tally:
    return read_uses(store).total


REPORT = RestoreReport("restored", read=1000, install_seconds=180.0)


def test_a_hit_is_noted_in_the_store_that_served_it(tiers: tuple[Named, Named]) -> None:
    near, far = tiers
    assert note_restore(Restoration("restored", "k", store="far", report=REPORT), tiers, 4.0) == ""
    assert noted(near) == Tally()
    found = noted(far)
    assert (found.hits, found.restored, found.saved) == (1, 1000, 176.0)


def test_waiting_for_another_container_takes_from_what_was_saved(
    tiers: tuple[Named, Named],
) -> None:
    near, _ = tiers
    result = Restoration(
        "restored", "k", store="near", report=REPORT, waited=60.0, built_by="worker-7"
    )
    note_restore(result, tiers, 64.0)
    found = noted(near)
    assert (found.waits, found.waited, found.restoring, found.saved) == (1, 60.0, 4.0, 116.0)


def test_making_sure_that_nobody_builds_is_no_waiting(tiers: tuple[Named, Named]) -> None:
    near, _ = tiers
    note_restore(Restoration("miss", "k", exit_code=3, waited=2.5), tiers, 3.0)
    assert (noted(near).misses, noted(near).waits) == (1, 0)


def test_an_install_whose_time_is_not_known_saved_nothing_that_could_be_told(
    tiers: tuple[Named, Named],
) -> None:
    near, _ = tiers
    note_restore(
        Restoration("updated", "k", store="near", report=RestoreReport("updated")), tiers, 4
    )
    assert (noted(near).hits, noted(near).saved) == (1, 0.0)


def test_a_partial_restore_is_a_use_of_the_snapshot_that_was_brought(
    tiers: tuple[Named, Named],
) -> None:
    near, _ = tiers
    result = Restoration("partial", "k", exit_code=4, source="other", store="near", report=REPORT)
    note_restore(result, tiers, 4.0)
    assert {key: tally.partials for key, tally in read_uses(near).tallies.items()} == {"other": 1}


@pytest.mark.parametrize(("outcome", "code"), [("confirmed", 0), ("unreachable", 5)])
def test_what_asked_no_store_is_not_noted(
    tiers: tuple[Named, Named], outcome: str, code: int
) -> None:
    note_restore(Restoration(outcome, "k", exit_code=code, report=REPORT), tiers, 1.0)
    assert noted(tiers[0]) == noted(tiers[1]) == Tally()


def test_damage_is_a_miss_to_who_must_install(tiers: tuple[Named, Named]) -> None:
    note_restore(Restoration("damaged", "k", exit_code=6), tiers, 1.0)
    assert noted(tiers[0]).misses == 1


def test_a_publish_is_noted_in_every_store_that_it_wrote_to(tiers: tuple[Named, Named]) -> None:
    near, far = tiers
    report = PublishReport("stored", stored_new=500, phases={"store": 10.0, "commit": 2.0})
    copied = CopyReport((), size=700, phases={"copy": 3.0})
    done = [Publication("near", "stored", report), Publication("far", "copied", None, copied)]
    assert note_publish(done, tiers, "k") == ""
    assert (noted(near).publishes, noted(near).published, noted(near).publishing) == (1, 500, 12.0)
    assert (noted(far).publishes, noted(far).published, noted(far).publishing) == (1, 700, 3.0)


def test_a_publish_that_finds_its_snapshot_notes_nothing(tiers: tuple[Named, Named]) -> None:
    for outcome in ("present", "lost", "unsigned", "filling", "absent"):
        assert note_publish([Publication("near", outcome)], tiers, "k") == ""
    assert noted(tiers[0]) == Tally()


def test_trouble_is_a_sentence_and_no_error(tiers: tuple[Named, Named]) -> None:
    near, _ = tiers
    stores = [FaultyStore(near, {"replace": "U*"})]
    said = note_restore(Restoration("restored", "k", store="near", report=REPORT), stores, 4.0)
    assert "fails by design" in said
    assert note_restore(Restoration("miss", "k", exit_code=3), [], 1.0) == ""

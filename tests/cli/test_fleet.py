"""Many containers at once, real processes each with a disk of its own: one installs, all work."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.model.names import LEASES, MANIFESTS
from cachepod.stores.url import open_store
from tests.support.cli import wait_until
from tests.support.fleet import Fleet
from tests.support.moosefs import Unavailable, cluster
from tests.support.s3 import environment, moto_server, rclone_server

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


def all_at_once(fleet: Fleet, containers: int) -> None:
    """Start them, with clocks that are hours apart; one install, and every environment good."""
    hours = random.Random(7)
    running = [
        fleet.start({"CLOCK_OFF": str(hours.randint(-12, 12) * 3600)}) for _ in range(containers)
    ]
    codes = [each.wait(240) for each in running]
    assert codes == [0] * containers, fleet.errors()
    assert all(fleet.works()), fleet.errors()
    assert [each["outcome"] for each in fleet.said("install")] == ["installed"], fleet.errors()
    assert [each["outcome"] for each in fleet.said("publish")].count("stored") == 1
    outcomes = Counter(each["outcome"] for each in fleet.said("restore"))
    assert outcomes == {"miss": 1, "restored": containers - 1}
    leases = Counter(each.get("lease", "") for each in fleet.said("restore"))
    assert leases["taken"] == 1
    assert leases["awaited"] > 0
    assert leases["taken"] + leases["awaited"] + leases[""] == containers


def left_in(url: str) -> tuple[int, int]:
    """How many manifests and leases a store has."""
    store = open_store(url)
    return len(list(store.list(MANIFESTS))), len(list(store.list(LEASES)))


def test_fifty_containers_with_one_directory_install_once(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    all_at_once(Fleet(tmp_path, lambda number: store), 50)
    assert left_in(store) == (1, 0)


def builder_dies(fleet: Fleet, others: int) -> None:
    """The first container dies in the middle of its install; of the others one takes over."""
    begun = fleet.let_the_first_build_hang()
    quick = {"QUICK_LEASES": "15"}
    first = fleet.start(quick)
    wait_until(begun.exists, timeout=60, message="the install never began")
    running = [fleet.start(quick) for _ in range(others)]
    for number in range(1, others + 1):
        told = fleet.disks[number] / "restore.err"
        wait_until(
            lambda told=told: told.exists() and "waiting for " in told.read_text(),
            timeout=60,
            message="nobody waits",
        )
    first.kill()
    first.wait()
    codes = [each.wait(240) for each in running]
    assert codes == [0] * others, fleet.errors()
    assert fleet.works() == [False] + [True] * others, fleet.errors()
    assert [each["outcome"] for each in fleet.said("install")] == ["installed"], fleet.errors()
    leases = Counter(each["lease"] for each in fleet.said("restore"))
    assert leases == {"taken": 1, "taken over": 1, "awaited": others - 1}, fleet.errors()


def test_when_the_building_container_dies_another_one_takes_over(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    builder_dies(Fleet(tmp_path, lambda number: store), 5)
    assert left_in(store) == (1, 0)


def test_when_the_building_container_dies_on_s3_another_one_takes_over(
    tmp_path: Path, credentials: None
) -> None:
    with rclone_server() as server:
        url = server.url("store", retries=4)
        builder_dies(Fleet(tmp_path, lambda number: url, environment()), 3)
        assert left_in(url) == (1, 0)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def test_fifty_containers_with_a_service_that_lets_all_be_first_install_once(
    tmp_path: Path, credentials: None
) -> None:
    with rclone_server() as server:
        url = server.url("store", retries=4)
        assert not open_store(url).exclusive
        all_at_once(Fleet(tmp_path, lambda number: url, environment()), 50)
        assert left_in(url) == (1, 0)


def test_containers_with_a_service_that_honours_conditions_install_once(
    tmp_path: Path, credentials: None
) -> None:
    with moto_server() as server:
        server.client().create_bucket(Bucket="bucket")
        url = server.url("store", retries=4)
        assert open_store(url).exclusive
        all_at_once(Fleet(tmp_path, lambda number: url, environment()), 8)
        assert left_in(url) == (1, 0)


@pytest.fixture
def mounts() -> Iterator[tuple[Path, Path]]:
    try:
        with cluster() as made:
            yield made.mounts["first"].path, made.mounts["second"].path
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_containers_on_two_mounts_of_one_moosefs_install_once(
    tmp_path: Path, mounts: tuple[Path, Path]
) -> None:
    stores = [str(path / "store") for path in mounts]
    all_at_once(Fleet(tmp_path, lambda number: stores[number % 2]), 12)
    assert [left_in(store) for store in stores] == [(1, 0)] * 2

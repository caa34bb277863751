from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachepod.stores.local import LocalStore
from cachepod.stores.mounts import Mount, mount_at, mount_of, mounts, parse_mounts, place_of

TABLE = rb"""22 1 0:20 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/u
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 0:40 / /workspace rw,nosuid,nodev,relatime shared:2 master:3 - fuse mfs#10.0.0.1:9421 rw,user_id=0
31 22 8:1 /sub /mnt/with\040blank\134and\011tab ro,noatime - ext4 /dev/sda1 rw
32 22 8:2 / /mnt/twice rw - ext4 /dev/first rw
33 32 8:3 / /mnt/twice rw - xfs /dev/second rw
nonsense
34 22
35 22 8:3 / /mnt/no-dash rw shared:1
36 22 0:50 / /nfs rw - nfs4 server:/export rw,vers=4.2
37 22 0:51 / /mnt/sshfs rw - fuse.sshfs me@host: rw
"""  # noqa: E501


@pytest.fixture
def table() -> tuple[Mount, ...]:
    return parse_mounts(TABLE)


def test_a_line_of_the_table_becomes_a_mount(table: tuple[Mount, ...]) -> None:
    mount = mount_at("/workspace", table)
    assert mount is not None
    assert mount.kind == "fuse"
    assert mount.device == "mfs#10.0.0.1:9421"
    assert mount.option("user_id") == "0"
    assert mount.option("missing") == ""
    assert not mount.read_only


def test_lines_that_make_no_sense_are_passed_over(table: tuple[Mount, ...]) -> None:
    assert len(table) == 8
    assert mount_at("/mnt/no-dash", table) is None


def test_escaped_names_are_read(table: tuple[Mount, ...]) -> None:
    mount = mount_at("/mnt/with blank\\and\ttab", table)
    assert mount is not None
    assert mount.read_only


def test_of_two_mounts_at_one_point_the_later_is_seen(table: tuple[Mount, ...]) -> None:
    for found in (mount_at("/mnt/twice", table), mount_of("/mnt/twice/file", table)):
        assert found is not None
        assert found.device == "/dev/second"


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/", "/"),
        ("/etc", "/"),
        ("/workspace", "/workspace"),
        ("/workspace/a/b", "/workspace"),
        ("/workspace2", "/"),
        ("/mnt/with", "/"),
    ],
)
def test_a_path_lies_on_the_nearest_mount_above_it(
    table: tuple[Mount, ...], path: str, point: str
) -> None:
    mount = mount_of(path, table)
    assert mount is not None
    assert mount.point == point


def test_network_and_fuse_mounts_are_remote(table: tuple[Mount, ...]) -> None:
    remote = {mount.point for mount in table if mount.remote}
    assert remote == {"/workspace", "/nfs", "/mnt/sshfs"}


def test_links_on_the_way_are_followed(tmp_path: Path) -> None:
    (tmp_path / "volume").symlink_to("/proc/self")
    mount = mount_of(str(tmp_path / "volume" / "fd"))
    assert mount is not None
    assert mount.point == "/proc"


def test_this_machines_table_is_read() -> None:
    assert mount_at("/proc") in mounts()
    mount = mount_of(os.getcwd())
    assert mount is not None


def test_a_remote_store_rewards_more_reads_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cachepod.stores.local.mount_of",
        lambda path: mount_of(path, parse_mounts(TABLE)),
    )
    assert LocalStore(Path("/workspace/cachepod")).parallel_reads > 0
    assert LocalStore(Path("/elsewhere")).parallel_reads == 0


def test_a_place_is_the_real_path(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/../a/./b")
    (tmp_path / "again").symlink_to(tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a", "link", "link/..", "again/c/d", "missing/x", "again/../../a/b", "."):
        path = str(tmp_path / name)
        assert place_of(path) == os.path.realpath(path)
    assert place_of("relative") == os.path.realpath("relative")
    assert place_of("/") == "/"
    assert place_of(str(tmp_path / "loop" / "x")).endswith("loop/x")


def test_a_place_below_a_remote_mount_is_taken_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (tmp_path / "link").symlink_to("volume/sub")
    real, asked = os.readlink, []

    def readlink(path: str) -> str:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(os, "readlink", readlink)
    table = [Mount(str(volume), "fuse", "mfs#host:9421", ())]
    for name in ("volume/sub/x", "link/x", "volume/./y/../sub/x", "volume/../volume/sub/x"):
        assert place_of(str(tmp_path / name), table) == str(volume / "sub" / "x")
    assert asked
    assert not [path for path in asked if Path(path).is_relative_to(volume)]

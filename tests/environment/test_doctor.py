from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from cachepod.environment import doctor, doctor_prefix, doctor_store
from cachepod.environment.config import load_settings
from cachepod.environment.doctor import (
    Check,
    Severity,
    examine,
    examine_machine,
    examine_prefix,
    examine_store,
)
from cachepod.snapshot.stamp import STATE_DIRECTORY, Stamp, State, write_stamp
from cachepod.stores.base import put
from cachepod.stores.local import LocalStore
from cachepod.stores.mounts import Mount
from tests.support.faults import failing


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    found = list(checks)
    assert len({(check.about, check.name) for check in found}) == len(found)
    return {check.name: check for check in found}


def settings(folder: Path, **flags: object):  # type: ignore[no-untyped-def]
    flags = {"packages": ["six"], "store": [str(folder / "store")], **flags}
    return load_settings(flags, {"HOME": str(folder)}, folder)


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_good_machine_has_no_problems_and_is_left_as_it_was(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    put(store, "manifests/named/mine", b"1")
    (tmp_path / ".venv").mkdir()
    before = everything_below(tmp_path)
    found = list(examine(settings(tmp_path), os.environ))
    assert [check for check in found if check.severity == Severity.PROBLEM] == []
    assert {check.about for check in found} == {
        "machine",
        str(tmp_path / "store"),
        str(tmp_path / ".venv"),
    }
    assert all(check.name and check.result and check.meaning for check in found)
    assert everything_below(tmp_path) == before


def test_a_missing_store_and_prefix_are_not_made(tmp_path: Path) -> None:
    found = list(examine(settings(tmp_path), os.environ))
    assert [check for check in found if check.severity == Severity.PROBLEM] == []
    assert everything_below(tmp_path) == []


def test_what_is_known_is_told_before_a_volume_is_touched(tmp_path: Path) -> None:
    checks = examine(settings(tmp_path), os.environ)
    with failing("statvfs", errno.EIO, when=lambda path: str(path) != "/"):
        first = [next(checks) for _ in range(5)]
    assert {check.about for check in first} == {"machine"}


def test_trees_alone_have_no_prefix(tmp_path: Path) -> None:
    wanted = settings(tmp_path, packages=[], trees={"data": str(tmp_path / "data")})
    found = list(examine(wanted, os.environ))
    assert {check.about for check in found} == {"machine", str(tmp_path / "store"), "tree data"}


# The machine


def machine(folder: Path, environ: dict[str, str] | None = None, **flags: object):  # type: ignore[no-untyped-def]
    return by_name(examine_machine(settings(folder, **flags), environ or dict(os.environ)))


def test_an_interpreter_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    check = machine(tmp_path, python="python9.9")["interpreter"]
    assert check.severity == Severity.PROBLEM
    assert "python9.9" in check.result
    assert check.meaning


def test_a_missing_uv_matters_as_much_as_the_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_uv", lambda: None)
    assert machine(tmp_path)["uv"].severity == Severity.WARNING
    assert machine(tmp_path, installer="uv")["uv"].severity == Severity.PROBLEM


def test_little_memory_and_a_full_disk_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "memory", lambda: 3_000_000_000)
    monkeypatch.setattr(doctor, "free_space", lambda path: (5, 100))
    found = machine(tmp_path)
    assert found["memory"].severity == Severity.WARNING
    assert found["system disk"].severity == Severity.WARNING


def test_a_pod_without_its_volume_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "mounts", tuple)
    assert machine(tmp_path)["volume"].severity == Severity.NOTE
    check = machine(tmp_path, {**os.environ, "RUNPOD_POD_ID": "x"})["volume"]
    assert check.severity == Severity.WARNING
    assert "attach" in check.meaning


def test_a_mounted_volume_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [Mount("/workspace", "fuse", "mfs#h:9421", ("rw",))]
    monkeypatch.setattr(doctor, "mounts", lambda: tuple(table))
    check = machine(tmp_path)["volume"]
    assert check.severity == Severity.OK
    assert "mfs#h:9421" in check.result
    table[0] = Mount("/workspace", "fuse", "mfs#h:9421", ("ro",))
    assert machine(tmp_path)["volume"].severity == Severity.WARNING


# The store


def test_a_store_that_is_none_is_a_problem_and_nothing_more_is_asked() -> None:
    [check] = examine_store("gopher://x")
    assert check.severity == Severity.PROBLEM


def test_a_file_in_the_stores_place_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    found = by_name(examine_store(str(tmp_path / "store")))
    assert found["contents"].severity == Severity.PROBLEM
    assert "writable" not in found


def test_a_store_of_a_later_format_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "cachepod.json").write_text('{"format": 99}')
    check = by_name(examine_store(str(tmp_path)))["contents"]
    assert check.severity == Severity.PROBLEM
    assert "update cachepod" in check.meaning


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_store_that_cannot_be_written_is_a_problem_with_its_reason(
    tmp_path: Path, code: int
) -> None:
    with failing("mkdir", code):
        check = by_name(examine_store(str(tmp_path)))["writable"]
    assert check.severity == Severity.PROBLEM
    assert os.strerror(code) in check.result
    assert str(tmp_path) in check.result


def test_a_volume_without_hard_links_is_only_noted(tmp_path: Path) -> None:
    with failing("link", errno.EPERM):
        check = by_name(examine_store(str(tmp_path)))["link"]
    assert check.severity == Severity.NOTE
    assert os.strerror(errno.EPERM) in check.result


def lying_on(
    monkeypatch: pytest.MonkeyPatch, kind: str, *options: str
) -> Callable[[Path], dict[str, Check]]:
    mount = Mount("/", kind, "device", options or ("rw",))
    monkeypatch.setattr(doctor_store, "mount_of", lambda path: mount)
    monkeypatch.setattr(doctor_prefix, "mount_of", lambda path: mount)
    return lambda path: by_name(examine_store(str(path)))


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        ("ext4", Severity.OK),
        ("fuse", Severity.OK),
        ("overlay", Severity.WARNING),
        ("tmpfs", Severity.WARNING),
    ],
)
def test_a_store_that_goes_with_its_container_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, severity: Severity
) -> None:
    assert lying_on(monkeypatch, kind)(tmp_path)["file system"].severity == severity


def test_the_free_space_of_a_network_volume_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = lying_on(monkeypatch, "fuse")(tmp_path)["free space"]
    assert check.severity == Severity.NOTE
    assert "quota" in check.meaning


def test_a_store_mounted_read_only_can_still_be_restored_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = lying_on(monkeypatch, "ext4", "ro")(tmp_path)["file system"]
    assert check.severity == Severity.WARNING


# The prefix


def prefix(path: Path, min_free: float = 0.0) -> dict[str, Check]:
    return by_name(examine_prefix(path, min_free))


@pytest.mark.parametrize(
    ("state", "severity"),
    [
        (State.COMPLETE, Severity.OK),
        (State.INSTALLED, Severity.OK),
        (State.INSTALLING, Severity.NOTE),
        (State.FILLING, Severity.NOTE),
    ],
)
def test_a_prefix_of_ours_says_how_far_it_has_come(
    tmp_path: Path, state: State, severity: Severity
) -> None:
    write_stamp(tmp_path, Stamp(state, "the-key", "env"))
    check = prefix(tmp_path)["contents"]
    assert check.severity == severity
    assert "the-key" in check.result


def test_a_foreign_prefix_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("")
    check = prefix(tmp_path)["contents"]
    assert check.severity == Severity.PROBLEM
    assert "--force" in check.meaning


def test_an_unreadable_stamp_is_ours_all_the_same(tmp_path: Path) -> None:
    (tmp_path / STATE_DIRECTORY).mkdir()
    (tmp_path / STATE_DIRECTORY / "stamp.json").write_text("{")
    assert prefix(tmp_path)["contents"].severity == Severity.NOTE


def test_a_file_in_the_prefixs_place_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert prefix(tmp_path / "file")["contents"].severity == Severity.PROBLEM


def test_a_prefix_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    with failing("mkdir", errno.EROFS):
        check = prefix(tmp_path / "env")["writable"]
    assert check.severity == Severity.PROBLEM
    assert os.strerror(errno.EROFS) in check.result


def test_too_little_space_is_warned_of(tmp_path: Path) -> None:
    assert prefix(tmp_path, min_free=1.0)["free space"].severity == Severity.WARNING


def test_a_prefix_on_a_network_volume_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying_on(monkeypatch, "fuse")
    assert prefix(tmp_path)["file system"].severity == Severity.WARNING


def test_a_prefix_on_a_read_only_mount_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying_on(monkeypatch, "overlay", "ro")
    assert prefix(tmp_path)["file system"].severity == Severity.PROBLEM


def test_an_existing_prefix_is_asked_whether_it_can_be_swapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "swap" not in prefix(tmp_path / "absent")
    assert prefix(tmp_path)["swap"].severity == Severity.OK
    lying_on(monkeypatch, "overlay")
    monkeypatch.setattr(doctor_prefix, "can_be_renamed", lambda path: False)
    check = prefix(tmp_path)["swap"]
    assert check.severity == Severity.NOTE
    assert "lower layer" in check.result
    assert "in place" in check.meaning


def test_modes_that_do_not_last_are_a_problem_for_a_prefix_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chmod", lambda path, mode: None)
    assert prefix(tmp_path)["chmod"].severity == Severity.PROBLEM
    assert by_name(examine_store(str(tmp_path)))["chmod"].severity == Severity.NOTE
    assert stat.S_ISDIR(tmp_path.stat().st_mode)

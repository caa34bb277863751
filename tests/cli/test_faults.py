"""Bad input and faults: each has its exit code, one sentence, and the hook survives it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import somebody_builds
from tests.support.cli import children, wait_until
from tests.support.project import Project

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture
def stored(project: Project) -> Project:
    """A project whose environment is stored, but not there: a new container."""
    project.ready()
    project.wipe()
    return project


def recovers(project: Project) -> None:
    """The rest of the hook ends with a working environment and a good snapshot."""
    installed = project.run("install")
    assert installed.code == 0, installed.err
    published = project.run("publish")
    assert published.code == 0, published.err
    assert project.version_of("alpha") == "1.0"
    project.wipe()
    restored = project.run("restore")
    assert restored.code == 0, restored.err
    assert project.version_of("alpha") == "1.0"


def one_sentence(err: str) -> None:
    assert "Traceback" not in err
    assert "unexpected" not in err


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def biggest(paths: list[Path]) -> Path:
    return max(paths, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_pack_is_set_aside_and_the_hook_stores_a_good_snapshot(
    stored: Project, damage: str
) -> None:
    pack = biggest(stored.packs())
    if damage == "flipped":
        flip(pack, 1000)
    elif damage == "truncated":
        os.truncate(pack, pack.stat().st_size // 2)
    else:
        pack.unlink()
    result = stored.run("restore", "--json")
    assert result.code == 6
    assert result.json["outcome"] == "damaged"
    assert result.json["exit_code"] == 6
    one_sentence(result.err)
    assert not stored.prefix.exists()
    assert not stored.manifests()
    assert stored.trash()
    recovers(stored)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_manifest_is_set_aside_too(stored: Project, damage: str) -> None:
    manifest = stored.manifests()[0]
    if damage == "flipped":
        flip(manifest, manifest.stat().st_size - 10)
    else:
        os.truncate(manifest, 0 if damage == "empty" else manifest.stat().st_size - 20)
    result = stored.run("restore")
    assert result.code == 6
    one_sentence(result.err)
    assert not stored.prefix.exists()
    recovers(stored)


def test_a_damaged_snapshot_in_a_near_store_does_not_hide_a_good_one(project: Project) -> None:
    project.ready()
    assert project.run("publish", "--store", "far").code == 0
    project.wipe()
    flip(biggest(project.packs()), 1000)
    result = project.run("restore", "--json", "--store", "store", "--store", "far")
    assert result.code == 0
    assert result.json["store"].endswith("/far")
    assert project.trash()


def test_a_store_that_cannot_be_written_still_reports_the_damage(stored: Project) -> None:
    flip(biggest(stored.packs()), 1000)
    trash = stored.store / "trash"
    shutil.rmtree(trash, ignore_errors=True)
    trash.write_text("not a directory")
    damaged = stored.store / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    damaged.write_text("not a directory")
    result = stored.run("restore")
    assert result.code == 6
    assert "cannot be set aside" in result.err
    one_sentence(result.err)
    assert stored.run("install").code == 0


def test_a_store_of_a_later_format_is_a_miss(stored: Project) -> None:
    (stored.store / "cachepod.json").write_text('{"format": 99}\n')
    result = stored.run("restore")
    assert result.code == 3
    assert "newer" in result.err
    one_sentence(result.err)
    assert stored.run("install").code == 0
    assert stored.version_of("alpha") == "1.0"


def test_a_manifest_of_a_later_format_is_a_miss(stored: Project) -> None:
    manifest = stored.manifests()[0]
    data = bytearray(manifest.read_bytes())
    data[8] = 99  # format.md: the version stands at byte 8
    manifest.write_bytes(data)
    result = stored.run("restore")
    assert result.code == 3
    assert "format 99" in result.err
    one_sentence(result.err)
    assert manifest.exists()
    assert stored.run("install").code == 0


def test_a_store_that_is_a_file_is_unreachable(project: Project) -> None:
    project.store.write_text("not a directory")
    result = project.run("restore")
    assert result.code == 5
    assert str(project.store) in result.err
    one_sentence(result.err)
    assert project.run("install").code == 0
    published = project.run("publish")
    assert published.code == 5
    one_sentence(published.err)


def test_a_missing_store_is_an_empty_one(project: Project) -> None:
    listed = project.run("ls")
    assert listed.code == 0
    assert "no snapshots in" in listed.out
    assert project.run("ls", "--json").json["snapshots"] == []
    assert not project.store.exists(), "a listing has written to the store"
    assert project.run("restore").code == 3
    assert not project.manifests()


def test_one_store_that_answers_is_enough_for_a_miss(project: Project) -> None:
    (project.root / "broken").write_text("not a directory")
    result = project.run("restore", "--store", "broken", "--store", "store")
    assert result.code == 3
    assert "broken" in result.err


def may_not_write(project: Project) -> None:
    result = project.run("publish")
    assert result.code == 5
    assert str(project.store) in result.err
    one_sentence(result.err)
    assert project.version_of("alpha") == "1.0"


@not_root
def test_a_store_that_may_not_be_written_fails_the_publish_only(project: Project) -> None:
    project.run("install")
    project.store.mkdir(mode=0o555)
    may_not_write(project)


@as_root
@pytest.mark.root
def test_a_store_mounted_read_only_fails_the_publish_only(
    project: Project, small_disk: Path
) -> None:
    project.run("install")
    project.store.symlink_to(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    may_not_write(project)
    project.wipe()
    assert project.run("restore").code == 3


def test_an_unreadable_requirements_file_is_named(project: Project) -> None:
    (project.root / "dir.txt").mkdir()
    for name in ("nowhere.txt", "dir.txt"):
        result = project.run("restore", "-r", name)
        assert result.code == 2
        assert name in result.err
        one_sentence(result.err)


def test_too_little_space_is_known_before_the_first_byte(stored: Project) -> None:
    result = stored.run("restore", "--json", env={"CACHEPOD_MIN_FREE": "0.9"})
    assert result.code == 7
    assert result.json["exit_code"] == 7
    assert "are needed" in result.err
    one_sentence(result.err)
    assert not stored.prefix.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    ).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@as_root
@pytest.mark.root
def test_a_store_that_fills_up_fails_the_publish_and_leaves_no_snapshot(
    project: Project, small_disk: Path
) -> None:
    blob = project.root / "blob"
    blob.mkdir()
    (blob / "noise").write_bytes(os.urandom(3_000_000))
    words = ("--store", str(small_disk / "store"), "--tree", f"blob={blob}")
    project.run("install", *words)
    result = project.run("publish", "--json", *words)
    assert result.code == 7
    one_sentence(result.err)
    assert not list(small_disk.glob("store/manifests/*/*"))
    assert not list(small_disk.glob("store/packs/*/*")), "what was written is taken back"
    (blob / "noise").unlink()
    assert project.run("publish", *words).code == 0, "what fits is stored afterwards"


def test_something_else_in_the_place_of_a_manifest_does_not_block_the_hook(
    stored: Project,
) -> None:
    manifest = stored.manifests()[0]
    manifest.unlink()
    os.mkfifo(manifest)
    result = stored.run("restore")
    assert result.code == 6
    assert "not a regular file" in result.err
    one_sentence(result.err)
    assert stored.run("install").code == 0


def test_a_restore_whose_volume_does_not_answer_ends_with_three(stored: Project) -> None:
    running = stored.start("restore", "--timeout", "2")
    # A stopped process is as deaf as one that waits in the kernel for a wedged file system.
    worker = wait_until(lambda: children(running.pid), message="no worker was started")[0]
    os.kill(worker, signal.SIGSTOP)
    started = time.monotonic()
    out, err = running.communicate(timeout=30)
    assert running.returncode == 3
    assert "did not end within 2.00 s" in err
    assert out == ""
    assert time.monotonic() - started < 10
    recovers(stored)


def test_a_publish_whose_volume_does_not_answer_ends_with_five(project: Project) -> None:
    project.run("install")
    running = project.start("publish", "--timeout", "1", "--json")
    worker = wait_until(lambda: children(running.pid), message="no worker was started")[0]
    os.kill(worker, signal.SIGSTOP)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 5
    assert json.loads(out)["exit_code"] == 5
    assert "--timeout" in err
    assert project.run("publish").code == 0


@pytest.mark.parametrize("command", ["restore", "install", "publish"])
@pytest.mark.parametrize("delay", [0.05, 0.2, 0.35, 0.5])
def test_a_command_killed_at_any_moment_does_not_spoil_the_next_hook(
    stored: Project, command: str, delay: float
) -> None:
    if command == "publish":
        assert stored.run("install").code == 0
        for manifest in stored.manifests():
            manifest.unlink()
    running = stored.start(command)
    time.sleep(delay)
    running.kill()
    running.communicate(timeout=30)
    if stored.run("restore").code:
        recovers(stored)
    assert stored.version_of("alpha") == "1.0"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_a_restore_cleans_up(stored: Project, number: int, code: int) -> None:
    manifest = stored.manifests()[0]
    aside = stored.root / "manifest"
    manifest.rename(aside)
    with somebody_builds(stored):
        running = stored.start("restore", "--wait", "60", "--json")
        wait_until(lambda: children(running.pid), message="no worker was started")
        time.sleep(0.8)
        running.send_signal(number)
        out, err = running.communicate(timeout=30)
    assert running.returncode == code, err
    assert "Traceback" not in err
    assert json.loads(out)["exit_code"] == code
    assert not stored.prefix.exists()
    aside.rename(manifest)
    assert stored.run("restore").code == 0

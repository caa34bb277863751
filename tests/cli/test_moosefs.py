"""
A volume that stops answering, dies or is full, as the commands of the hook meet it.

On a real MooseFS: what hangs in the kernel hangs there as it would in a pod.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Result, environment, wait_until
from tests.support.moosefs import Cluster, Daemon, Mount
from tests.support.project import Project

pytestmark = pytest.mark.root

MIB = 1 << 20

#: cachepod, but the process argv[1] gets the signal argv[2] before the store's method argv[3] is
#: called for the argv[4]th time.
SIGNALLING = """
import os, sys
from cachepod.cli.main import main
from cachepod.stores.local import LocalStore

pid, number, method, when = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
del sys.argv[1:5]
original, calls = getattr(LocalStore, method), []

def replaced(self, *arguments, **more):
    calls.append(None)
    if len(calls) == when:
        os.kill(pid, number)
    return original(self, *arguments, **more)

setattr(LocalStore, method, replaced)
main()
"""


class Volume:
    """A store on a mount of its own, so that no cache knows what lies there."""

    def __init__(self, project: Project, moose: Cluster, mount: Mount, name: str) -> None:
        self.project = project
        self.moose = moose
        self.mount = mount
        self.store = mount.path / name / "store"
        self.data = project.root / "data"
        self.words = ["--store", str(self.store), "--config", os.devnull]
        self.words += ["--tree", f"data={self.data}", "--key", "k"]

    def command(self, name: str, *more: str) -> Result:
        """Run ``cachepod NAME`` to its end, which must come within a minute."""
        return self.project.run(name, *self.words, *more, timeout=60)

    def signalled(
        self, daemon: Daemon, number: int, *words: str, at: str = "read_range 3"
    ) -> Result:
        """Run a command, with a signal to *daemon* before the store's method is called so often."""
        script = [sys.executable, "-c", SIGNALLING, str(daemon.pid), str(int(number)), *at.split()]
        done = subprocess.run(
            [*script, *words],
            cwd=self.project.root,
            env=environment(self.project.root),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def is_back(self) -> None:
        """That the store is good and a restore brings what was published."""
        assert not self.data.exists()
        result = self.command("restore")
        assert result.code == 0, result.err
        assert (self.data / "7").stat().st_size == 5 * MIB


@pytest.fixture
def volume(project: Project, moose: Cluster, mounts: tuple[Path, Path]) -> Iterator[Volume]:
    """A volume that holds the snapshot ``k``, in a container that has nothing yet."""
    mount = moose.mount("third")
    made = Volume(project, moose, mount, mounts[0].name)
    made.data.mkdir()
    for number in range(8):
        (made.data / str(number)).write_bytes(os.urandom(5 * MIB))
    by_another = ["--store", str(mounts[0] / "store"), *made.words[2:]]
    published = project.run("publish", *by_another)
    assert published.code == 0, published.err
    made.data.rename(project.root / "original")
    yield made
    moose.mounts.pop("third").unmount()


def one_sentence(result: Result) -> None:
    assert "Traceback" not in result.err
    assert "unexpected" not in result.err


def test_a_restore_from_a_wedged_volume_is_a_miss_in_time(volume: Volume) -> None:
    volume.mount.freeze()
    result = volume.command("restore", "--timeout", "2")
    assert result.code == 3
    assert "did not end within 2.00 s" in result.err
    one_sentence(result)
    volume.mount.thaw()
    volume.is_back()


def test_commands_that_look_at_a_wedged_volume_end_in_time(volume: Volume) -> None:
    volume.mount.freeze()
    store = ("--store", str(volume.store), "--timeout", "2")
    words = [["ls"], ["show", "k"], ["diff", "k", "k"], ["stats"], ["verify"], ["doctor"]]
    words += [["prune", "--keep-last", "1", "--dry-run"]]
    running = [volume.project.start(*each, *store) for each in words]
    for each, process in zip(words, running, strict=True):
        err = process.communicate(timeout=60)[1]
        assert process.returncode == 5, (each, err)
        assert "did not end within 2.00 s" in err, each
    for command in ("key", "config"):
        assert volume.project.run(command, *store[:2], timeout=60).code == 0
    volume.mount.thaw()


def test_a_volume_that_wedges_in_the_middle_of_a_restore_is_a_miss_in_time(
    volume: Volume,
) -> None:
    result = volume.signalled(
        volume.mount, signal.SIGSTOP, "restore", *volume.words, "--timeout", "3"
    )
    assert result.code == 3
    assert "did not end within 3.00 s" in result.err
    volume.mount.thaw()
    volume.is_back()
    left = volume.project.root / ".data.cachepod"
    wait_until(lambda: os.listdir(left) == ["lock"], message="what it had staged stays")


def test_a_chunkserver_that_stops_answering_is_a_miss_in_time(volume: Volume) -> None:
    server = volume.moose.chunkserver
    try:
        result = volume.signalled(
            server, signal.SIGSTOP, "restore", *volume.words, "--timeout", "3"
        )
    finally:
        server.thaw()
    assert result.code == 3
    assert "did not end within 3.00 s" in result.err
    volume.is_back()


def test_a_mount_whose_daemon_died_is_unreachable(volume: Volume) -> None:
    volume.mount.kill()
    for command in ("restore", "publish", "ls", "verify"):
        if command == "publish":
            (volume.project.root / "original").rename(volume.data)
        words = volume.words[:4] if command in ("ls", "verify") else volume.words
        result = volume.project.run(command, *words)
        assert result.code == 5, (command, result.err)
        assert "restart the container" in result.err
        one_sentence(result)
    volume.data.rename(volume.project.root / "original")
    volume.mount = volume.moose.remount("third")
    volume.is_back()


def test_a_mount_whose_daemon_dies_in_the_middle_of_a_restore_is_unreachable(
    volume: Volume,
) -> None:
    result = volume.signalled(volume.mount, signal.SIGKILL, "restore", *volume.words)
    assert result.code == 5, result.err
    one_sentence(result)
    assert not volume.data.exists()
    volume.mount = volume.moose.remount("third")
    volume.is_back()


def test_a_publish_to_a_wedged_volume_ends_with_five_and_stores_later(volume: Volume) -> None:
    (volume.project.root / "original").rename(volume.data)
    volume.words[-1] = "another"
    volume.mount.freeze()
    result = volume.command("publish", "--timeout", "2", "--json")
    assert result.code == 5
    assert json.loads(result.out)["exit_code"] == 5
    volume.mount.thaw()
    assert volume.command("publish").code == 0
    volume.data.rename(volume.project.root / "original")
    volume.is_back()


def test_a_wedged_volume_does_not_keep_the_container_from_starting(volume: Volume) -> None:
    volume.mount.freeze()
    words = ("--store", str(volume.store), "--timeout", "2")
    result = volume.project.run("up", *words, "--", "python", "-c", "import alpha; print('up')")
    assert result.code == 0, result.err
    assert result.out.endswith("up\n")
    volume.mount.thaw()


def test_the_hook_of_three_commands_goes_through_with_a_wedged_volume(volume: Volume) -> None:
    volume.mount.freeze()
    store = ("--store", str(volume.store))
    assert volume.project.run("restore", *store, "--timeout", "2", timeout=60).code == 3
    installed = volume.project.run("install", *store, timeout=60)
    assert installed.code == 0, installed.err
    assert volume.project.run("publish", *store, "--timeout", "2", timeout=60).code == 5
    assert volume.project.version_of("alpha") == "1.0"
    volume.mount.thaw()


def test_a_volume_that_wedges_under_the_builder_does_not_keep_it_from_starting(
    volume: Volume,
) -> None:
    """The restore has taken the lease, which the install is to renew and the publish to give up."""
    store = ("--store", str(volume.store))
    assert volume.project.run("restore", *store, timeout=60).code == 3
    assert list(volume.store.glob("leases/*/*")), "the miss has taken the lease"
    volume.mount.freeze()
    installed = volume.project.run("install", *store, timeout=60)
    assert installed.code == 0, installed.err
    assert volume.project.run("publish", *store, "--timeout", "2", timeout=60).code == 5
    assert volume.project.version_of("alpha") == "1.0"
    volume.mount.thaw()
    published = volume.project.run("publish", *store, timeout=60)
    assert published.code == 0, published.err
    assert not list(volume.store.glob("leases/*/*"))


@pytest.mark.parametrize("at", ["list 1", "read 1", "replace 1"])
def test_a_volume_that_wedges_during_the_install_does_not_hold_it_up(
    volume: Volume, at: str
) -> None:
    store = ("--store", str(volume.store))
    assert volume.project.run("restore", *store, timeout=60).code == 3
    installed = volume.signalled(volume.mount, signal.SIGSTOP, "install", *store, at=at)
    assert volume.mount.frozen
    assert installed.code == 0, installed.err
    assert volume.project.version_of("alpha") == "1.0"
    volume.mount.thaw()


def test_a_volume_whose_quota_is_used_up_ends_the_publish_with_seven(volume: Volume) -> None:
    (volume.project.root / "original").rename(volume.data)
    (volume.data / "more").write_bytes(os.urandom(5 * MIB))
    quota = volume.store.parent
    volume.moose.tool("mfssetquota", "-L", "42Mi", quota)
    volume.words[-1] = "more"
    result = volume.command("publish", "--json")
    assert result.code == 7, result.err
    assert json.loads(result.out)["exit_code"] == 7
    assert "quota" in result.err
    one_sentence(result)
    assert volume.command("ls").out.count("more") == 0
    volume.moose.tool("mfsdelquota", "-L", quota)
    assert volume.command("publish").code == 0
    assert volume.project.run("verify", *volume.words[:4]).code == 0

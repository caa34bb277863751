"""What an installation remembers, captures and lets be published; apt itself is played here."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cachepod.errors import (
    AptFailed,
    CachepodError,
    DriverPackage,
    NotEnoughSpace,
    NotRoot,
    SpaceExhausted,
    UsageProblem,
)
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.stamp import State, read_stamp
from cachepod.system import capture
from cachepod.system import install as module
from cachepod.system.aptwords import Simulation
from cachepod.system.base import base_of
from cachepod.system.layer import LayerReport, applied, apply, install
from cachepod.system.metadata import decode, read_metadata
from cachepod.system.record import Progressed, place, read_record, state_place
from tests.support.dpkg import (
    INSTALLED,
    base_root,
    carry,
    content_of,
    install_into,
    lay,
    stanza,
    write,
)
from tests.support.faults import in_a_child
from tests.support.mounts import bind, need_root
from tests.support.syscalls import faults

Act = Callable[[Path], None]


class Played:
    """In place of apt: *act* is what it does to the root."""

    act: Act = staticmethod(install_into)
    plan = Simulation(("tool",), 1000, 2000)

    def __init__(self, root: Path, environ: Mapping[str, str], progress: Progress) -> None:
        self.root = root
        self.warnings: list[str] = []
        self.did: list[str] = []

    @contextmanager
    def workplace(self) -> Iterator[None]:
        yield

    def repair(self) -> None:
        self.did.append("repair")

    def add(self, debs: Sequence[Path]) -> None:
        self.did.append("add")

    def update(self) -> None:
        self.did.append("update")

    def simulate(self, packages: Sequence[str]) -> Simulation:
        return self.plan

    def install(self, packages: Sequence[str], download: int) -> None:
        type(self).act(self.root)


@contextmanager
def playing(act: Act, plan: Simulation = Played.plan) -> Iterator[None]:
    """Let apt do *act*."""
    kind = type("Apt", (Played,), {"act": staticmethod(act), "plan": plan})
    with mock.patch.object(module, "Apt", kind), mock.patch.object(os, "geteuid", return_value=0):
        yield


def installs(root: Path, *packages: str, act: Act = install_into, **options: object) -> LayerReport:
    with playing(act):
        return install(packages, root=root, **options)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return base_root(tmp_path / "root")


def nothing(root: Path) -> None:
    raise AssertionError("apt was asked to work")


class TestInstall:
    def test_what_came_of_it_can_be_put_in_place_elsewhere(
        self, root: Path, tmp_path: Path
    ) -> None:
        before = base_of(root)
        report = installs(root, "tool", key="the-key")
        assert (report.outcome, report.publishable, report.why) == ("installed", True, "")
        assert report.packages == {"base": "2", "tool": "7:1.0"}
        assert applied(root)
        assert base_of(root) == before
        stamp = read_stamp(place(root))
        assert stamp is not None
        assert (stamp.state, stamp.key, stamp.tree) == (State.INSTALLED, "the-key", "system")
        other = carry(root, base_root(tmp_path / "other"))
        apply(other)
        assert content_of(other) == content_of(root)

    def test_asked_again_it_has_nothing_to_do(self, root: Path) -> None:
        installs(root, "tool")
        report = installs(root, "tool", act=nothing)
        assert (report.outcome, report.publishable) == ("present", True)

    def test_what_the_image_has_makes_an_empty_layer(self, root: Path, tmp_path: Path) -> None:
        report = installs(root, "base", act=nothing)
        assert (report.files, report.publishable) == (0, True)
        other = carry(root, base_root(tmp_path / "other"))
        assert apply(other).files == 0
        assert applied(other)

    def test_what_was_seen_before_is_kept_no_longer_than_it_is_needed(self, root: Path) -> None:
        installs(root, "tool")
        assert sorted(os.listdir(state_place(root))) == ["lock", "record.json"]

    def test_a_space_that_does_not_suffice_is_known_before_the_download(self, root: Path) -> None:
        plan = Simulation(("tool",), 1 << 50, 1 << 50)
        with playing(nothing, plan), pytest.raises(NotEnoughSpace):
            install(["tool"], root=root)

    @pytest.mark.parametrize(
        "name", ["", "-o", "git-", "Git", "a b", "git;rm", "../x", "git=", "a/"]
    )
    def test_a_name_that_no_package_has_is_refused(self, root: Path, name: str) -> None:
        with playing(nothing), pytest.raises(UsageProblem, match="no apt package"):
            install([name], root=root)

    @pytest.mark.parametrize("name", ["git", "g++", "libsndfile1:i386", "a=1:2~3+b-1", "a/stable"])
    def test_a_name_that_a_package_can_have_is_taken(self, root: Path, name: str) -> None:
        assert installs(root, name).outcome == "installed"

    def test_a_driver_is_refused_before_anything_is_done(self, root: Path) -> None:
        with playing(nothing), pytest.raises(DriverPackage, match="the host provides it"):
            install(["tool", "nvidia-driver-550"], root=root)
        assert read_record(root) is None

    def test_who_is_not_root_is_told_so(self, root: Path) -> None:
        with mock.patch.object(os, "geteuid", return_value=1000), pytest.raises(NotRoot):
            install(["tool"], root=root)

    def test_an_image_without_dpkg_is_told_of(self, tmp_path: Path) -> None:
        with playing(nothing), pytest.raises(AptFailed, match="no dpkg in this image"):
            install(["tool"], root=tmp_path)


class TestInterrupted:
    def test_killed_half_way_the_next_one_captures_all(self, root: Path, tmp_path: Path) -> None:
        changes = list(INSTALLED.items())

        def half(root: Path) -> None:
            for name, text in changes[: len(changes) // 2]:
                write(root, name, text)
            half_status = stanza("dpkg", "1.21") + stanza(
                "base", "2", status="install ok half-configured"
            )
            lay(root, {"var/lib/dpkg/status": half_status})
            os.kill(os.getpid(), signal.SIGKILL)

        def rest(root: Path) -> None:
            install_into(root, dict(changes[len(changes) // 2 :]))

        before = base_of(root)
        assert in_a_child(lambda: installs(root, "tool", act=half)) == -signal.SIGKILL
        assert base_of(root) == before
        record = read_record(root)
        assert record is not None
        assert record.state is Progressed.INSTALLING
        report = installs(root, "tool", act=rest)
        assert report.publishable
        other = carry(root, base_root(tmp_path / "other"))
        apply(other)
        assert content_of(other) == content_of(root)

    def test_killed_while_it_captures_the_next_one_captures_again(
        self, root: Path, tmp_path: Path
    ) -> None:
        def dies(*arguments: object, **options: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def attempt() -> None:
            with mock.patch.object(capture._Capture, "_close_directories", dies):
                installs(root, "tool")

        assert in_a_child(attempt) == -signal.SIGKILL
        assert not place(root).exists()
        report = installs(root, "tool", act=nothing)
        assert (report.outcome, report.publishable) == ("installed", True)
        other = carry(root, base_root(tmp_path / "other"))
        apply(other)
        assert content_of(other) == content_of(root)

    def test_after_one_that_installed_nothing_a_users_own_files_are_not_taken_for_apts(
        self, root: Path
    ) -> None:
        def fails(root: Path) -> None:
            raise AptFailed("the mirror is down")

        with pytest.raises(AptFailed):
            installs(root, "nosuch", act=fails)
        lay(root, {"etc/my.conf": "mine\n"})
        report = installs(root, "tool")
        assert report.publishable
        record = read_record(root)
        assert record is not None
        assert record.asked == ("tool",)
        assert not (place(root) / "files/etc/my.conf").exists()

    def test_what_others_had_begun_to_install_is_not_published(self, root: Path) -> None:
        def half(root: Path) -> None:
            write(root, "usr/bin/tool", "tool\n")
            lay(root, {"var/lib/dpkg/updates/0001": stanza("tool", "1")})
            raise AptFailed("it broke")

        with pytest.raises(AptFailed):
            installs(root, "other", act=half)
        (root / "var/lib/dpkg/updates/0001").unlink()
        lay(root, {"var/lib/dpkg/available": ""})
        status = (root / "var/lib/dpkg/status").read_text()
        lay(root, {"var/lib/dpkg/status": status + stanza("other", "1")})
        report = installs(root, "tool")
        assert not report.publishable
        assert "other" in report.why

    @pytest.mark.parametrize("function", ["link", "symlink", "mkdir", "rename", "utime", "chmod"])
    def test_a_disk_that_fails_while_it_captures_is_told_of_and_the_next_one_captures_again(
        self, tmp_path: Path, function: str
    ) -> None:
        finished = base_root(tmp_path / "finished")
        installs(finished, "tool")
        wanted = content_of(place(finished), (".cachepod", "layer.json")).keys()
        for number in range(100):
            root = base_root(tmp_path / f"root{number}")
            told, calls = failed_capture(root, function, number)
            if calls <= number:
                break
            assert told is None or isinstance(told, SpaceExhausted)
            report = installs(root, "tool", act=nothing)
            assert report.publishable
            assert content_of(place(root), (".cachepod", "layer.json")).keys() == wanted
        assert number > 0


def failed_capture(root: Path, function: str, number: int) -> tuple[CachepodError | None, int]:
    """Install, the disk full at one call of *function*; what was told, and how many there were."""
    real, made = capture.capture, []

    def failing(*arguments: Any, **options: Any) -> capture.Captured:
        with faults((function,), lambda name, call: errno.ENOSPC * (call == number)) as calls:
            try:
                return real(*arguments, **options)
            finally:
                made.append(len(calls))

    with mock.patch.object(module, "capture", failing):
        try:
            installs(root, "tool")
        except CachepodError as error:
            return error, made[0]
    return None, made[0]


class TestAnotherLayer:
    @pytest.fixture
    def live(self, root: Path, tmp_path: Path) -> Path:
        """A container in which a layer was put in place."""
        installs(root, "tool")
        live = carry(root, base_root(tmp_path / "live"))
        apply(live)
        return live

    @staticmethod
    def more(root: Path) -> None:
        status = (root / "var/lib/dpkg/status").read_text()
        lay(root, {"var/lib/dpkg/status": status + stanza("more", "1"), "usr/bin/more": "more\n"})

    def test_more_packages_are_installed_and_not_published(self, live: Path) -> None:
        before = read_metadata(place(live))
        base = base_of(live)
        report = installs(live, "tool", "more", act=self.more)
        assert (report.outcome, report.packages) == ("installed", {"more": "1"})
        assert not report.publishable
        assert "a layer of other packages: tool" in report.why
        assert read_metadata(place(live)) == before
        assert applied(live)
        assert base_of(live) == base
        again = installs(live, "tool", "more", act=nothing)
        assert (again.outcome, again.publishable) == ("present", False)

    def test_fewer_packages_are_not_what_is_there(self, live: Path) -> None:
        report = installs(live, "base", act=nothing)
        assert not report.publishable
        assert "not asked for any more: tool" in report.why

    def test_the_same_packages_are_there(self, live: Path) -> None:
        report = installs(live, "tool", act=nothing)
        assert (report.outcome, report.publishable) == ("present", True)

    def test_a_package_that_was_removed_is_installed_again_and_not_published(
        self, live: Path
    ) -> None:
        status = stanza("dpkg", "1.21") + stanza("base", "2")
        lay(live, {"var/lib/dpkg/status": status})

        def again(root: Path) -> None:
            lay(root, {"var/lib/dpkg/status": status + stanza("tool", "7:1.0")})

        report = installs(live, "tool", act=again)
        assert (report.outcome, report.publishable) == ("installed", False)
        assert "changed since" in report.why

    def test_after_an_apply_that_was_killed_nothing_is_published(
        self, root: Path, tmp_path: Path
    ) -> None:
        installs(root, "tool")
        live = carry(root, base_root(tmp_path / "live"))

        def dies(*arguments: object, **options: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def attempt() -> None:
            with mock.patch.object(os, "fsync", dies):
                apply(live)

        assert in_a_child(attempt) == -signal.SIGKILL
        report = installs(live, "tool", act=install_into_by_hand)
        assert not report.publishable
        assert "being put in place" in report.why


def install_into_by_hand(root: Path) -> None:
    """As :func:`install_into`, over whatever is there."""
    for name, text in INSTALLED.items():
        if text is None and not os.path.lexists(root / name):
            continue
        if name.endswith("/") and (root / name).is_dir():
            continue
        if not name.endswith("/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root, name, text)
    install_into(root, {})


class TestWhatIsCaptured:
    def layer(self, root: Path) -> set[str]:
        files = place(root) / "files"
        return {str(path.relative_to(files)) for path in files.rglob("*") if not path.is_dir()}

    def test_secrets_of_the_machine_are_not_and_it_is_said(self, root: Path) -> None:
        secret = {
            "etc/ssh/ssh_host_rsa_key": "x",
            "etc/machine-id": "x",
            "etc/tool/made.key": "-----BEGIN EC PRIVATE KEY-----\nx",
            "etc/tool/made.crt": "-----BEGIN CERTIFICATE-----\nx",
        }

        def act(root: Path) -> None:
            install_into(root)
            lay(root, secret)

        report = installs(root, "tool", act=act)
        assert self.layer(root) & secret.keys() == {"etc/tool/made.crt"}
        (warning,) = report.warnings
        assert all(f"/{name}" in warning for name in secret.keys() - {"etc/tool/made.crt"})
        assert report.publishable

    def test_what_is_of_one_run_alone_is_not(self, root: Path) -> None:
        left_out = {
            *("var/log/tool/x.log", "var/cache/apt/pkgcache.bin", "var/lib/apt/lists/x"),
            *("run/x", "tmp/x", "root/x", "home/x/y", "etc/ld.so.cache", "etc/resolv.conf"),
            *("var/lib/dpkg/status-old", "var/lib/dpkg/lock", "proc/x", "workspace/x"),
        }
        taken = {"var/lib/x/state", "opt/x/y", "var/cache/debconf/config.dat", "srv/x"}

        def act(root: Path) -> None:
            install_into(root)
            lay(root, dict.fromkeys(left_out | taken, "x"))

        installs(root, "tool", act=act)
        assert self.layer(root) & (left_out | taken) == taken
        assert (place(root) / "files/var/log/tool").is_dir()

    def test_what_was_only_touched_or_made_anew_is_not(self, root: Path) -> None:
        lay(root, {"etc/same": "same\n"})

        def act(root: Path) -> None:
            install_into(root)
            (root / "etc/same").unlink()
            lay(root, {"etc/same": "same\n"})
            os.utime(root / "var/lib/dpkg/info/base.list")

        installs(root, "tool", act=act)
        assert not self.layer(root) & {"etc/same", "var/lib/dpkg/info/base.list"}

    def test_the_prefix_is_not(self, root: Path) -> None:
        def act(root: Path) -> None:
            install_into(root)
            lay(root, {"opt/env/bin/python": "x", "opt/other": "x"})

        installs(root, "tool", act=act, exclude=[root / "opt/env"])
        assert "opt/other" in self.layer(root)
        assert "opt/env/bin/python" not in self.layer(root)

    def test_removals_changes_and_configuration_are_told(self, root: Path) -> None:
        installs(root, "tool")
        layer = decode(read_metadata(place(root)), "")
        assert "usr/share/gone" in layer.removed
        assert layer.removed.index("usr/share/gone/inside") < layer.removed.index("usr/share/gone")
        assert layer.conffiles == {"etc/base.conf", "etc/tool.conf"}
        assert {"etc/left.conf", "usr/share/index", "var/lib/tool/state"} <= layer.left
        assert layer.changed["usr/bin/base"].startswith("md5:")
        assert layer.changed["etc/base.conf"].startswith("blake3:")
        assert layer.packages == {"base:amd64": "2", "tool:amd64": "7:1.0"}

    @pytest.mark.root
    def test_a_package_that_lies_on_a_mount_is_not_published(
        self, root: Path, tmp_path: Path
    ) -> None:
        need_root()
        (tmp_path / "volume").mkdir()
        (root / "usr/share/tool").mkdir()
        with bind(tmp_path / "volume", root / "usr/share/tool"):
            report = installs(root, "tool")
        assert not report.publishable
        assert "lies on a mount of its own" in report.why

    def test_the_same_installation_gives_the_same_description(self, tmp_path: Path) -> None:
        said = []
        for name in ("one", "other"):
            root = base_root(tmp_path / name)

            def act(root: Path) -> None:
                install_into(root)
                for folder, _, names in os.walk(root):
                    for each in names:
                        path = Path(folder, each)
                        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)

            installs(root, "tool", act=act)
            said.append(read_metadata(place(root)))
        assert said[0] == said[1]

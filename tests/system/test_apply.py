"""Putting a layer in place: what comes of it, and what the container's own is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachepod.errors import BaseDiffers, NotRoot, TreeUnreadable
from cachepod.model.fingerprint import Fingerprint
from cachepod.snapshot.publish import publish
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.scan import TreeSource
from cachepod.snapshot.stamp import Stamp, State, write_stamp
from cachepod.stores.local import LocalStore
from cachepod.system.base import base_of
from cachepod.system.layer import TREE, applied, apply, missing
from cachepod.system.record import place, read_record, state_place
from tests.support.dpkg import (
    base_root,
    captured,
    carry,
    content_of,
    install_into,
    lay,
    stanza,
)
from tests.support.mounts import need_root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A root with the layer, from which it was captured."""
    captured(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def target(source: Path, tmp_path: Path) -> Path:
    """Another root of the same base, with the tree of the layer."""
    return carry(source, base_root(tmp_path / "target"))


def linked(root: Path, path: str) -> bool:
    """Whether the file is one with that of the tree."""
    return os.path.samefile(root / path, place(root) / "files" / path)


class TestApply:
    def test_the_root_is_as_if_the_packages_had_been_installed_in_it(
        self, source: Path, target: Path
    ) -> None:
        assert missing(["tool", "base=2"], target) == ["tool", "base=2"]
        report = apply(target)
        assert content_of(target) == content_of(source)
        assert (report.outcome, report.packages, report.notes) == ("applied", 2, ())
        assert missing(["tool", "base=2"], target) == []

    def test_a_second_apply_confirms(self, target: Path) -> None:
        assert not applied(target)
        apply(target)
        assert applied(target)
        assert apply(target).outcome == "confirmed"

    @pytest.mark.root
    def test_files_of_programs_are_links_and_those_that_are_edited_copies(
        self, target: Path
    ) -> None:
        need_root("having files of root's")
        apply(target)
        assert linked(target, "usr/bin/tool")
        assert not linked(target, "etc/tool.conf")
        assert not linked(target, "var/lib/dpkg/status")

    def test_the_base_stays_what_it_was_before(self, target: Path) -> None:
        before = base_of(target)
        apply(target)
        assert base_of(target) == before

    def test_a_layer_that_was_taken_away_is_not_in_place(self, target: Path) -> None:
        apply(target)
        lay(target, {"var/lib/dpkg/status": stanza("dpkg", "1.21") + stanza("base", "2")})
        assert not applied(target)
        with pytest.raises(BaseDiffers, match="tool is missing"):
            apply(target)

    def test_another_layer_at_its_place_is_not_in_place(self, target: Path) -> None:
        apply(target)
        metadata = place(target) / "layer.json"
        metadata.write_text(metadata.read_text().replace('"content": "', '"content": "0'))
        assert not applied(target)

    def test_packages_beside_the_layer_do_no_harm(self, target: Path) -> None:
        apply(target)
        status = target / "var/lib/dpkg/status"
        status.write_text(status.read_text() + stanza("more", "1"))
        assert applied(target)

    def test_a_user_who_does_not_own_the_root_is_told_so(
        self, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        with pytest.raises(NotRoot):
            apply(target)


class TestSnapshots:
    @pytest.mark.root
    def test_a_snapshot_of_a_layer_is_confirmed_after_it_was_put_in_place(
        self, source: Path, tmp_path: Path
    ) -> None:
        need_root("having files of root's")
        store = LocalStore(tmp_path / "store")
        fingerprint = Fingerprint("layers", {"made": "by a test"})
        key = fingerprint.key
        write_stamp(place(source), Stamp(State.INSTALLED, key, TREE))
        publish(store, key, fingerprint, [TreeSource(TREE, place(source))])
        target = base_root(tmp_path / "target")
        targets = [Target(TREE, place(target))]
        assert restore(store, key, targets).outcome == "restored"
        apply(target)
        assert content_of(target) == content_of(source)
        assert linked(target, "usr/bin/tool")
        assert restore(store, key, targets).outcome == "confirmed"
        # But what is written into it later is noticed.
        with open(target / "usr/bin/tool", "a") as file:
            file.write("more\n")
        assert restore(store, key, targets).outcome == "updated"
        assert applied(target)


class TestAnotherBase:
    def check(self, target: Path, why: str) -> None:
        before = content_of(target)
        with pytest.raises(BaseDiffers, match=why) as caught:
            apply(target)
        assert caught.value.exit_code == 3
        assert content_of(target) == before

    def test_another_version_is_refused_by_name(self, target: Path) -> None:
        lay(target, {"var/lib/dpkg/status": stanza("dpkg", "1.20") + stanza("base", "1")})
        self.check(target, "dpkg is 1.20 instead of 1.21")

    def test_one_package_more_is_refused_by_name(self, target: Path) -> None:
        status = (target / "var/lib/dpkg/status").read_text()
        lay(target, {"var/lib/dpkg/status": status + stanza("curl", "7")})
        self.check(target, "curl is there as well")

    def test_another_distribution_is_refused(self, target: Path) -> None:
        lay(target, {"etc/os-release": "ID=ubuntu\nVERSION_ID=22.04\n"})
        self.check(target, "installed on debian 12, and this is ubuntu 22.04")

    def test_a_dpkg_that_was_interrupted_is_no_base(self, target: Path) -> None:
        lay(target, {"var/lib/dpkg/updates/0001": stanza("base", "3")})
        self.check(target, "dpkg was interrupted")

    def test_an_image_without_dpkg_is_none(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        with pytest.raises(BaseDiffers, match="no dpkg"):
            apply(carry(source, tmp_path / "other"))


class TestTheContainersOwn:
    def test_a_configuration_file_that_was_changed_here_stays(self, target: Path) -> None:
        lay(target, {"etc/base.conf": "mine\n", "etc/tool.conf": "mine too\n"})
        report = apply(target)
        assert (target / "etc/base.conf").read_text() == "mine\n"
        assert (target / "etc/tool.conf").read_text() == "mine too\n"
        assert report.notes == (
            "/etc/base.conf was changed here, and stays as it is",
            "/etc/tool.conf was changed here, and stays as it is",
        )

    def test_one_that_was_removed_here_stays_away(self, target: Path) -> None:
        (target / "etc/base.conf").unlink()
        report = apply(target)
        assert not (target / "etc/base.conf").exists()
        assert report.notes == ("/etc/base.conf was removed here, and stays so",)

    def test_a_file_of_the_base_that_both_changed_stays_as_it_is_here(self, target: Path) -> None:
        lay(target, {"usr/share/index": "mine\n", "usr/bin/base": "my own build\n"})
        report = apply(target)
        assert (target / "usr/share/index").read_text() == "mine\n"
        assert (target / "usr/bin/base").read_text() == "my own build\n"
        assert len(report.notes) == 2

    def test_what_a_package_owns_replaces_what_nobody_owned(self, target: Path) -> None:
        lay(target, {"usr/bin/tool": "mine\n"})
        assert apply(target).notes == ()
        assert (target / "usr/bin/tool").read_text() == "tool\n"

    def test_what_a_script_made_does_not_replace_what_is_here(self, target: Path) -> None:
        lay(target, {"var/lib/tool/state": "mine\n"})
        assert apply(target).notes == ("/var/lib/tool/state was changed here, and stays as it is",)
        assert (target / "var/lib/tool/state").read_text() == "mine\n"

    def test_files_in_a_directory_that_goes_stay_with_it(self, target: Path) -> None:
        lay(target, {"usr/share/gone/mine": "mine\n"})
        apply(target)
        assert (target / "usr/share/gone/mine").exists()
        assert not (target / "usr/share/gone/inside").exists()

    def test_diversions_of_both_are_kept(self, target: Path) -> None:
        ours = "/bin/sh\n/bin/sh.distrib\ndash\n/etc/a\n/etc/a.orig\n:\n"
        lay(target, {"var/lib/dpkg/diversions": ours})
        apply(target)
        text = (target / "var/lib/dpkg/diversions").read_text()
        assert text == ours + "/usr/bin/x\n/usr/bin/x.real\ntool\n"

    def test_a_directory_that_is_there_keeps_its_mode(self, target: Path) -> None:
        (target / "usr/share/tool").mkdir()
        (target / "usr/share/tool").chmod(0o700)
        apply(target)
        assert (target / "usr/share/tool").stat().st_mode & 0o777 == 0o700

    def test_a_mode_that_the_layer_changed_is_changed_where_it_is_the_bases(
        self, tmp_path: Path
    ) -> None:
        def change(root: Path) -> None:
            install_into(root)
            (root / "usr/share").chmod(0o750)

        captured(tmp_path / "a", change)
        target = carry(tmp_path / "a", base_root(tmp_path / "b"))
        apply(target)
        assert (target / "usr/share").stat().st_mode & 0o777 == 0o750

    def test_accounts_are_added_to_those_that_are_here(self, tmp_path: Path) -> None:
        def change(root: Path) -> None:
            install_into(root)
            with open(root / "etc/passwd", "a") as file:
                file.write("tool:x:101:102:of tool:/nonexistent:/usr/sbin/nologin\n")
            with open(root / "etc/group", "a") as file:
                file.write("tool:x:102:\n")
            with open(root / "etc/shadow", "a") as file:
                file.write("tool:!:19000::::::\n")
            text = (root / "etc/group").read_text()
            (root / "etc/group").write_text(text.replace("audio:x:29:", "audio:x:29:tool"))

        captured(tmp_path / "a", change)
        target = carry(tmp_path / "a", base_root(tmp_path / "b"))
        with open(target / "etc/passwd", "a") as file:
            file.write("me:x:101:1000::/home/me:/bin/bash")  # and no line's end
        (target / "etc/shadow").chmod(0o640)
        report = apply(target)
        passwd = (target / "etc/passwd").read_text().splitlines()
        assert passwd[-2:] == [
            "me:x:101:1000::/home/me:/bin/bash",
            "tool:x:100:102:of tool:/nonexistent:/usr/sbin/nologin",
        ]
        assert "audio:x:29:tool" in (target / "etc/group").read_text()
        assert (target / "etc/shadow").read_text().endswith("tool:!:19000::::::\n")
        assert (target / "etc/shadow").stat().st_mode & 0o777 == 0o640
        assert report.notes == ("user tool is 100 here, for 101 is taken",)
        assert not place(target).joinpath("files/etc/passwd").exists()


class TestPowers:
    @pytest.fixture
    def powerful(self, tmp_path: Path) -> Path:
        def change(root: Path) -> None:
            install_into(root)
            (root / "usr/bin/tool").chmod(0o4755)
            (root / "usr/share/tool").chmod(0o2775)

        captured(tmp_path / "a", change)
        return carry(tmp_path / "a", base_root(tmp_path / "b"))

    def test_from_a_stranger_they_are_dropped_and_named(self, powerful: Path) -> None:
        (note,) = apply(powerful).notes
        assert "/usr/bin/tool" in note
        assert (powerful / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755

    def test_from_somebody_who_is_trusted_they_are_given(self, powerful: Path) -> None:
        assert apply(powerful, trusted=True).notes == ()
        assert (powerful / "usr/bin/tool").stat().st_mode & 0o7777 == 0o4755

    def test_no_file_of_the_tree_has_them(self, powerful: Path) -> None:
        apply(powerful, trusted=True)
        tree = place(powerful) / "files/usr/bin/tool"
        assert tree.stat().st_mode & 0o7777 == 0o755
        assert not os.path.samefile(tree, powerful / "usr/bin/tool")

    def test_a_directory_gives_its_group_to_files_whoever_vouches(self, powerful: Path) -> None:
        apply(powerful)
        assert (powerful / "usr/share/tool").stat().st_mode & 0o7777 == 0o2775

    @pytest.mark.root
    def test_owners_go_by_name_and_powers_not_to_root_in_place_of_another(
        self, tmp_path: Path
    ) -> None:
        need_root("giving files away")

        def change(root: Path) -> None:
            install_into(root)
            os.chown(root / "usr/share/tool/a", 33, 29)
            os.chown(root / "usr/bin/tool", 0, 33)
            (root / "usr/bin/tool").chmod(0o2755)

        captured(tmp_path / "a", change)
        one = carry(tmp_path / "a", base_root(tmp_path / "b"))
        passwd = (one / "etc/passwd").read_text().replace("www:x:33:33", "www:x:44:33")
        (one / "etc/passwd").write_text(passwd)
        apply(one, trusted=True)
        info = (one / "usr/share/tool/a").stat()
        assert (info.st_uid, info.st_gid) == (44, 29)
        assert (one / "usr/bin/tool").stat().st_mode & 0o7777 == 0o2755
        other = carry(tmp_path / "a", base_root(tmp_path / "c"))
        group = (other / "etc/group").read_text().replace("www:x:33:\n", "")
        (other / "etc/group").write_text(group)
        apply(other, trusted=True)
        info = (other / "usr/bin/tool").stat()
        assert (info.st_gid, info.st_mode & 0o7777) == (0, 0o755)


class TestRecord:
    def test_it_lies_beside_the_tree_and_says_what_is_in_place(self, target: Path) -> None:
        apply(target)
        record = read_record(target)
        assert record is not None
        assert (record.state.value, record.asked) == ("in place", ("tool",))
        assert state_place(target).stat().st_mode & 0o777 == 0o700

    def test_a_tree_that_is_none_says_what_is_wrong(self, target: Path) -> None:
        (place(target) / "layer.json").unlink()
        with pytest.raises(TreeUnreadable, match=r"layer\.json"):
            apply(target)

"""Trees of layers that no cachepod has made."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachepod.errors import CachepodError, NewerFormat, PlaceTaken, TreeUnreadable
from cachepod.system.accounts import check, ids_of, merge
from cachepod.system.layer import apply
from cachepod.system.metadata import Accounts, decode, digest_of
from cachepod.system.record import place
from tests.support.dpkg import base_root, captured, carry, content_of
from tests.support.mounts import bind, need_root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    captured(tmp_path / "source")
    return carry(tmp_path / "source", base_root(tmp_path / "target"))


def files(root: Path) -> Path:
    return place(root) / "files"


def rewrite(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = place(root) / "layer.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def refused(root: Path, why: str, kind: type[CachepodError] = TreeUnreadable) -> None:
    """Before anything was written."""
    before = content_of(root)
    with pytest.raises(kind, match=why):
        apply(root)
    assert content_of(root) == before


class TestPlaces:
    @pytest.mark.parametrize(
        "path",
        [
            *("proc/1/mem", "sys/x", "dev/sda", "run/x", "tmp/x", "etc/passwd", "etc/shadow"),
            *("etc/resolv.conf", "etc/hosts", "var/lib/cachepod/x", "var/lib/dpkg/lock"),
            *("etc/group-", "etc/ld.so.cache"),
        ],
    )
    def test_where_no_layer_may_put_anything_none_does(self, target: Path, path: str) -> None:
        (files(target) / path).parent.mkdir(parents=True, exist_ok=True)
        (files(target) / path).write_text("x")
        refused(target, "no layer of apt packages may put anything there")

    def test_a_link_of_the_root_is_not_followed(self, target: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (target / "opt").symlink_to(outside)
        (files(target) / "opt/x").mkdir(parents=True)
        refused(target, "opt is a symbolic link here", PlaceTaken)
        assert list(outside.iterdir()) == []

    def test_a_link_of_the_tree_is_copied_and_never_followed(
        self, target: Path, tmp_path: Path
    ) -> None:
        (files(target) / "usr/share/out").symlink_to(tmp_path)
        apply(target)
        assert (target / "usr/share/out").readlink() == tmp_path

    def test_the_trees_directory_of_files_may_be_no_link(
        self, target: Path, tmp_path: Path
    ) -> None:
        files(target).rename(tmp_path / "elsewhere")
        files(target).symlink_to(tmp_path / "elsewhere")
        refused(target, "it is no directory")

    def test_pipes_are_no_part_of_a_layer(self, target: Path) -> None:
        os.mkfifo(files(target) / "usr/bin/pipe")
        refused(target, "neither file, link nor directory")

    def test_a_file_where_the_root_has_a_directory_of_its_own_is_refused(
        self, target: Path
    ) -> None:
        (files(target) / "usr/lib").write_text("x")
        (target / "usr/lib/python3").mkdir(parents=True)
        with pytest.raises(PlaceTaken, match="with files of its own"):
            apply(target)
        assert (target / "usr/lib/python3").is_dir()

    def test_a_directory_where_the_root_has_a_file_is_refused(self, target: Path) -> None:
        (files(target) / "usr/bin/base2").mkdir()
        (target / "usr/bin/base2").write_text("mine")
        with pytest.raises(PlaceTaken, match="no directory here"):
            apply(target)
        assert (target / "usr/bin/base2").read_text() == "mine"

    @pytest.mark.root
    def test_nothing_is_written_to_another_file_system(self, target: Path, tmp_path: Path) -> None:
        need_root()
        (tmp_path / "volume").mkdir()
        with bind(tmp_path / "volume", target / "usr/share"):
            refused(target, "something else is mounted there", PlaceTaken)
        assert list((tmp_path / "volume").iterdir()) == []

    @pytest.mark.root
    def test_nor_over_a_file_that_is_mounted(self, target: Path, tmp_path: Path) -> None:
        need_root()
        (tmp_path / "library").write_text("the host's\n")
        with bind(tmp_path / "library", target / "usr/bin/base"):
            refused(target, "something else is mounted there", PlaceTaken)

    @pytest.mark.parametrize("where", ["removed", "owners", "modes", "capabilities", "changed"])
    @pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a//b", "a/./b", "a\0b"])
    def test_no_path_of_the_description_climbs(self, target: Path, where: str, path: str) -> None:
        values = {"owners": "root root", "modes": "4755", "capabilities": "00", "changed": "link:x"}

        def change(document: dict[str, Any]) -> None:
            if where == "removed":
                document["removed"].append(path)
            else:
                document[where][path] = values[where]

        rewrite(target, change)
        refused(target, "is no path below the root")

    @pytest.mark.parametrize("path", ["etc/passwd", "var/lib/cachepod/system", "dev/null"])
    def test_nothing_is_removed_that_no_layer_may_touch(self, target: Path, path: str) -> None:
        rewrite(target, lambda document: document["removed"].append(path))
        refused(target, "no layer")


class TestDescription:
    @pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": true}', "[" * 100_000])
    def test_what_is_none_is_refused(self, target: Path, text: str) -> None:
        (place(target) / "layer.json").write_text(text)
        refused(target, r"layer\.json")

    def test_a_later_one_is_a_miss(self, target: Path) -> None:
        rewrite(target, lambda document: document.update(format=99))
        with pytest.raises(NewerFormat) as caught:
            apply(target)
        assert caught.value.exit_code == 3

    def test_one_whose_base_is_not_what_it_says_is_refused(self, target: Path) -> None:
        rewrite(target, lambda document: document["packages"].update({"more:amd64": "1"}))
        refused(target, "its base is not what its packages say")

    def test_one_that_is_a_link_or_a_pipe_is_refused(self, target: Path, tmp_path: Path) -> None:
        path = place(target) / "layer.json"
        path.rename(tmp_path / "layer.json")
        path.symlink_to(tmp_path / "layer.json")
        refused(target, "symbolic links")
        path.unlink()
        os.mkfifo(path)
        refused(target, "it describes no layer")

    def test_one_without_dpkgs_database_is_refused(self, target: Path) -> None:
        (files(target) / "var/lib/dpkg/status").unlink()
        refused(target, "no database of dpkg")

    @given(st.data())
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_other_value_in_any_place_is_refused_or_read(
        self, tmp_path: Path, data: st.DataObject
    ) -> None:
        if not place(tmp_path / "source").exists():
            captured(tmp_path / "source")
        document = json.loads((place(tmp_path / "source") / "layer.json").read_text())
        name = data.draw(st.sampled_from(sorted(document)))
        value = data.draw(
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=2)
                    | st.dictionaries(st.text(max_size=3), inner, max_size=2)
                ),
                max_leaves=4,
            )
        )
        changed = copy.deepcopy(document)
        changed[name] = value
        try:
            layer = decode(json.dumps(changed).encode(), "layer.json")
        except CachepodError:
            return
        again = decode(layer.encode(), "layer.json")
        assert again == layer
        assert digest_of(again.encode()) == digest_of(layer.encode())


class TestAccounts:
    @pytest.mark.parametrize(
        ("file", "line"),
        [
            ("passwd", "evil:x:0:0::/:/bin/sh"),
            ("group", "evil:x:0:"),
            ("passwd", "a:x:5:5::/:/bin/sh\nevil:x:0:0::/:/bin/sh"),
            ("passwd", "a:x:five:5::/:/bin/sh"),
            ("passwd", "a:x:5:5"),
            ("passwd", ":x:5:5::/:/bin/sh"),
            ("passwd", "+nis:x:5:5::/:/bin/sh"),
            ("group", "a,b:x:5:"),
            ("sudoers", "evil ALL=(ALL) NOPASSWD: ALL"),
        ],
    )
    def test_a_line_that_is_none_or_another_root_is_refused(
        self, target: Path, file: str, line: str
    ) -> None:
        rewrite(target, lambda document: document["accounts"]["lines"].update({file: [line]}))
        refused(target, "is no line of|would be another root|holds no accounts")

    def test_nobody_gets_a_password_by_a_stranger(self) -> None:
        accounts = Accounts(
            {
                "passwd": ("a:$6$x:5:5::/:/bin/sh",),
                "shadow": ("a::19000::::::", "b:$6$x:19000::::::"),
                "group": ("a:secret:5:",),
            }
        )
        check(accounts, trusted=False)
        current = {"passwd": "", "group": "", "shadow": "root:*:1::::::\n"}
        texts, _ = merge(current, accounts, trusted=False)
        assert texts["passwd"] == "a:x:5:5::/:/bin/sh\n"
        assert texts["shadow"] == "root:*:1::::::\na:!:19000::::::\nb:!:19000::::::\n"
        assert texts["group"] == "a:x:5:\n"

    IDS = st.integers(1, 70_000)
    USERS = st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), IDS, max_size=6)

    @given(here=USERS, new=USERS)
    def test_nobody_loses_an_id_and_no_two_new_ones_share_one(
        self, here: dict[str, int], new: dict[str, int]
    ) -> None:
        def passwd(users: dict[str, int]) -> list[str]:
            return [f"{name}:x:{number}:{number}::/:/bin/sh" for name, number in users.items()]

        def group(users: dict[str, int]) -> list[str]:
            return [f"{name}:x:{number}:" for name, number in users.items()]

        current = {
            "passwd": "".join(f"{line}\n" for line in passwd(here)),
            "group": "".join(f"{line}\n" for line in group(here)),
        }
        lines = {"passwd": tuple(passwd(new)), "group": tuple(group(new))}
        accounts = Accounts(lines, {name: name for name in new})
        texts, _ = merge(current, accounts, trusted=False)
        users = ids_of(texts.get("passwd", current["passwd"]))
        groups = ids_of(texts.get("group", current["group"]))
        assert {name: users[name] for name in here} == here
        assert users.keys() == here.keys() | new.keys() == groups.keys()
        added = [users[name] for name in new if name not in here]
        assert not set(added) & set(here.values())
        distinct = len({new[name] for name in new if name not in here})
        assert len(set(added)) >= distinct
        for name in new.keys() - here.keys():
            line = next(
                line for line in texts["passwd"].splitlines() if line.startswith(f"{name}:")
            )
            assert int(line.split(":")[3]) == groups[name]
        again, notes = merge({**current, **texts}, accounts, trusted=False)
        assert (again, notes) == ({}, [])

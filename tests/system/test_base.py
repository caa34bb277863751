"""The image below a layer, and what dpkg has installed in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.system.base import (
    Base,
    base_from,
    base_of,
    difference,
    distribution,
    parse_status,
)
from cachepod.system.layer import missing
from cachepod.system.record import Progressed, Record, read_record, state_place, write_record
from tests.support.dpkg import database, lay, stanza

NAMES = st.from_regex(r"[a-z0-9][a-z0-9+.\-]{1,8}:(amd64|all)", fullmatch=True)
PACKAGES = st.dictionaries(NAMES, st.from_regex(r"[0-9][0-9.:~+\-]{0,5}", fullmatch=True))


class TestDistribution:
    def test_its_name_and_release_come_from_os_release(self, tmp_path: Path) -> None:
        lay(tmp_path, {"etc/os-release": 'NAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\n'})
        assert distribution(tmp_path) == "ubuntu 22.04"

    def test_the_vendor_s_file_counts_where_the_administrator_s_is_missing(
        self, tmp_path: Path
    ) -> None:
        lay(tmp_path, {"usr/lib/os-release": "ID=arch\n"})
        assert distribution(tmp_path) == "arch"
        assert distribution(tmp_path / "nowhere") == "unknown"


class TestBase:
    @given(PACKAGES)
    def test_what_is_read_from_a_database_is_what_was_written_to_it(
        self, packages: dict[str, str]
    ) -> None:
        text = database(packages)
        assert parse_status(text.encode()).versions == packages

    @given(PACKAGES, PACKAGES)
    def test_bases_have_one_digest_exactly_if_they_have_the_same_packages(
        self, one: dict[str, str], other: dict[str, str]
    ) -> None:
        same = base_from("debian 12", one).digest == base_from("debian 12", other).digest
        assert same == (one == other)
        assert bool(difference(one, other)) == (one != other)

    def test_another_release_is_another_base(self) -> None:
        packages = {"dpkg:amd64": "1"}
        one, other = base_from("debian 12", packages), base_from("debian 13", packages)
        assert one.digest != other.digest
        assert one == Base("debian 12", "amd64", one.digest, 1)
        assert len(one.digest) == 16

    def test_a_system_without_dpkg_has_no_base(self, tmp_path: Path) -> None:
        assert base_of(tmp_path) is None

    def test_what_was_removed_and_left_its_configuration_is_not_installed(
        self, tmp_path: Path
    ) -> None:
        status = stanza("dpkg", "1") + stanza("old", "1", status="deinstall ok config-files")
        lay(tmp_path, {"var/lib/dpkg/status": status})
        found = base_of(tmp_path)
        assert found is not None
        assert found.packages == 1

    def test_it_stays_what_it_was_before_the_layer(self, tmp_path: Path) -> None:
        lay(tmp_path, {"var/lib/dpkg/status": database({"dpkg:amd64": "1"})})
        before = base_of(tmp_path)
        record = Record(Progressed.INSTALLING, before, asked=("ffmpeg",))
        write_record(tmp_path, record)
        assert read_record(tmp_path) == record
        lay(tmp_path, {"var/lib/dpkg/status": database({"dpkg:amd64": "1", "ffmpeg:amd64": "5"})})
        assert base_of(tmp_path) == before

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"state": "in place"}', "\xff"])
    def test_a_record_that_makes_no_sense_is_none(self, tmp_path: Path, text: str) -> None:
        lay(tmp_path, {"var/lib/dpkg/status": database({"dpkg:amd64": "1"})})
        before = base_of(tmp_path)
        place = state_place(tmp_path)
        place.mkdir(parents=True)
        (place / "record.json").write_text(text, "latin-1")
        assert read_record(tmp_path) is None
        assert base_of(tmp_path) == before

    def test_a_difference_names_some_packages_and_counts_the_rest(self) -> None:
        theirs = {f"p{number}:all": "1" for number in range(6)}
        said = difference(theirs, {**dict(list(theirs.items())[1:]), "p1:all": "2"})
        assert said == "p0 is missing, p1 is 2 instead of 1"
        assert difference(theirs, {}).endswith("p2 is missing and 3 more differences")


class TestMissing:
    def test_only_what_dpkg_has_configured_counts(self, tmp_path: Path) -> None:
        status = (
            stanza("git", "1:2.39")
            + stanza("half", "1", status="install ok half-configured")
            + stanza("waiting", "1", status="install ok triggers-awaited")
            + stanza("mawk", "1", provides="awk, other (= 2)")
        )
        lay(tmp_path, {"var/lib/dpkg/status": status})
        asked = ["git", "git:amd64", "git:arm64", "half", "waiting", "awk", "other", "none"]
        assert missing(asked, tmp_path) == ["git:arm64", "half", "none"]
        assert missing(["git=1:2.39", "git=2", "git/bookworm"], tmp_path) == ["git=2"]

    def test_without_dpkg_everything_is_missing(self, tmp_path: Path) -> None:
        assert missing(["git"], tmp_path) == ["git"]

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachepod.errors import UsageProblem
from cachepod.stores.places import apart_from, check_apart


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "up").symlink_to("..")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "other",
    [
        *("store", "store/", "./store//", "{here}/store", "file://{here}/store/"),
        *("link", "deep/up/store", "deep/../store", "file://{here}/link", "file://{here}/%73tore"),
    ],
)
def test_one_directory_in_two_ways_is_one_store(here: Path, other: str) -> None:
    with pytest.raises(UsageProblem, match="store") as caught:
        check_apart(["store", other.format(here=here)], {})
    assert caught.value.exit_code == 2


def test_a_directory_that_is_not_there_yet_is_known_by_its_path(here: Path) -> None:
    with pytest.raises(UsageProblem):
        check_apart(["new/a", "file:///" + str(here / "new" / "a").lstrip("/")], {})
    check_apart(["new/a", "new/b"], {})


def test_a_directory_reached_by_another_mount_is_one_store(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device and inode tell it; here two names, for a bind mount needs privileges."""
    (here / "other").mkdir()
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path: real(str(path).replace("other", "store")))
    with pytest.raises(UsageProblem):
        check_apart(["store", "other"], {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix/"),
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/a%62", "S3://bucket/ab"),
        (
            "s3://bucket/p?endpoint=https://HOST/",
            "s3://bucket/p?region=x&endpoint=https://host:443",
        ),
        ("s3://bucket/p?endpoint=http://host:80", "s3://bucket/p?endpoint=http://host&parallel=3"),
        ("s3://bucket/p", "s3://bucket/p?endpoint=https://configured"),
    ],
)
def test_one_bucket_and_prefix_in_two_ways_is_one_store(one: str, other: str) -> None:
    environ = {"AWS_ENDPOINT_URL": "https://configured"} if "configured" in other else {}
    with pytest.raises(UsageProblem):
        check_apart([one, other], environ)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://bucket/a", "s3://bucket/b"),
        ("s3://bucket/a", "s3://other/a"),
        ("s3://bucket/a", "s3://bucket/a?endpoint=https://elsewhere"),
        ("s3://b/a?endpoint=http://host:9000", "s3://b/a?endpoint=http://host:9001"),
        ("store", "s3://store"),
        ("store", "store/below"),
    ],
)
def test_other_places_are_other_stores(here: Path, one: str, other: str) -> None:
    check_apart([one, other], {})


def test_stores_can_be_told_from_others_however_they_are_written(here: Path) -> None:
    urls = ["store", "other", "s3://bucket/a"]
    assert apart_from(urls, [f"file://{here}/store/", "s3://bucket/a/"]) == [1]
    assert apart_from(urls, []) == [0, 1, 2]


def test_no_secret_of_a_url_is_repeated() -> None:
    with pytest.raises(UsageProblem) as caught:
        check_apart(["s3://id:secret@bucket/p?x=secret", "s3://bucket/p"], {})
    assert "secret" not in str(caught.value)

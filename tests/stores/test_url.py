from __future__ import annotations

from pathlib import Path

import pytest

from cachepod.errors import UsageProblem
from cachepod.stores import url as url_module
from cachepod.stores.base import WriteStore, put
from cachepod.stores.mounts import Mount
from cachepod.stores.url import default_store_url, directory_of, open_store


def test_a_directory_is_opened_and_nothing_made_before_the_first_write(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "a"))
    assert isinstance(store, WriteStore)
    assert store.url == str(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    put(store, "packs/x", b"1")
    assert (tmp_path / "a" / "packs" / "x").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("/vol/cachepod", "/vol/cachepod"),
        ("/vol//x/../cachepod/", "/vol/cachepod"),
        ("file:///vol/cachepod", "/vol/cachepod"),
        ("file://localhost/vol/cachepod", "/vol/cachepod"),
        ("FILE:///vol/a%20b%3F", "/vol/a b?"),
        ("/vol/a%20b?c#d", "/vol/a%20b?c#d"),
        ("/vol/été", "/vol/été"),
        ("~/store", "/home/me/store"),
    ],
)
def test_a_directory_may_be_written_in_several_ways(
    url: str, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert directory_of(url) == Path(directory)


def test_a_relative_directory_starts_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("store")
    monkeypatch.chdir("/")
    put(store, "packs/x", b"1")
    assert (tmp_path / "store" / "packs" / "x").exists()


@pytest.mark.parametrize(
    "url",
    [
        *("", "a\0b", "file:///a%00b", "http://host/dir", "ftp://x"),
        *("file://host/dir", "file://dir", "file:///dir?x=1", "file:///dir#x", "file://"),
    ],
)
def test_what_is_no_store_is_a_usage_problem_with_advice(url: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        open_store(url)
    assert caught.value.hint


def mounted(monkeypatch: pytest.MonkeyPatch, *points: str) -> None:
    table = tuple(Mount(point, "fuse", "mfs#host:9421", ("rw",)) for point in ("/", *points))
    monkeypatch.setattr(url_module, "mounts", lambda: table)


def test_a_mounted_volume_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"HOME": "/home/me"}
    mounted(monkeypatch, "/workspace")
    assert default_store_url(environ) == "/workspace/cachepod"
    mounted(monkeypatch, "/workspace", "/runpod-volume")
    assert default_store_url(environ) == "/runpod-volume/cachepod"


def test_a_directory_of_a_volumes_name_without_a_mount_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted(monkeypatch, "/workspace/data", "/runpod-volume2")
    assert default_store_url({"HOME": "/home/me"}) == "/home/me/.cache/cachepod/store"


def test_without_a_volume_the_users_cache_folder_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted(monkeypatch)
    both = {"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"}
    assert default_store_url(both) == "/cache/cachepod/store"
    relative = {"HOME": "/home/me", "XDG_CACHE_HOME": "cache"}
    assert default_store_url(relative) == "/home/me/.cache/cachepod/store"


def test_without_any_home_the_user_is_asked_to_name_a_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted(monkeypatch)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UsageProblem, match="no home directory") as caught:
        default_store_url({})
    assert "--store" in caught.value.hint

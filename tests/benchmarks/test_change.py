"""A configuration with one requirement changed differs in that one, however it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cold_warm import change
from benchmarks.cold_warm.change import DEFAULTS, Configuration
from benchmarks.cold_warm.store import OwnStore, below, own_stores
from cachepod.errors import UsageProblem
from cachepod.stores.base import put
from cachepod.stores.url import open_store
from tests.support.project import make_wheel

_HASH = " --hash=sha256:" + "0" * 64


def of(folder: Path, toml: str, wanted: str, **files: str) -> tuple[Configuration, Configuration]:
    """The configuration *toml* beside some *files*, and the same with *wanted*."""
    project, scratch = folder / "the project", folder / "the scratch"
    for made in (project, scratch):
        made.mkdir()
    for name, text in files.items():
        (project / name.replace("_", ".")).write_text(text)
    file = project / "cachepod.toml"
    file.write_text(toml)
    before = sorted(project.iterdir())
    also = {"CACHEPOD_PREFIX": str(folder / "env"), "CACHEPOD_STORE": str(folder / "store")}
    base = change.read(file, project, {}, also)
    changed = change.changed(base, file, project, wanted, scratch, {})
    assert sorted(project.iterdir()) == before, "nothing is written beside the user's files"
    assert all(each.stat().st_mode & 0o077 == 0 for each in scratch.iterdir())
    return base, changed


def difference(base: Configuration, changed: Configuration) -> dict[str, tuple[str, str]]:
    """Inputs of the key that differ."""
    ours, theirs = (each.identity.fingerprint.inputs for each in (base, changed))
    return {
        name: (ours.get(name, ""), theirs.get(name, ""))
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    }


_BETA = {"requirement:beta": ("==1.0", "==2.0")}


@pytest.mark.parametrize(
    ("toml", "files"),
    [
        ("packages = ['alpha==1.0', 'beta==1.0', \"gamma>=1; python_version > '3'\"]", {}),
        ("requirements = 'a.txt'", {"a_txt": "alpha==1.0\nBeta == 1.0\n"}),
        (
            "requirements = ['a.txt']\npackages = ['delta==1.0']",
            {"a_txt": "-r b.txt\n-c c.txt\nalpha==1.0\n", "b_txt": "beta==1.0", "c_txt": "eta<3"},
        ),
        (
            "requirements = ['a.txt']\nextra_index_urls = ['https://one.example/simple']",
            {
                "a_txt": "--index-url https://u:p@two.example/simple\n--pre\nbeta==1.0\n"
                "--no-binary gamma\n--only-binary delta\nalpha\n"
            },
        ),
        (
            "lock = 'a.lock'\npackages = ['alpha']",
            {"a_lock": f"alpha==1.0 \\\n   {_HASH}\nbeta==1.0{_HASH}\n"},
        ),
        (
            "handler = 'storage'\npackages = ['beta==1.0']\n"
            "[handlers.storage]\nwithout = ['boto3']",
            {},
        ),
        ("handler = 'storage'\n[handlers.storage]\npackages = ['beta==1.0', 'gamma==1.0']", {}),
    ],
    ids=["packages", "file", "files", "options", "lock", "handler", "table"],
)
def test_only_the_one_requirement_differs(tmp_path: Path, toml: str, files: dict[str, str]) -> None:
    wanted = "beta==2.0" + (_HASH if "lock" in toml else "")
    base, changed = of(tmp_path, toml, wanted, **files)
    found = difference(base, changed)
    if "lock" in toml:
        assert list(found) == ["requirement:beta"]
        assert found["requirement:beta"][1].startswith("==2.0 sha256:")
    else:
        assert found == _BETA
    assert changed.change.startswith("beta==2.0 instead of ==1.0")


def test_a_local_wheel_stays_what_it_is(tmp_path: Path) -> None:
    make_wheel(tmp_path / "the project" / "wheels", "alpha", "1.0")
    (tmp_path / "the scratch").mkdir()
    project = tmp_path / "the project"
    file = project / "cachepod.toml"
    file.write_text("packages = ['./wheels/alpha-1.0-py3-none-any.whl']\nfind_links = ['wheels']\n")
    also = {"CACHEPOD_PREFIX": str(tmp_path / "env"), "CACHEPOD_STORE": str(tmp_path / "store")}
    base = change.read(file, project, {}, also)
    changed = change.changed(base, file, project, "beta == 2.0", tmp_path / "the scratch", {})
    assert difference(base, changed) == {"requirement:beta": ("", "==2.0")}
    assert changed.change == "beta==2.0 added"


def test_without_a_wish_something_is_added_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (each.partition(" ")[0] for each in DEFAULTS)
    _, changed = of(tmp_path / "a", "packages = ['alpha']", "")
    assert changed.change == f"{first} added"
    base, changed = of(tmp_path / "b", "lock = 'a.lock'", "", a_lock=DEFAULTS[0] + "\n")
    assert changed.change == f"{second} added"
    assert list(difference(base, changed)) == ["requirement:toolz"]


def test_a_lock_with_hashes_asks_for_a_hash(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="the changed one needs its own") as caught:
        of(tmp_path, "lock = 'a.lock'", "beta==2.0", a_lock=f"alpha==1.0{_HASH}\n")
    assert "--hash=sha256:" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("/volume/store", "/volume/store/own"),
        ("/volume/store/", "/volume/store/own"),
        ("file:///volume/a%20b", "/volume/a b/own"),
        ("s3://bucket", "s3://bucket/own"),
        ("s3://bucket/a/?region=x", "s3://bucket/a/own?region=x"),
    ],
)
def test_the_own_store_lies_below_the_one_that_is_named(url: str, inside: str) -> None:
    assert below(url, "own") == inside


def test_what_was_there_before_survives_the_roll_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    put(store, "packs/aa/" + "a" * 32, b"first")
    own = OwnStore(str(tmp_path / "store"))
    before = own.objects()
    put(store, "packs/bb/" + "b" * 32, b"second")
    put(store, "manifests/f/k", b"third")
    assert own.published
    assert own.stored() == 16
    own.roll_back(before)
    assert list(own.objects()) == ["packs/aa/" + "a" * 32]
    assert not own.published


def test_directories_that_were_made_go_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with own_stores(str(tmp_path / "there" / "new" / "store"), "own") as url:
        own = OwnStore(below(url, "1"))
        own.check()
        assert Path(url, "1", "cachepod.json").is_file()
        own.remove()
    assert list((tmp_path / "there").iterdir()) == []
    with own_stores(str(tmp_path / "there" / "new"), "own") as url:
        OwnStore(below(url, "1")).check()
        (tmp_path / "there" / "new" / "theirs").write_text("x")
    assert (tmp_path / "there" / "new" / "theirs").exists()

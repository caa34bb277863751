"""Small files of this user: in a place of his own, one for each set of directories."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from cachepod.environment.private import private_file


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def test_it_lies_where_temporary_files_do(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (str(temporary), "", "/nowhere/at/all"):
        monkeypatch.setenv("TMPDIR", given)
        monkeypatch.setattr(tempfile, "tempdir", None)
        file = private_file("install", [Path("/x")], ".lock")
        assert file.parent.parent == Path(tempfile.gettempdir())
        assert file.parent.name == f"cachepod-{os.getuid()}"


def test_nobody_else_may_look_into_it() -> None:
    file = private_file("install", [Path("/x")], ".lock")
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_the_same_directories_by_another_way_have_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    one = private_file("build", [tmp_path / "real", tmp_path / "b"], ".json")
    assert private_file("build", [tmp_path / "b", tmp_path / "link"], ".json") == one
    assert private_file("build", [tmp_path / "b"], ".json") != one
    assert private_file("install", [tmp_path / "b"], ".json").name.startswith("install-")


def test_a_look_makes_nothing(temporary: Path) -> None:
    with pytest.raises(FileNotFoundError):
        private_file("build", [Path("/x")], ".json", create=False)
    assert not list(temporary.iterdir())

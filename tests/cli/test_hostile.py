"""A volume that lies: what it says never leads out of the tree, and install still works."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cachepod.model.tables import Encoding
from cachepod.stores.local import LocalStore
from tests.support.hostile import ROOT, Chunk, Forgery, directory, file, symlink
from tests.support.project import Project

KEY = "forged"
WORD = b"owned\n"


def content(row: int) -> Chunk:
    """WORD as the content of *row*."""
    return Chunk(WORD, [(row, 0, len(WORD), 0)], encoding=Encoding.RAW)


FORGERIES = {
    "a way up": Forgery([ROOT, file(b"../../escaped", len(WORD))], [content(1)]),
    "dots": Forgery([ROOT, directory(b".."), file(b"escaped", len(WORD), 1)], [content(2)]),
    "an absolute path": Forgery([ROOT, file(b"/tmp/cachepod-escaped", len(WORD))], [content(1)]),
    "a path through a symlink": Forgery(
        [ROOT, symlink(b"link"), file(b"escaped", len(WORD), 1)], [content(2)], [b".."]
    ),
    "a file of an exabyte": Forgery([ROOT, file(b"big", 1 << 60)]),
    "a file of more than it has": Forgery(
        [ROOT, file(b"big", 1 << 50)], [Chunk(WORD, [(1, 0, 1 << 20, 0)], encoding=Encoding.RAW)]
    ),
}


def arguments(project: Project) -> tuple[str, ...]:
    return ("--tree", f"data={project.root / 'inside' / 'data'}", "--key", KEY, "--store", "store")


@pytest.fixture
def bare(project: Project) -> Project:
    """A project without a configuration: trees alone."""
    (project.root / "cachepod.toml").unlink()
    return project


@pytest.mark.parametrize("what", list(FORGERIES))
def test_a_forged_manifest_is_damage_and_writes_nothing(bare: Project, what: str) -> None:
    FORGERIES[what].store(LocalStore(bare.store), KEY)
    before = {path for path in bare.root.rglob("*") if bare.store not in path.parents}
    result = bare.run("restore", "--json", *arguments(bare))
    assert result.code == 6, result
    assert result.json["outcome"] == "damaged"
    assert "Traceback" not in result.err
    assert "unexpected" not in result.err
    after = {path for path in bare.root.rglob("*") if bare.store not in path.parents}
    assert {path for path in after - before if not path.is_dir()} == set()
    assert not Path("/tmp/cachepod-escaped").exists()
    assert not bare.manifests(), "it is set aside"
    assert bare.run("install", *arguments(bare)).code == 0


def test_a_set_uid_bit_is_dropped(bare: Project) -> None:
    Forgery([ROOT, file(b"sh", len(WORD), mode=0o6755)], [content(1)]).store(
        LocalStore(bare.store), KEY
    )
    assert bare.run("restore", *arguments(bare)).code == 0
    restored = bare.root / "inside/data/sh"
    assert restored.read_bytes() == WORD
    assert stat.S_IMODE(restored.stat().st_mode) == 0o755


def test_a_name_that_steers_a_terminal_is_shown_escaped(bare: Project) -> None:
    forged = Forgery([ROOT, file(b"a\x1b[2Jb", len(WORD))], [content(1)])
    forged.store(LocalStore(bare.store), KEY)
    Forgery([ROOT, file(b"other", len(WORD))], [content(1)]).store(LocalStore(bare.store), "plain")
    result = bare.run("diff", "plain", KEY, "--store", "store")
    assert result.code == 0
    assert "a\\x1b[2Jb" in result.out
    assert "\x1b" not in result.out + result.err

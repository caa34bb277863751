"""Peers: each brings back what it stored, and the tables say what became of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.ground import DirectoryGround, forget, open_ground
from benchmarks.measure import Cost
from benchmarks.peers import draw, places, rounds
from benchmarks.peers.archives import Cachepod, Squashfs, Tar
from benchmarks.peers.change import Change, NothingToChange
from benchmarks.peers.copies import Copy, Rsync, VolumeCache
from benchmarks.peers.peer import Peer, Programs, Settings, Where
from benchmarks.peers.places import Place
from benchmarks.peers.roster import PEERS
from benchmarks.peers.rounds import TARGET, Source, import_command
from benchmarks.peers.rows import Found, Row
from benchmarks.peers.tables import tables
from benchmarks.results import Results, begin
from tests.support import moosefs, trees
from tests.support.trees import Directory, File, Link, Same

ROOT = Path(__file__).resolve().parents[2]
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
RECORD = "demo/__init__.py,,\ndemo/big.bin,,\ndemo-1.0.dist-info/METADATA,,\n"
SITE = Directory(
    {
        b"demo": Directory(
            {
                b"__init__.py": File(b"VALUE = 7\n", mode=0o444),
                b"big.bin": File(bytes(range(256)) * 2000),
                b"empty": Directory(),
            }
        ),
        b"demo-1.0.dist-info": Directory(
            {
                b"METADATA": File(b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"),
                b"RECORD": File(RECORD.encode()),
            }
        ),
    }
)
ENVIRONMENT = Directory(
    {
        b"bin": Directory(
            {
                b"python": Link(os.fsencode(sys.executable)),
                b"tool": File(b"#!/bin/sh\n", mode=0o755),
                b"same": Same(b"bin/tool"),
            }
        ),
        b"lib": Directory({VERSION.encode(): Directory({b"site-packages": SITE})}),
        b"lib64": Link(b"lib"),
        b"pyvenv.cfg": File(f"home = {Path(sys.executable).resolve().parent}\n".encode()),
    }
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small environment, with whatever a real one has."""
    return trees.make(tmp_path / "env", ENVIRONMENT)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of a run that restores to a directory."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "ground").mkdir()
    programs = Programs(tmp_path / "programs")
    return Settings(tmp_path / "ground" / "run" / TARGET, tmp_path / "scratch", programs)


@contextmanager
def source(
    place: Place, kinds: Sequence[type[Peer]], settings: Settings, tree: Path, **more: Any
) -> Iterator[Source]:
    """*kinds* of peers at *place*, on plain directories; the page cache of the machine is kept."""
    ground = DirectoryGround(settings.target.parents[1])
    made = [kind(settings) for kind in kinds]
    yield Source(place, ground, made, settings, tree, save=lambda: None, keep_cache=True, **more)


def skip_missing(peer: Peer) -> None:
    if reason := peer.missing():
        pytest.skip(reason)


def comparable(root: Path) -> dict[bytes, trees.Seen]:
    """Everything of a tree, in whole seconds; hard links are files, for not all peers keep them."""
    return {
        path: replace(it, same=b"", mtime=it.mtime // 10**9)
        for path, it in trees.look(root).items()
    }


@pytest.mark.parametrize("kind", [Cachepod, Tar, Squashfs, Copy, Rsync])
def test_a_peer_brings_back_everything_that_it_stored(
    kind: type[Peer], tree: Path, settings: Settings, tmp_path: Path
) -> None:
    peer = kind(settings)
    skip_missing(peer)
    settings.target.parent.mkdir()
    (tmp_path / "kept").mkdir()
    where = places.Directory(tmp_path / "kept").new("peer")
    peer.prepare(tree, where)
    command = peer.restore(where, settings.target)
    assert command is not None
    measure.run(command, environ=peer.environ(where))
    assert comparable(settings.target) == comparable(tree)
    words = import_command(peer.python(where, settings.target), "demo", Path(sys.executable))
    assert words[0] == str(settings.target / "bin" / "python")
    measure.run([*words[:-1], f"{words[-1]}; assert demo.VALUE == 7"])


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.root
def test_volume_cache_brings_files_to_where_they_are_restored_to(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    skip_missing(VolumeCache(settings))
    with places.local(tmp_path) as place, source(place, [VolumeCache], settings, tree) as run:
        run.publishes(1, keep=True)
        run.restores(1, "demo")
        run.again(1, "")
    for rows in (run.found.publish, run.found.restore, run.found.again):
        assert [row.blank for row in rows] == [""]
        assert len(rows[0].seconds) == 1
    assert "symbolic links" in run.found.restore[0].note
    restored = comparable(settings.target.parents[1] / "used-2" / TARGET)
    files = {path for path, it in comparable(tree).items() if it.kind == "file"}
    assert {path for path in files if path not in restored} == {b"bin/same"}  # a hard link


def test_peers_have_names_of_their_own_and_say_how_they_are_set_up(settings: Settings) -> None:
    made = [kind(settings) for kind in PEERS]
    assert len({peer.name for peer in made}) == len(made)
    for peer in made:
        assert peer.set_up.endswith(".")
        assert peer.sources <= {"local", "moosefs", "s3"}
        assert not peer.leaves_out or peer.leaves_out.endswith(".")


def test_a_peer_whose_tool_is_missing_says_so_in_its_row(
    tree: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = measure.find_tool
    monkeypatch.setattr(measure, "find_tool", lambda name: None if name == "rsync" else find(name))
    with places.local(tmp_path) as place, source(place, [Copy, Rsync], settings, tree) as run:
        run.restores(1, "")
    assert [row.blank for row in run.found.restore] == ["", "no rsync here"]
    (table,) = [each for each in tables(samples(local=run.found)) if each.name == "restore-local"]
    assert table.rows[1][:2] == ["rsync -a", "no rsync here"]
    assert {len(row) for row in table.rows} == {len(table.headings)}


class Recorded(Copy):
    """A copy that says how often it was asked to make one."""

    name = "recorded"
    prepared = 0

    def prepare(self, tree: Path, where: Where) -> None:
        """Counted."""
        type(self).prepared += 1
        super().prepare(tree, where)


class Fallible(Recorded):
    """A copy that is lost after the first restore."""

    name = "fallible"
    shares = "what is lost"

    def restore(self, where: Where, target: Path) -> list[str]:
        """Once."""
        command = super().restore(where, target)
        return measure.pipeline('cp -a "$1" "$2" && rm -r "$1"', *command[2:])


class Careless(Copy):
    """A copy that loses a file."""

    name = "careless"

    def restore(self, where: Where, target: Path) -> list[str]:
        """All but one."""
        command = super().restore(where, target)
        lost = f"lib/{VERSION}/site-packages/demo/big.bin"
        return measure.pipeline(f'cp -a "$1" "$2" && rm "$2/{lost}"', *command[2:])


class InPlace(Copy):
    """A copy that is used where it is."""

    name = "in place"

    def restore(self, where: Where, target: Path) -> None:
        """Nothing is copied."""

    def python(self, where: Where, target: Path) -> Path:
        """That of the copy."""
        return where.folder / "tree" / "bin" / "python"


def test_one_copy_serves_all_that_share_it_and_what_is_used_in_place_is_imported_from_there(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    Recorded.prepared = 0
    with (
        places.local(tmp_path) as place,
        source(place, [Recorded, Copy, InPlace], settings, tree) as run,
    ):
        run.restores(2, "demo")
        assert [path.name for path in Path(str(place.new("x").path)).parent.iterdir()].count(
            "x"
        ) == 1
    assert Recorded.prepared == 1
    recorded, copy, in_place = run.found.restore
    assert [len(row.imports) for row in (recorded, copy, in_place)] == [2, 2, 2]
    assert all(copy.seconds)
    assert in_place.seconds == [0.0, 0.0]
    assert in_place.totals == in_place.imports


def test_a_peer_that_fails_keeps_what_it_had_and_the_others_go_on(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    with places.local(tmp_path) as place, source(place, [Fallible, Copy], settings, tree) as run:
        run.restores(3, "")
    fallible, copy = run.found.restore
    assert len(fallible.seconds) == 1
    assert fallible.blank.startswith("failed: ")
    assert len(copy.seconds) == 3
    notes = tables(samples(local=run.found))[0].notes
    assert any(note.startswith("fallible: failed: ") for note in notes)


def test_a_peer_that_has_taken_long_enough_rests_and_its_note_says_so(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    with places.local(tmp_path) as place, source(place, [Copy, InPlace], settings, tree) as run:
        run.restores(3, "", enough=1e-9)
    copy, in_place = run.found.restore
    assert len(copy.seconds) == 1
    assert copy.note == "cp -a: 1 of 3 rounds, since it is slow."
    assert len(in_place.seconds) == 3


def test_what_a_peer_stored_before_it_rests_is_what_is_restored(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    with places.local(tmp_path) as place, source(place, [Copy], settings, tree) as run:
        run.publishes(3, keep=True, enough=1e-9)
        (stored,) = Path(place.folder).iterdir()  # type: ignore[attr-defined]
        run.restores(1, "")
        assert list(Path(place.folder).iterdir()) == [stored]  # type: ignore[attr-defined]
    assert len(run.found.publish[0].seconds) == 1
    assert run.found.publish[0].note == "cp -a: 1 of 3 rounds, since it is slow."
    assert run.found.restore[0].blank == ""


def test_what_a_peer_does_not_bring_back_is_counted(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    with places.local(tmp_path) as place, source(place, [Careless], settings, tree) as run:
        run.restores(1, "")
    expected = f"careless: 1 files and {256 * 2000} bytes are missing."
    assert [row.note for row in run.found.restore] == [expected]
    assert expected in tables(samples(local=run.found))[0].notes


def test_publishes_store_the_tree_and_then_only_what_changed(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    before = trees.look(tree)
    with (
        places.local(tmp_path) as place,
        source(place, [Cachepod, Rsync, Tar], settings, tree) as run,
    ):
        run.publishes(2, keep=True)
        run.again(2, "demo")
        assert len(list(Path(place.folder).iterdir())) == 3  # type: ignore[attr-defined]
    assert trees.look(tree) == before
    assert [len(row.seconds) for row in run.found.publish] == [2, 2, 2]
    assert all(stored > 0 for row in run.found.publish for stored in row.stored)
    assert [row.name for row in run.found.again] == ["cachepod", "rsync -a"]
    assert all(stored > 0 for stored in run.found.again[0].stored)
    assert run.found.again[1].stored != [0, 0]  # some bytes longer
    assert run.found.changed == "demo (1 MB)"
    assert not list(settings.scratch.iterdir())


def test_where_there_is_no_tree_to_change_the_rows_say_why_and_all_else_goes_on(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    class Full(Cachepod):
        def restore(self, where: Where, target: Path) -> list[str]:
            return measure.pipeline("echo the disk is full >&2; exit 7")

    with places.local(tmp_path) as place, source(place, [Full, Rsync], settings, tree) as run:
        run.publishes(1, keep=True)
        run.again(1, "demo")
    assert [row.blank for row in run.found.again] == ["failed: the disk is full"] * 2
    assert not any(row.ran for row in run.found.again)


def test_a_publish_to_the_disk_that_is_restored_to_gets_new_ground_as_a_restore_does(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    with (
        places.local(tmp_path) as place,
        source(place, [Copy], settings, tree, on_ground=True) as run,
    ):
        run.publishes(2, keep=True)
        assert not list(Path(place.folder).iterdir())  # type: ignore[attr-defined]
        run.restores(1, "")
    assert len(run.found.publish[0].seconds) == 2
    assert run.found.restore[0].note == ""
    assert len(run.found.restore[0].seconds) == 1


def test_a_tree_without_distributions_has_nothing_to_change(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    with places.local(tmp_path) as place, source(place, [Rsync], settings, tree) as run:
        skip_missing(run.peers[0])
        run.again(1, "absent")
    assert [row.blank for row in run.found.again] == ["no distribution absent"]


def test_a_change_writes_one_distribution_anew_each_time_otherwise(tree: Path) -> None:
    site = tree / "lib" / VERSION / "site-packages"
    other = (site / "demo-1.0.dist-info" / "RECORD").read_bytes()
    change = Change(tree)
    seen = set()
    for number in range(3):
        change.apply(number)
        seen.add((site / "demo" / "__init__.py").read_bytes())
    assert len(seen) == 3
    assert all(content.startswith(b"VALUE = 7\n") for content in seen)
    assert len({len(content) for content in seen}) == 1
    assert (site / "demo-1.0.dist-info" / "RECORD").read_bytes() == other
    with pytest.raises(NothingToChange, match="no distribution absent"):
        Change(tree, "absent")


# Sources


@pytest.mark.root
@pytest.mark.slow
def test_peers_restore_from_a_moosefs_that_is_mounted_anew(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    if reason := moosefs.unavailable():
        pytest.skip(reason)
    kinds = [Cachepod, Tar, Copy, InPlace]
    with places.moosefs_volume(tmp_path) as place, source(place, kinds, settings, tree) as run:
        run.publishes(1, keep=True)
        before = mount_of(run)
        run.restores(1, "demo")
        assert mount_of(run) != before
        run.again(1, "demo")
        place.move_away(latency=0.002, rate=50e6)
        away = run.moved(["cachepod", "in place"], save=lambda: None)
        away.restores(1, "demo")
    found = run.found
    assert [row.blank for row in (*found.restore, *found.publish, *found.again)] == [""] * 9
    assert [row.note for row in found.restore] == [""] * 4
    assert [row.blank for row in away.found.restore] == [""] * 2
    assert "2 ms a round trip at 50 MB/s" in away.found.kind
    assert place.versions()["moosefs"][0].isdigit()
    assert not [path for path in tmp_path.iterdir() if "moosefs" in path.name]


def mount_of(run: Source) -> int:
    """The process that serves the mount of the source."""
    cluster: moosefs.Cluster = run.place._cluster  # type: ignore[attr-defined]
    return cluster.mounts["volume"].pid


def test_cachepod_publishes_to_s3_and_restores_from_there(
    tree: Path, settings: Settings, tmp_path: Path
) -> None:
    with places.bucket(tmp_path) as place, source(place, [Cachepod], settings, tree) as run:
        run.publishes(2, keep=True)
        run.restores(1, "demo")
        run.again(1, "demo")
    found = run.found
    assert [row.blank for row in (*found.restore, *found.publish, *found.again)] == [""] * 3
    assert found.publish[0].stored[0] > 0
    assert not found.synced
    assert not list(tmp_path.glob("cachepod-rclone-*"))


# Tables, pictures and the command


def samples(module: str = "", **sources: Found) -> dict[str, Any]:
    """As a run keeps them."""
    found = {name: each.as_json() for name, each in sources.items()}
    peers = {"cp -a": {"versions": "cp 9.1", "set_up": "Plain.", "why_ahead": "It does less."}}
    return json.loads(json.dumps({"module": module, "peers": peers, "sources": found}))


def a_row(name: str, *seconds: float, imports: float = 0.0) -> Row:
    row = Row(name)
    for each in seconds:
        row.add(
            Cost(each, 1.0, 0, 0, "", 5_000_000), Cost(imports, 1.0, 0, 0, "") if imports else None
        )
        row.stored.append(2_000_000)
    return row


def test_rows_are_ranked_by_restore_and_import_and_who_is_ahead_is_told() -> None:
    rows = [
        Row("borg", "no borg here"),
        a_row("slow", 9.0, 9.5, imports=1.0),
        a_row("cp -a", 2.0, 2.5, imports=1.0),
        a_row("cachepod", 2.0, 4.0, imports=1.0),
    ]
    found = Found(kind="a directory", cache="dropped", restore=rows)
    restore, peers = tables(samples("torch", local=found))
    names = [row[0] for row in restore.rows]
    assert names == ["cachepod", "cp -a (ahead)", "slow", "borg"]
    cells = dict(zip(restore.headings, restore.rows[2], strict=True))
    assert cells["restore s"] == "9.25"
    assert cells["import torch s"] == "1.00"
    assert cells["both s"] == "10.25"
    assert cells["resident MB"] == "5"
    assert restore.rows[2][3] == "3.08"  # of the restores
    assert cells["ratio"] == "2.56"  # of both
    ahead = "Ahead of cachepod here: cp -a (within the range of cachepod's)."
    assert restore.notes[1:] == [ahead, "It does less."]
    assert peers.rows == [["cp -a", "cp 9.1"]]


def test_why_several_peers_are_ahead_is_told_once() -> None:
    rows = [a_row("cp -a", 2.0), a_row("rsync -a", 2.0), a_row("cachepod", 3.0)]
    kept = samples(local=Found(kind="a directory", cache="dropped", restore=rows))
    kept["peers"]["rsync -a"] = kept["peers"]["cp -a"]
    assert tables(kept)[0].notes[1:] == [
        "Ahead of cachepod here: cp -a; rsync -a.",
        "It does less.",
    ]


def test_publishes_say_what_they_stored_and_that_a_sync_is_in_their_time() -> None:
    found = Found(publish=[a_row("cachepod", 3.0), a_row("cp -a", 6.0)], synced=True)
    (table, _) = tables(samples(local=found))
    assert table.name == "publish-local"
    assert [row[-1] for row in table.rows] == ["2.0", "2.0"]
    assert any("includes a sync" in note for note in table.notes)
    (table, _) = tables(samples(local=replace(found, synced=False)))
    assert not any("sync" in note for note in table.notes)


def test_a_source_that_cannot_be_had_says_why_in_its_table() -> None:
    (table, _) = tables(samples(moosefs=Found(missing="a MooseFS cluster needs root")))
    assert table.rows == [["all of them", "a MooseFS cluster needs root"]]


def test_what_was_found_is_the_same_after_reading_it_from_json() -> None:
    found = Found("a", "", "dropped", True, "x", [a_row("cachepod", 1.0)], [], [Row("b", "why")])
    assert Found.read(json.loads(json.dumps(found.as_json()))) == found


def test_the_picture_shows_both_parts_of_each_peer_by_source() -> None:
    pytest.importorskip("matplotlib")
    found = Found(restore=[a_row("cachepod", 2.0, imports=1.0), Row("borg", "no borg here")])
    made = replace(
        begin("benchmarks.peers", {}, {"size": "6 GB", "files": "3"}),
        samples=samples("torch", local=found, s3=found),
    )
    figure = draw(made)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["from a local directory", "from S3"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["3.0", "no borg here"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "restore",
        "import torch",
    ]


def test_one_command_measures_prints_and_draws_as_any_user(tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "volume").mkdir()
    (tmp_path / "work").mkdir()
    file, picture = tmp_path / "peers.json", tmp_path / "peers.svg"
    command = [
        *(sys.executable, "-m", "benchmarks.peers", "--plain", "--keep-cache", "--tree", str(tree)),
        *("--source", "local", "--volume", str(tmp_path / "volume"), "--side", "both"),
        *("--rounds", "2", "--publish-rounds", "1", "--import", "demo", "--change", "demo"),
        *("--only", "cachepod", "--only", "cp", "--scratch", str(tmp_path / "work")),
        *("--json", str(file), "--picture", str(picture)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = Results.read(file)
    assert [table.name for table in found.tables] == [
        *("restore-local", "publish-local", "again-local"),
        *("restore-volume", "publish-volume", "again-volume", "peers"),
    ]
    for table in found.tables:
        assert str(table) in done.stdout
    assert [row[0].split(" (")[0] for row in found.tables[0].rows] == ["cachepod", "cp -a"]
    assert picture.stat().st_size > 1000
    assert "--tree DIR" in found.command
    assert not list((tmp_path / "volume").iterdir())
    assert not list((tmp_path / "work").iterdir())


def test_a_directory_ground_makes_room_only_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 300
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 0, free))
    with open_ground(tmp_path, 100, plain=True) as ground:
        for _ in range(3):
            with ground.fresh() as place:
                (place / "file").touch()
        folder = place.parent
        assert sorted(path.name for path in folder.iterdir()) == ["used-1", "used-2", "used-3"]
        free = 150
        with ground.fresh():
            assert [path.name for path in folder.iterdir()] == ["run"]
    assert not list(tmp_path.iterdir())


def test_who_may_not_drop_the_page_cache_lets_it_forget_file_by_file(
    tree: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(rounds, "drop_caches", lambda: False)
    monkeypatch.setattr(rounds, "forget", asked.append)
    with places.local(tmp_path) as place, source(place, [Copy], settings, tree) as run:
        run.keep_cache = False
        run.publishes(1, keep=True)
        run.restores(1, "")
    assert asked[0] == tree
    assert asked[1].parent.parent == tmp_path  # where the copy lies
    assert run.found.cache == "forgotten file by file"


def test_what_is_forgotten_is_no_longer_in_memory(tmp_path: Path) -> None:
    program = shutil.which("fincore")
    if program is None:
        pytest.skip("no fincore here")
    (tmp_path / "link").symlink_to("/nowhere")
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    words = [program, "--bytes", "--noheadings", "--output", "RES", str(path)]
    if int(measure.run(words).output) == 0:
        pytest.skip("the page cache of this file system cannot be looked at")
    forget(tmp_path)
    assert int(measure.run(words).output) == 0

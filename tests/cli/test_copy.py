"""``cachepod copy``, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cachepod.stores.local import LocalStore
from tests.support.cli import environment, wait_until
from tests.support.keys import secret_file
from tests.support.mounts import tmpfs
from tests.support.project import Project
from tests.support.snapshots import fingerprint, publish_files

KEY = "model-1"


@pytest.fixture
def project(project: Project) -> Project:
    """A project with the snapshot of a tree in ``store``."""
    files = {"weights": os.urandom(300_000), "readme": b"text"}
    publish_files(LocalStore(project.store), fingerprint(), files, key=KEY, tree="model")
    return project


def objects(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


def test_a_store_is_replicated_and_restored_from(project: Project) -> None:
    done = project.run("copy", "store", "other")
    assert done.code == 0, done.err
    assert done.out == f"{KEY}: copied\n"
    assert done.err.startswith(f"cachepod: copied 1 of 1 snapshot to {project.root}/other: ")
    assert "B/s)" in done.err
    assert objects(project.root / "other") == objects(project.store)
    shutil.rmtree(project.store)
    (project.root / "cachepod.toml").unlink()
    words = ("--tree", "model=model", "--key", KEY, "--store", "other")
    assert project.run("restore", *words).code == 0
    assert (project.root / "model" / "readme").read_text() == "text"


_SPIED = """
import sys
from cachepod.cli.main import main
from cachepod.stores import url
opened = url.open_store
def spy(*words, **options):
    print("opened direct:", options.get("direct"), file=sys.stderr)
    return opened(*words, **options)
url.open_store = spy
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "words", [("copy", "store", "other"), ("verify", "--repair-from", "other")]
)
@pytest.mark.parametrize("direct", ["true", "false"])
def test_every_store_of_a_command_is_opened_as_the_configuration_says(
    project: Project, words: tuple[str, ...], direct: str
) -> None:
    project.run("copy", "store", "other")
    done = subprocess.run(
        [sys.executable, "-c", _SPIED, *words],
        cwd=project.root,
        env=environment(project.root, {"CACHEPOD_DIRECT": direct}),
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("opened")]
    assert told == [f"opened direct: {direct == 'true'}"] * 2


def test_a_second_copy_says_that_nothing_was_missing(project: Project) -> None:
    project.run("copy", "store", "other")
    again = project.run("copy", "store", "other")
    assert again.code == 0
    assert again.out == ""
    assert "nothing was missing in" in again.err
    document = project.run("copy", "store", "other", "--json").json
    assert document["snapshots"][0]["outcome"] == "present"
    assert (document["packs"], document["size"], document["exit_code"]) == (0, 0, 0)
    assert document["there"] == sum(path.stat().st_size for path in project.packs())


def test_an_empty_store_has_nothing_to_copy(project: Project) -> None:
    done = project.run("copy", "empty", "other")
    assert done.code == 0
    assert "holds no snapshot" in done.err


def test_a_dry_run_moves_nothing_and_says_what_a_copy_moves(project: Project) -> None:
    planned = project.run("copy", "store", "other", "--dry-run", "--json").json
    assert not (project.root / "other").exists()
    done = project.run("copy", "store", "other", "--json").json
    assert planned["packs"] == done["packs"] > 0
    manifest = project.manifests()[0].stat().st_size
    assert planned["size"] + manifest == done["size"]


def test_another_snapshot_of_the_same_key_stays_and_is_told(project: Project) -> None:
    other = LocalStore(project.root / "other")
    publish_files(other, fingerprint(), {"weights": b"other"}, key=KEY, tree="model")
    before = objects(project.root / "other")
    done = project.run("copy", "store", "other")
    assert done.code == 0
    assert (
        done.out
        == f"{KEY}: another snapshot of this key is there and stays (--force replaces it)\n"
    )
    assert "copied 0 of 1 snapshot" in done.err
    assert objects(project.root / "other") == before
    assert project.run("copy", "store", "other", "--force").out == f"{KEY}: replaced\n"


def test_an_unknown_key_is_a_miss(project: Project) -> None:
    done = project.run("copy", "store", "other", "no-such-key")
    assert done.code == 3
    assert "no-such-key" in done.err
    assert "cachepod ls" in done.err
    assert not (project.root / "other").exists()
    assert project.run("copy", "store", "other", "../../x").code == 2


@pytest.mark.parametrize("other", ["store/", "file://{root}/store", "link", "./x/../store"])
def test_a_store_is_not_copied_onto_itself(project: Project, other: str) -> None:
    (project.root / "link").symlink_to("store")
    before = objects(project.store)
    done = project.run("copy", "store", other.format(root=project.root))
    assert done.code == 2
    assert "same store" in done.err or "given twice" in done.err
    assert objects(project.store) == before


def test_one_store_given_twice_is_refused_by_the_hook_as_well(project: Project) -> None:
    (project.root / "link").symlink_to("store")
    for command in ("restore", "publish", "ls", "verify"):
        done = project.run(command, "--store", "store", "--store", "link")
        assert done.code == 2, command
        assert "are the same store" in done.err


def test_damage_in_the_source_ends_with_six_and_is_not_copied(project: Project) -> None:
    pack = project.packs()[0]
    data = bytearray(pack.read_bytes())
    data[500] ^= 1
    pack.write_bytes(data)
    done = project.run("copy", "store", "other")
    assert done.code == 6
    assert "damaged in the source" in done.out
    assert pack.name in done.out
    assert not list((project.root / "other").glob("manifests/*/*"))
    assert project.run("copy", "store", "other", "--json").json["problems"][0]["keys"]


@pytest.mark.root
def test_a_full_destination_ends_with_seven_and_a_later_copy_goes_on(project: Project) -> None:
    with tmpfs(project.root / "small", 200_000):
        done = project.run("copy", "store", "small/other")
        assert done.code == 7, done.err
        left = objects(project.root / "small" / "other")
        assert not [name for name in left if name.startswith(("packs", "manifests", "pins"))]
    assert project.run("copy", "store", "small/other").code == 0


def test_a_destination_that_cannot_be_written_ends_with_five(project: Project) -> None:
    (project.root / "file").write_text("")
    done = project.run("copy", "store", "file")
    assert done.code == 5
    assert "Traceback" not in done.err


def test_a_service_that_is_down_ends_with_five(project: Project) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    bucket = "s3://bucket/x?endpoint=http://127.0.0.1:1&retries=0"
    for words in (("store", bucket), (bucket, "other")):
        done = project.run("copy", *words, env=keys)
        assert done.code == 5, done.err
        assert "127.0.0.1:1" in done.err
        assert "hunter2" not in done.err
        assert "Traceback" not in done.err


def test_a_copy_that_is_killed_goes_on_where_it_ended(project: Project) -> None:
    slow = project.root / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "from cachepod.snapshot import copy as module\n"
        "from cachepod.cli.main import main\n"
        "def commit(self, place): time.sleep(600)\n"
        "module._Copy._commit = commit\n"
        "main(['copy', 'store', 'other'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(slow)], cwd=project.root, env=environment(project.root)
    )
    other = project.root / "other"
    wait_until(lambda: len(list(other.glob("packs/*/[!.]*"))) == len(project.packs()))
    process.kill()
    process.wait()
    assert not list(other.glob("manifests/*/*"))
    document = project.run("copy", "store", "other", "--json").json
    assert document["packs"] == 0
    assert document["snapshots"][0]["outcome"] == "copied"


def test_with_a_key_only_what_is_signed_is_copied_and_it_stays_signed(project: Project) -> None:
    signed = {"CACHEPOD_SIGNING_KEY": str(secret_file(project.root / "key"))}
    (project.root / "cachepod.toml").unlink()
    (project.root / "data").mkdir()
    (project.root / "data" / "file").write_text("signed")
    words = ("--tree", "data=data", "--key", "data-1")
    assert project.run("publish", *words, "--store", "store", env=signed).code == 0
    done = project.run("copy", "store", "other", env=signed)
    assert done.code == 0, done.err
    assert "data-1: copied\n" in done.out
    assert f"{KEY}: not copied: the snapshot is not signed\n" in done.out
    named = project.run("copy", "store", "other", KEY, env=signed)
    assert named.code == 3
    assert "the snapshot is not signed" in named.err
    shutil.rmtree(project.root / "data")
    assert project.run("restore", *words, "--store", "other", env=signed).code == 0
    # Without a key, signed and unsigned ones are copied, byte for byte.
    assert project.run("copy", "store", "third").code == 0
    ours = objects(project.store)
    theirs = objects(project.root / "third")
    assert theirs == {name: data for name, data in ours.items() if not name.startswith("uses/")}


def test_an_unsigned_snapshot_in_the_destination_gives_way_to_a_signed_one(
    project: Project,
) -> None:
    signed = {"CACHEPOD_SIGNING_KEY": str(secret_file(project.root / "key"))}
    project.run("copy", "store", "other")
    (project.root / "cachepod.toml").unlink()
    words = ("--tree", "model=model", "--key", KEY)
    assert project.run("restore", *words, "--store", "store").code == 0
    assert project.run("publish", *words, "--store", "store", "--force", env=signed).code == 0
    assert "replaced" in project.run("copy", "store", "other", env=signed).out
    shutil.rmtree(project.root / "model")
    assert project.run("restore", *words, "--store", "other", env=signed).code == 0

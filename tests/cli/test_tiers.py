"""Several stores: publish to all, restore from any, and fill the nearer ones behind the worker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.snapshot.lease import Watch, beating, take
from cachepod.stores.local import LocalStore
from tests.support.cli import start, wait_until
from tests.support.imports import imported_by
from tests.support.project import Project
from tests.support.s3 import BUCKET, Server, moto_server
from tests.support.s3 import environment as s3_environment
from tests.support.snapshots import fingerprint, publish_files


class Tiers(Project):
    """A project whose stores are ``near`` and ``far``."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.near, self.far = root / "near", root / "far"
        # A machine of its own: what it remembers of fillers is nobody else's.
        (root / "tmp").mkdir()
        self.env = {"CACHEPOD_STORE": "near far", "TMPDIR": str(root / "tmp")}

    def objects(self, store: Path) -> dict[str, bytes]:
        """Manifests and packs of a store."""
        return {
            str(path.relative_to(store)): path.read_bytes()
            for kind in ("packs", "manifests")
            for path in (store / kind).rglob("*")
            if path.is_file()
        }

    def new_container(self) -> None:
        """An empty disk: no environment, nothing remembered."""
        self.wipe()
        shutil.rmtree(self.root / "tmp")
        (self.root / "tmp").mkdir()

    def lose_near(self) -> None:
        shutil.rmtree(self.near)

    def filled(self) -> None:
        """Wait until the near store has what the far one has, and the filler has gone."""
        wait_until(lambda: list(self.near.glob("manifests/*/*")), message=self.log())
        wait_until(lambda: not list(self.near.glob("leases/*/*")), message=self.log())
        assert self.objects(self.near) == self.objects(self.far)

    def log(self) -> str:
        """What fillers have said."""
        return "\n".join(path.read_text() for path in (self.root / "tmp").rglob("fill-*.log"))


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    return Tiers(tmp_path)


@pytest.fixture
def ready(tiers: Tiers) -> Tiers:
    """Both stores have the snapshot, and the container is a new one."""
    tiers.ready()
    tiers.new_container()
    return tiers


# Publishing


def test_a_publish_writes_the_nearest_and_replicates_to_the_others(tiers: Tiers) -> None:
    assert tiers.run("install").code == 0
    done = tiers.run("publish")
    assert done.code == 0, done.err
    assert f"stored in {tiers.near}" in done.err
    assert f"copied to {tiers.far}" in done.err
    assert tiers.objects(tiers.near) == tiers.objects(tiers.far)
    assert tiers.run("verify").code == 0


def test_a_publish_says_of_each_store_what_it_did(tiers: Tiers) -> None:
    tiers.run("install")
    document = tiers.run("publish", "--json").json
    assert [each["outcome"] for each in document["stores"]] == ["stored", "copied"]
    assert document["stores"][1]["size"] > 0
    document = tiers.run("publish", "--json").json
    assert [each["outcome"] for each in document["stores"]] == ["present"]


def test_what_another_has_published_to_one_store_is_copied_to_the_other(tiers: Tiers) -> None:
    tiers.ready("--store", "far")
    tiers.new_container()
    tiers.run("install")
    document = tiers.run("publish", "--json").json
    assert [each["outcome"] for each in document["stores"]] == ["copied", "present"]
    assert tiers.objects(tiers.near) == tiers.objects(tiers.far)


def test_a_farther_store_that_fails_costs_its_exit_code_and_the_near_one_is_written(
    tiers: Tiers,
) -> None:
    tiers.far.write_text("no directory")
    tiers.run("install")
    done = tiers.run("publish")
    assert done.code == 5
    assert str(tiers.far) in done.err
    assert f"cachepod copy {tiers.near} {tiers.far} " in done.err
    assert list(tiers.near.glob("manifests/*/*"))


def test_a_near_store_that_fails_keeps_nothing_from_the_farther_one(tiers: Tiers) -> None:
    tiers.near.write_text("no directory")
    tiers.run("install")
    assert tiers.run("publish").code == 5
    assert list(tiers.far.glob("manifests/*/*"))


def test_a_forced_publish_replaces_in_every_store(ready: Tiers) -> None:
    before = ready.objects(ready.far)
    ready.run("install")
    assert ready.run("publish", "--force").code == 0
    after = ready.objects(ready.far)
    assert ready.objects(ready.near) == after
    assert {name for name in after if name.startswith("manifests")} == {
        name for name in before if name.startswith("manifests")
    }
    assert after != before
    assert ready.run("verify").code == 0


# Restoring from a farther store


def test_a_hit_in_the_far_store_fills_the_near_one_behind_the_worker(ready: Tiers) -> None:
    ready.lose_near()
    restored = ready.run("restore")
    assert restored.code == 0, restored.err
    assert f"{ready.near} is being filled" in restored.err
    assert ready.version_of("alpha") == "1.0"
    ready.filled()
    assert ready.run("verify", "--store", "near").code == 0


def test_a_restore_ends_before_the_filling_does(ready: Tiers) -> None:
    """Somebody else seems to fill the store, so the filler waits; the worker does not."""
    ready.lose_near()
    store = LocalStore(ready.near)
    key = ready.run("key", "-q").out.strip()
    lease = take(store, f"fill.{key}", Watch(store, f"fill.{key}").look())
    assert lease is not None
    with beating(lease):
        document = ready.run("restore", "--json").json
        assert document["outcome"] == "restored"
        assert document["store"] == str(ready.far)
        assert document["filling"] == [str(ready.near)]
        published = ready.run("publish", "--json").json
        assert [each["outcome"] for each in published["stores"]] == ["filling", "present"]
        assert not list(ready.near.glob("manifests/*/*"))
    lease.release()
    ready.filled()


def test_the_filler_outlives_the_whole_hook_in_one_process(ready: Tiers) -> None:
    ready.lose_near()
    done = ready.run("up", "--", "true")
    assert done.code == 0, done.err
    ready.filled()


def test_filling_can_be_left_to_the_end_of_the_hook(ready: Tiers) -> None:
    ready.lose_near()
    assert ready.run("restore", "--fill", "after").code == 0
    assert not ready.near.exists()
    document = ready.run("publish", "--fill", "after", "--json").json
    assert [each["outcome"] for each in document["stores"]] == ["copied", "present"]
    assert ready.objects(ready.near) == ready.objects(ready.far)


def test_in_one_process_the_hook_fills_at_its_end_as_well(ready: Tiers) -> None:
    ready.lose_near()
    done = ready.run("up", "--fill", "after", "--", "true")
    assert done.code == 0, done.err
    assert f"copied to {ready.near}" in done.err
    assert ready.objects(ready.near) == ready.objects(ready.far)


def test_of_many_containers_one_fills(tmp_path: Path) -> None:
    """Five machines, each with a directory for temporary files of its own."""
    files = {"weights": os.urandom(3_000_000)}
    publish_files(LocalStore(tmp_path / "far"), fingerprint(), files, key="mine", tree="data")
    words = ("--key", "mine", "--store", "near", "--store", "far", "--config", "/dev/null")
    near = LocalStore(tmp_path / "near")
    lease = take(near, "fill.mine", Watch(near, "fill.mine").look())
    assert lease is not None
    machines = []
    with beating(lease):  # until all have restored, so that the near store has it for none of them
        for number in range(5):
            temporary = tmp_path / f"tmp-{number}"
            temporary.mkdir()
            tree = f"data={tmp_path / f'tree-{number}'}"
            env = {"TMPDIR": str(temporary)}
            machines.append(start("restore", "--tree", tree, *words, cwd=tmp_path, env=env))
        for machine in machines:
            machine.communicate()
            assert machine.returncode == 0
    lease.release()

    def said() -> list[str]:
        texts = [path.read_text() for path in tmp_path.glob("tmp-*/*/fill-*.log")]
        found = [text.split()[-1] for text in texts if text.strip()]
        return found if len(found) == 5 else []

    ends = wait_until(said, timeout=90)
    assert ends.count("filled") == 1
    assert set(ends) <= {"filled", "present", "busy"}


def test_filling_can_be_switched_off(ready: Tiers) -> None:
    ready.lose_near()
    ready.env["CACHEPOD_FILL"] = "off"
    restored = ready.run("restore", "--json").json
    assert "filling" not in restored
    document = ready.run("publish", "--json").json
    assert [each["outcome"] for each in document["stores"]] == ["absent", "present"]
    assert not ready.near.exists()


def test_a_publish_after_a_hit_asks_no_store_beyond_the_first_that_has_it(ready: Tiers) -> None:
    shutil.rmtree(ready.far)
    ready.far.write_text("no directory")
    assert ready.run("restore").code == 0
    document = ready.run("publish", "--json").json
    assert document["exit_code"] == 0
    assert [each["store"] for each in document["stores"]] == [str(ready.near)]


def test_a_near_store_that_does_not_answer_is_no_failure_after_a_hit_in_the_far_one(
    ready: Tiers,
) -> None:
    ready.lose_near()
    ready.near.write_text("no directory")
    assert ready.run("restore").code == 0
    published = ready.run("publish")
    assert published.code == 0
    assert f"present in {ready.far}" in published.err
    assert str(ready.near) in published.err


def test_a_publish_after_a_hit_in_the_far_store_imports_nothing_of_the_engine(
    ready: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.lose_near()
    assert ready.run("restore").code == 0
    for name, value in ready.env.items():
        monkeypatch.setenv(name, value)
    result, names = imported_by("publish", "--store", "near", "--store", "far", cwd=ready.root)
    assert result.code == 0, result.err
    assert not names & {"blake3", "zstandard", "boto3", "xxhash", "cachepod.snapshot.copy"}


def test_a_filler_is_given_no_secret_on_its_command_line(ready: Tiers) -> None:
    ready.lose_near()
    spy = ready.root / "spy"
    spy.mkdir()
    (spy / "sitecustomize.py").write_text(
        "import sys, pathlib\n"
        "if '--background' in sys.orig_argv:\n"
        f"    pathlib.Path({str(ready.root / 'argv')!r}).write_text('\\n'.join(sys.orig_argv))\n"
    )
    from tests.support.cli import ROOT

    ready.env["PYTHONPATH"] = f"{ROOT}:{spy}"
    ready.env["AWS_SECRET_ACCESS_KEY"] = "hunter2"
    assert ready.run("restore").code == 0
    ready.filled()
    words = (ready.root / "argv").read_text()
    assert "copy" in words.split("\n")
    assert "hunter2" not in words


# Damage


def damage(pack: Path) -> None:
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)


def test_damage_in_the_near_store_is_passed_over_and_healed(ready: Tiers) -> None:
    for pack in ready.near.glob("packs/*/*"):
        damage(pack)
    restored = ready.run("restore")
    assert restored.code == 0, restored.err
    assert "another store has it" in restored.err
    assert ready.version_of("alpha") == "1.0"
    wait_until(lambda: ready.objects(ready.near) == ready.objects(ready.far), message=ready.log())
    wait_until(lambda: not list(ready.near.glob("damaged/*")))


def test_a_damaged_manifest_in_the_near_store_is_set_aside_and_brought_again(
    ready: Tiers,
) -> None:
    damage(next(ready.near.glob("manifests/*/*")))
    assert ready.run("restore").code == 0
    ready.filled()


def test_damage_is_healed_by_the_end_of_the_hook_where_that_is_asked_for(ready: Tiers) -> None:
    ready.env["CACHEPOD_FILL"] = "after"
    for pack in ready.near.glob("packs/*/*"):
        damage(pack)
    assert ready.run("restore").code == 0
    assert ready.run("publish").code == 0
    assert ready.objects(ready.near) == ready.objects(ready.far)
    assert ready.run("verify").code == 0


def test_damage_in_both_stores_is_a_miss_that_the_hook_heals(ready: Tiers) -> None:
    for store in (ready.near, ready.far):
        for pack in store.glob("packs/*/*"):
            damage(pack)
    assert ready.run("restore").code == 6
    assert ready.run("install").code == 0
    assert ready.run("publish").code == 0
    assert ready.run("verify").code == 0


# With S3, and signed


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with moto_server() as found:
        found.client().create_bucket(Bucket=BUCKET)
        yield found


def test_a_bucket_as_the_far_store_is_published_to_restored_from_and_fills_the_near_one(
    tiers: Tiers, server: Server
) -> None:
    bucket = server.url("tiers")
    tiers.env.update(s3_environment(), CACHEPOD_STORE=f"near {bucket}")
    tiers.run("install")
    published = tiers.run("publish", "--json").json
    assert [each["outcome"] for each in published["stores"]] == ["stored", "copied"]
    before = tiers.objects(tiers.near)
    tiers.new_container()
    tiers.lose_near()
    restored = tiers.run("restore", "--json").json
    assert restored["outcome"] == "restored"
    assert restored["store"].startswith("s3://")
    wait_until(lambda: list(tiers.near.glob("manifests/*/[!.]*")), message=tiers.log())
    assert tiers.objects(tiers.near) == before
    assert tiers.run("verify", "--repair-from", bucket, "--store", "near").code == 0


def test_what_is_signed_stays_signed_in_every_store(tiers: Tiers) -> None:
    key = tiers.root / "key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    tiers.env["CACHEPOD_SIGNING_KEY"] = str(key)
    tiers.ready()
    assert tiers.objects(tiers.near) == tiers.objects(tiers.far)
    tiers.new_container()
    tiers.lose_near()
    assert tiers.run("restore").code == 0
    tiers.filled()
    tiers.new_container()
    restored = tiers.run("restore", "--json").json
    assert restored["store"] == str(tiers.near)


def test_an_unsigned_snapshot_in_the_near_store_makes_room_for_a_signed_one(
    tiers: Tiers,
) -> None:
    tiers.ready("--store", "near")
    tiers.new_container()
    key = tiers.root / "key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    tiers.env["CACHEPOD_SIGNING_KEY"] = str(key)
    tiers.ready("--store", "far")
    tiers.new_container()
    restored = tiers.run("restore", "--json").json
    assert restored["store"] == str(tiers.far)
    wait_until(
        lambda: tiers.objects(tiers.far).items() <= tiers.objects(tiers.near).items(),
        message=tiers.log(),
    )

"""The commands that look at snapshots: ls, show, diff, verify; and doctor and lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.cli import COMMAND, on_terminal
from tests.support.project import Project


@pytest.fixture
def two(project: Project) -> tuple[Project, str, str]:
    """A project with two snapshots, the second with a newer alpha and with beta."""
    first = project.ready()
    project.configure('["alpha==2.0", "beta"]', 'handler = "mine"\n[handlers.mine]')
    return project, first, project.ready()


def test_a_listing_shows_the_newest_first(two: tuple[Project, str, str]) -> None:
    project, first, second = two
    listed = project.run("ls")
    assert listed.code == 0
    header, *rows = listed.out.splitlines()
    assert header.split() == [
        "KEY", "CREATED", "HOLDS", "FILES", "SIZE", "STORED", "PYTHON", "TORCH",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == [second, first]
    assert rows[0].split()[3] == "env/mine"
    assert listed.err.startswith("cachepod: 2 snapshots in ")
    snapshots = project.run("ls", "--json").json["snapshots"]
    assert [each["key"] for each in snapshots] == [second, first]
    assert snapshots[0]["handler"] == "mine"
    assert snapshots[0]["files"] > 0
    assert snapshots[0]["store"] == str(project.store)


def test_a_listing_survives_what_cannot_be_read(two: tuple[Project, str, str]) -> None:
    project, first, second = two
    manifest = next(path for path in project.manifests() if path.name == first)
    os.truncate(manifest, 50)
    listed = project.run("ls")
    assert listed.code == 0
    assert second in listed.out
    assert first in listed.err
    assert first not in listed.out
    assert [each["key"] for each in project.run("ls", "--json").json["unreadable"]] == [first]


def test_a_snapshot_is_shown_with_its_parts(two: tuple[Project, str, str]) -> None:
    project, _, second = two
    shown = project.run("show", second)
    assert shown.code == 0
    for part in ("requirement:alpha", "TREE", "DISTRIBUTION", str(project.prefix)):
        assert part in shown.out
    document = project.run("show", "--json", second).json
    sizes = {each["name"]: each["size"] for each in document["distributions"]}
    assert sizes["alpha"] > 300_000
    assert 0 < sizes["beta"] < 10_000
    assert document["trees"][0]["size"] == document["size"]
    assert document["trees"][0]["files"] == document["files"]


@pytest.mark.parametrize("key", ["no-such-key", "cp310-linux_x86_64-nocuda-notorch-" + "0" * 16])
def test_a_key_that_is_not_there_is_a_miss(project: Project, key: str) -> None:
    for words in (["show", key], ["diff", key, key], ["verify", key]):
        result = project.run(*words)
        assert result.code == 3
        assert key in result.err
        assert result.out == ""
        assert project.run(*words, "--json").json["exit_code"] == 3


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "a b", ""])
def test_what_cannot_be_a_key_is_refused(project: Project, key: str) -> None:
    for words in (["show", key], ["diff", key, key], ["verify", key], ["key", "--against", key]):
        assert project.run(*words).code == 2


def test_a_diff_names_inputs_distributions_and_files(two: tuple[Project, str, str]) -> None:
    project, first, second = two
    result = project.run("diff", first, second)
    assert result.code == 0
    assert "requirement:beta" in result.out
    assert "env/" in result.out
    document = project.run("diff", "--json", first, second).json
    assert {"name": "alpha", "from": "1.0", "to": "2.0"} in document["distributions"]
    assert {"name": "beta", "from": None, "to": "1.0"} in document["distributions"]
    changed = {Path(each["path"]).name: each["what"] for each in document["files"]}
    assert changed["data.bin"] == "content"
    assert "hold the same" in project.run("diff", first, first).out


def test_verify_reads_everything_back(two: tuple[Project, str, str]) -> None:
    project, first, second = two
    result = project.run("verify", "--json")
    assert result.code == 0
    assert result.json["snapshots"] == 2
    assert result.json["problems"] == []
    stored = sum(path.stat().st_size for path in project.packs())
    assert result.json["size"] > stored * 0.9
    assert project.run("verify", first, second).err.startswith("cachepod: verified 2 snapshots: ")


def damage(pack: Path, at: int = 500) -> None:
    data = bytearray(pack.read_bytes())
    data[at] ^= 1
    pack.write_bytes(data)


def biggest(project: Project) -> Path:
    return max(project.packs(), key=lambda path: path.stat().st_size)


def test_verify_names_the_damage_and_who_needs_it(two: tuple[Project, str, str]) -> None:
    project, first, second = two
    pack = biggest(project)
    damage(pack)
    before = {path: path.read_bytes() for path in project.store.rglob("*") if path.is_file()}
    result = project.run("verify", "--no-set-aside")
    assert result.code == 6
    assert pack.name in result.out
    assert "needed by" in result.out
    problem = project.run("verify", "--no-set-aside", "--json").json["problems"][0]
    assert problem["object"].endswith(pack.name)
    assert set(problem["keys"]) <= {first, second}
    assert problem["keys"]
    after = {path: path.read_bytes() for path in project.store.rglob("*") if path.is_file()}
    assert after == before, "nothing is changed by looking"


def test_what_verify_finds_damaged_is_set_aside_and_the_next_hook_heals_it(
    project: Project,
) -> None:
    key = project.ready()
    damage(biggest(project))
    result = project.run("verify")
    assert result.code == 6
    assert f"{key}: set aside" in result.out
    assert not project.manifests()
    assert project.run("restore", "--force").code == 3
    project.wipe()
    assert project.run("up").code == 0
    healed = project.run("verify", "--json")
    assert healed.code == 0
    assert healed.json["snapshots"] == 1


def test_verify_looks_quickly_where_that_is_asked_for(two: tuple[Project, str, str]) -> None:
    project, first, second = two
    pack = biggest(project)
    damage(pack)
    assert project.run("verify", "--quick").code == 0
    os.truncate(pack, 1000)
    result = project.run("verify", "--quick", "--json")
    assert result.code == 6
    assert "1000 bytes instead of" in result.json["problems"][0]["why"]
    assert set(result.json["set_aside"]) <= {first, second}
    assert result.json["set_aside"]


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_verify_repairs_from_another_store(project: Project, harm: str) -> None:
    key = project.ready()
    assert project.run("copy", "store", "other").code == 0
    good = {path: path.read_bytes() for path in project.store.rglob("*") if path.is_file()}
    for path in (biggest(project), project.manifests()[0]):
        if harm == "flip":
            damage(path, 100)
        elif harm == "truncate":
            os.truncate(path, 300)
        elif path in project.packs():
            path.unlink()
    result = project.run("verify", "--repair-from", "other")
    assert result.code == 0, result.err
    assert f"repaired from {project.root}/other" in result.out
    assert "repaired" in result.err
    assert {path: path.read_bytes() for path in good} == good
    assert project.run("verify", key).code == 0
    assert not list(project.store.glob("damaged/*"))


def test_what_no_store_can_repair_is_told_and_set_aside(project: Project) -> None:
    project.ready()
    project.run("copy", "store", "other")
    pack = biggest(project)
    damage(pack)
    damage(project.root / "other" / pack.relative_to(project.store))
    result = project.run("verify", "--repair-from", "other", "--json")
    assert result.code == 6
    assert result.json["repaired"] == []
    assert result.json["set_aside"]


def test_a_repair_from_a_store_that_does_not_answer_sets_nothing_aside(project: Project) -> None:
    project.ready()
    damage(biggest(project))
    (project.root / "file").write_text("")
    result = project.run("verify", "--repair-from", "file")
    assert result.code == 6
    assert "nothing is set aside" in result.err
    assert project.manifests()


def test_a_store_is_not_repaired_from_itself(project: Project) -> None:
    assert project.run("verify", "--repair-from", "./store/").code == 2


def test_of_configured_stores_the_one_that_repairs_is_not_repaired(project: Project) -> None:
    project.ready()
    project.run("copy", "store", "other")
    damage(biggest(project))
    project.env["CACHEPOD_STORE"] = "store other"
    document = project.run("verify", "--repair-from", "./other/", "--json").json
    assert document["exit_code"] == 0
    assert document["snapshots"] == 1
    assert {each["store"] for each in document["repaired"]} == {str(project.store)}


def test_a_store_that_does_not_answer_is_not_taken_for_sound(project: Project) -> None:
    project.ready()
    (project.root / "file").write_text("")
    result = project.run("verify", "--store", "store", "--store", "file")
    assert result.code == 5
    assert "file" in result.err


def test_an_empty_store_has_nothing_to_verify(project: Project) -> None:
    result = project.run("verify", "--json")
    assert result.code == 0
    assert result.json["snapshots"] == 0


def test_doctor_says_what_each_result_means(project: Project) -> None:
    result = project.run("doctor")
    assert result.code == 0, result.out
    assert "interpreter" in result.out
    assert str(project.store) in result.out
    assert "fsync" in result.out
    assert result.err.startswith("cachepod: ")
    document = project.run("doctor", "--json").json
    assert document["problems"] == 0
    assert {"about", "check", "severity", "result", "meaning"} == set(document["checks"][0])


def test_doctor_finds_a_store_that_is_none(project: Project) -> None:
    project.store.write_text("not a directory")
    result = project.run("doctor", "--json")
    assert result.code == 1
    assert result.json["problems"] >= 1
    assert result.json["exit_code"] == 1


def test_a_lock_pins_what_is_asked_for(project: Project) -> None:
    loose = project.run("key", "-q").out
    result = project.run("lock", "--json")
    assert result.code == 0, result.err
    assert result.json["packages"] == 1
    lock = project.root / "requirements.lock"
    assert "alpha==1.0" in lock.read_text()
    assert "--hash=sha256:" in lock.read_text()
    assert project.run("lock", "--json").json["outcome"] == "unchanged"
    project.configure(more='lock = "requirements.lock"')
    assert project.run("key", "-q").out != loose
    assert project.run("install").code == 0
    assert project.version_of("alpha") == "1.0"


def test_a_lock_that_is_not_there_yet_is_made(project: Project) -> None:
    project.configure(more='lock = "locks.txt"')
    assert project.run("install").code == 2
    assert project.run("lock").code == 0
    assert (project.root / "locks.txt").exists()
    assert project.run("install").code == 0


def test_without_requirements_there_is_nothing_to_lock(project: Project) -> None:
    (project.root / "cachepod.toml").unlink()
    result = project.run("lock")
    assert result.code == 2
    assert "nothing to lock" in result.err


def test_a_terminal_and_a_pipe_get_the_same_listing(two: tuple[Project, str, str]) -> None:
    project, first, second = two
    code, shown = on_terminal([*COMMAND, "ls"], cwd=project.root)
    assert code == 0
    listed = [line for line in shown.splitlines() if line.startswith((first, second))]
    assert listed == project.run("ls").out.splitlines()[1:]


def test_a_restore_on_a_terminal_ends_with_the_same_words(project: Project) -> None:
    key = project.ready()
    project.wipe()
    code, shown = on_terminal([*COMMAND, "restore"], cwd=project.root)
    assert code == 0
    assert f"cachepod: restored {key} in {project.prefix}" in shown

"""One builder at a time: who takes the lease, who waits, who takes over, in real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cachepod.environment.private import private_file
from tests.support.builders import leased, quick_leases, said, somebody_builds
from tests.support.cli import Result, children, on_terminal, wait_until
from tests.support.project import Project, make_slow_package, make_wheel


@pytest.fixture
def fleet(project: Project) -> Project:
    """A project with quick leases; a container is who has a temporary directory of its own."""
    project.env = quick_leases(project.root / "here")
    return project


def elsewhere(project: Project) -> dict[str, str]:
    """The environment of another container."""
    return quick_leases(project.root / "there")


def finished(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=60)
    return Result(process.returncode, out, err)


def notes(project: Project) -> list[Path]:
    return sorted(project.root.glob(f"*/cachepod-{os.getuid()}/build-*"))


def slow_build(project: Project) -> Path:
    """Let the installation take as long as nobody stops it; the file that says it has begun."""
    mark = project.root / "begun"
    package = make_slow_package(
        project.root / "slow",
        "import time",
        "def build_wheel(*words, **more):",
        f"    open({str(mark)!r}, 'w').write('x')",
        "    time.sleep(300)",
        "def prepare_metadata_for_build_wheel(*words, **more):",
        "    return build_wheel()",
    )
    project.configure(f'["{package}"]')
    return mark


def installing(project: Project) -> subprocess.Popen[str]:
    """A hook that has missed and is installing, for a long time."""
    mark = slow_build(project)
    assert project.run("restore").code == 3
    running = project.start("install")
    wait_until(mark.exists, message="the build never began")
    wait_until(lambda: leased(project)["beat"] >= 2, message="the lease is not renewed")
    return running


# The hook of one container


def test_the_hook_takes_renews_and_releases_the_lease(fleet: Project) -> None:
    missed = fleet.run("restore", "--json")
    assert missed.code == 3
    assert missed.json["lease"] == "taken"
    assert missed.json["waited"] < 1
    assert "this container builds it" in missed.err
    taken = leased(fleet)
    assert taken["state"] == "building"
    assert len(notes(fleet)) == 1
    assert fleet.run("install").code == 0
    assert leased(fleet)["beat"] > taken["beat"]
    assert leased(fleet)["state"] == "building"
    assert fleet.run("publish").code == 0
    assert leased(fleet) == {}
    assert notes(fleet) == []


def test_a_hit_has_nothing_to_do_with_leases(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    document = fleet.run("restore", "--json").json
    assert document["outcome"] == "restored"
    assert "lease" not in document
    assert not (fleet.store / "leases").exists()


def test_a_container_that_starts_again_does_not_wait_for_itself(fleet: Project) -> None:
    assert fleet.run("restore").code == 3
    again = fleet.run("restore", "--json").json
    assert again["lease"] == "taken"
    assert again["waited"] < 1
    assert fleet.run("install").code == 0
    assert fleet.run("publish").code == 0
    assert leased(fleet) == {}


def test_a_partial_restore_builds_too(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    fleet.configure('["alpha==1.0", "beta"]')
    result = fleet.run("restore", "--json")
    assert (result.code, result.json["lease"]) == (4, "taken")
    assert leased(fleet)["state"] == "building"
    assert fleet.run("install").code == 0
    assert fleet.run("publish").code == 0
    assert leased(fleet) == {}


def test_up_takes_and_releases_the_lease(fleet: Project) -> None:
    document = fleet.run("up", "--json").json
    assert document["restore"]["lease"] == "taken"
    assert document["publish"]["outcome"] == "stored"
    assert leased(fleet) == {}
    assert notes(fleet) == []


def test_trees_of_the_user_s_own_have_a_builder_too(fleet: Project) -> None:
    (fleet.root / "cachepod.toml").unlink()
    data = fleet.root / "data"
    words = ("--tree", f"data={data}", "--key", "my-weights", "--store", "store")
    assert fleet.run("restore", "--json", *words).json["lease"] == "taken"
    waiting = fleet.run("restore", "--json", "--wait", "0", *words, env=elsewhere(fleet)).json
    assert waiting["lease"] == "none"
    assert fleet.run("install", *words).code == 0
    data.mkdir()
    (data / "weights").write_text("w")
    assert fleet.run("publish", *words).code == 0
    assert leased(fleet) == {}


# Waiting


def test_waiting_ends_when_the_builder_publishes(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    (manifest,) = fleet.manifests()
    manifest.rename(fleet.root / "aside")
    with somebody_builds(fleet):
        waiting = fleet.start("restore", "--json")
        line = said(waiting, "waiting for ")
        (fleet.root / "aside").rename(manifest)
        result = finished(waiting)
    assert "which has been building for " in line
    assert os.uname().nodename in line
    assert result.code == 0
    assert result.json["outcome"] == "restored"
    assert result.json["lease"] == "awaited"
    assert result.json["waited"] > 0
    assert result.json["built_by"] == os.uname().nodename
    assert "; waited " in result.err


def test_waiting_is_a_living_line_on_a_terminal(fleet: Project) -> None:
    with somebody_builds(fleet):
        code, shown = on_terminal(
            [sys.executable, "-m", "cachepod", "restore", "--wait", "2"],
            cwd=fleet.root,
            env=fleet.env,
        )
    assert code == 3
    told = re.findall(r"which has been building for (\d+) s", shown)
    assert len(set(told)) >= 2
    assert "0.00" not in shown.split("longer than this one waits")[0]


def test_waiting_in_vain_is_a_miss_that_says_why(fleet: Project) -> None:
    with somebody_builds(fleet):
        result = fleet.run("restore", "--wait", "1", "--json")
    assert result.code == 3
    assert result.json["lease"] == "none"
    assert result.json["waited"] >= 1
    assert "has been building it for " in result.err
    assert "longer than this one waits" in result.err
    assert notes(fleet) == []


def test_who_does_not_want_to_wait_does_not(fleet: Project) -> None:
    with somebody_builds(fleet) as lease:
        result = fleet.run("restore", "--wait", "0", "--json")
        assert lease.confirm()
    assert result.code == 3
    assert result.json["waited"] < 1
    assert result.json["lease"] == "none"


def test_waiting_does_not_count_against_the_deadline(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    (manifest,) = fleet.manifests()
    manifest.rename(fleet.root / "aside")
    with somebody_builds(fleet):
        waiting = fleet.start("restore", "--json", "--timeout", "3")
        said(waiting, "building for 5 s")
        (fleet.root / "aside").rename(manifest)
        result = finished(waiting)
    assert result.code == 0, result.err
    assert result.json["waited"] > 3


def test_a_volume_that_hangs_while_one_waits_is_noticed(fleet: Project) -> None:
    with somebody_builds(fleet):
        waiting = fleet.start("restore", "--wait", "600", "--timeout", "1")
        said(waiting, "waiting for ")
        # A stopped process is as deaf as one that waits in the kernel for a wedged file system.
        (worker,) = children(waiting.pid)
        os.kill(worker, signal.SIGSTOP)
        result = finished(waiting)
    assert result.code == 3
    assert "did not end within" in result.err


def test_a_store_that_does_not_answer_is_not_waited_for(fleet: Project) -> None:
    fleet.store.write_text("not a directory")
    started = time.monotonic()
    result = fleet.run("restore", "--json")
    assert result.code == 5
    assert "lease" not in result.json
    assert time.monotonic() - started < 60


def test_a_snapshot_of_a_later_format_is_not_waited_for(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    (manifest,) = fleet.manifests()
    data = bytearray(manifest.read_bytes())
    data[8] = 99  # format.md: the version stands at byte 8
    manifest.write_bytes(data)
    result = fleet.run("restore", "--json")
    assert result.code == 3
    assert "lease" not in result.json
    assert leased(fleet) == {}


# Taking over


def test_a_builder_that_died_is_replaced(fleet: Project) -> None:
    running = installing(fleet)
    beater = children(running.pid)[0]
    waiting = fleet.start("restore", "--json", env=elsewhere(fleet))
    said(waiting, "waiting for ")
    os.kill(beater, signal.SIGKILL)  # the whole container is gone
    running.kill()
    finished(running)
    result = finished(waiting)
    assert result.code == 3
    assert result.json["lease"] == "taken over"
    assert "has not finished: this container builds" in result.err
    assert leased(fleet)["failures"] == 1


def test_an_install_that_is_killed_alone_hands_over_at_once(fleet: Project) -> None:
    running = installing(fleet)
    running.kill()
    finished(running)
    wait_until(lambda: leased(fleet)["state"] == "failed", message="nobody hands it over")
    result = fleet.run("restore", "--json", env=elsewhere(fleet))
    assert result.json["lease"] == "taken over"
    assert result.json["waited"] < 3


def test_an_install_that_is_stopped_hands_over_at_once(fleet: Project) -> None:
    running = installing(fleet)
    running.terminate()
    assert finished(running).code == 143
    assert leased(fleet)["state"] == "free"
    assert leased(fleet)["failures"] == 0
    assert notes(fleet) == []


def test_an_install_that_fails_hands_over_at_once(fleet: Project) -> None:
    fleet.configure('["no-such-package-anywhere==9"]')
    assert fleet.run("restore").code == 3
    waiting = fleet.start("restore", "--json", env=elsewhere(fleet))
    said(waiting, "waiting for ")
    assert fleet.run("install").code == 1
    result = finished(waiting)
    assert result.json["lease"] == "taken over"
    assert leased(fleet)["failures"] == 1


def test_after_three_failures_nobody_waits(fleet: Project) -> None:
    fleet.configure('["no-such-package-anywhere==9"]')
    for _ in range(3):
        assert fleet.run("restore").code == 3
        assert fleet.run("install").code == 1
    assert fleet.run("restore", "--json").json["lease"] == "taken over"
    result = fleet.run("restore", "--json", env=elsewhere(fleet))
    assert result.code == 3
    assert result.json["lease"] == "none"
    assert "nobody waits" in result.err


def test_a_publish_that_fails_hands_over_at_once(fleet: Project) -> None:
    assert fleet.run("restore").code == 3
    assert fleet.run("install").code == 0
    (fleet.store / "packs").write_text("in the way")
    assert fleet.run("publish").code == 5
    assert leased(fleet)["state"] == "failed"
    assert notes(fleet) == []


def test_up_hands_over_when_its_install_fails(fleet: Project) -> None:
    fleet.configure('["no-such-package-anywhere==9"]')
    assert fleet.run("up").code == 1
    assert leased(fleet)["state"] == "failed"
    assert notes(fleet) == []


def test_up_hands_over_when_it_is_stopped(fleet: Project) -> None:
    mark = slow_build(fleet)
    running = fleet.start("up", "--", "true")
    wait_until(mark.exists, message="the build never began")
    running.terminate()
    assert finished(running).code == 143
    assert leased(fleet)["state"] == "free"
    assert notes(fleet) == []


def test_up_hands_over_when_its_publish_hangs(fleet: Project) -> None:
    tree = fleet.root / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / str(number)).write_bytes(os.urandom(4_000_000))
    words = ("--tree", f"data={tree}", "--timeout", "2")
    running = fleet.start("up", *words, "--", "echo", "started")
    said(running, "installed ")
    (worker,) = wait_until(lambda: children(running.pid), message="no publish")
    os.kill(worker, signal.SIGSTOP)
    result = finished(running)
    assert (result.code, result.out) == (0, "started\n")
    assert "publish did not end" in result.err
    assert leased(fleet)["state"] == "failed"
    assert notes(fleet) == []


def test_a_builder_that_comes_too_late_breaks_nothing(fleet: Project) -> None:
    assert fleet.run("restore").code == 3
    # Nobody gives a sign of life until the other takes over.
    other = fleet.run("restore", "--json", env=elsewhere(fleet)).json
    assert other["lease"] == "taken over"
    assert fleet.run("install").code == 0
    assert fleet.run("publish", "--json").json["outcome"] == "stored"
    assert leased(fleet)["state"] == "building", "the other's lease is not ours to release"
    assert fleet.run("publish", env=elsewhere(fleet)).code == 0
    assert leased(fleet) == {}


def test_up_waits_and_then_runs_its_command(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    (manifest,) = fleet.manifests()
    manifest.rename(fleet.root / "aside")
    with somebody_builds(fleet):
        waiting = fleet.start("up", "--", "echo", "started")
        said(waiting, "waiting for ")
        (fleet.root / "aside").rename(manifest)
        result = finished(waiting)
    assert (result.code, result.out) == (0, "started\n")
    assert "; waited " in result.err
    assert "installed" not in result.err


# Damage, and what does not work here


def test_who_meets_damage_builds_and_others_wait(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    pack = max(fleet.packs(), key=lambda path: path.stat().st_size)
    os.truncate(pack, 1000)
    first = fleet.run("restore", "--json")
    assert (first.code, first.json["lease"]) == (6, "taken")
    waiting = fleet.start("restore", "--json", env=elsewhere(fleet))
    said(waiting, "waiting for ")
    assert fleet.run("install").code == 0
    assert fleet.run("publish").code == 0
    result = finished(waiting)
    assert (result.code, result.json["lease"]) == (0, "awaited")


def test_who_meets_damage_waits_if_another_builds_already(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    pack = max(fleet.packs(), key=lambda path: path.stat().st_size)
    (manifest,) = fleet.manifests()
    good, described = pack.read_bytes(), manifest.read_bytes()
    os.truncate(pack, 1000)
    with somebody_builds(fleet):
        waiting = fleet.start("restore", "--json")
        said(waiting, "waiting for ")
        assert fleet.trash()
        pack.write_bytes(good)
        manifest.write_bytes(described)
        result = finished(waiting)
    assert (result.code, result.json["lease"]) == (0, "awaited")
    assert fleet.version_of("alpha") == "1.0"


def test_a_snapshot_that_does_not_work_here_is_built_anew_once(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    (manifest,) = fleet.manifests()
    before = manifest.read_bytes()
    config = fleet.root / "cachepod.toml"
    config.write_text(config.read_text().replace('check = ["alpha"]', 'check = ["alpha.extra"]'))
    first = fleet.run("restore", "--json")
    assert (first.code, first.json["lease"]) == (3, "taken")
    waiting = fleet.start("restore", "--json", env=elsewhere(fleet))
    said(waiting, "waiting for ")
    assert manifest.read_bytes() == before, "what is there is not what is waited for"
    make_wheel(fleet.wheels, "alpha", "1.0", {"alpha/extra.py": b""})
    assert fleet.run("install").code == 0
    assert fleet.run("publish").code == 0
    assert manifest.read_bytes() != before
    result = finished(waiting)
    assert (result.code, result.json["lease"]) == (0, "awaited"), result.err


# What keeps a lease from being had


def test_a_store_that_gives_no_lease_costs_nothing_but_the_lease(fleet: Project) -> None:
    fleet.store.mkdir()
    (fleet.store / "leases").write_text("in the way")
    result = fleet.run("restore", "--json")
    assert result.code == 3
    assert result.json["lease"] == "none"
    assert "others do not know that this container builds" in result.err
    assert fleet.run("install").code == 0
    assert fleet.run("publish").code == 0


def test_the_lease_lies_in_the_farthest_store_that_gives_one(fleet: Project) -> None:
    stores = ("--store", "near", "--store", "far")
    assert fleet.run("restore", "--json", *stores).json["lease"] == "taken"
    assert list((fleet.root / "far").glob("leases/*/1"))
    assert not (fleet.root / "near").exists()
    (fleet.root / "far" / "leases").rename(fleet.root / "far" / "x")
    (fleet.root / "far" / "leases").write_text("in the way")
    assert fleet.run("restore", "--json", *stores).json["lease"] == "taken"
    assert list((fleet.root / "near").glob("leases/*/1"))
    assert fleet.run("install", *stores).code == 0
    assert fleet.run("publish", *stores).code == 0
    assert not list((fleet.root / "near").glob("leases/*/*"))


def test_without_a_place_for_the_note_no_lease_is_kept(fleet: Project) -> None:
    place = Path(fleet.env["TMPDIR"], f"cachepod-{os.getuid()}")
    place.mkdir()
    place.chmod(0o777)
    result = fleet.run("restore", "--json")
    assert (result.code, result.json["lease"]) == (3, "none")
    assert "no note can be left" in result.err
    assert leased(fleet)["state"] == "free"


def test_a_note_that_makes_no_sense_is_no_note(fleet: Project) -> None:
    assert fleet.run("restore").code == 3
    (note,) = notes(fleet)
    assert private_file("build", [fleet.prefix], ".json").name == note.name
    assert set(json.loads(note.read_text())) == {"key", "store", "token", "number"}
    for nonsense in ("", "{", "[]", "null", '{"key": 1}'):
        note.write_text(nonsense)
        assert fleet.run("install").code == 0
        assert fleet.run("publish").code == 0
    assert fleet.version_of("alpha") == "1.0"


def test_clocks_that_are_hours_apart_change_nothing(fleet: Project) -> None:
    fleet.ready()
    fleet.wipe()
    (manifest,) = fleet.manifests()
    manifest.rename(fleet.root / "aside")
    early, late = {"CLOCK_OFF": "-36000"}, {"CLOCK_OFF": "36000"}
    assert fleet.run("restore", env=early).code == 3
    waiting = fleet.start("restore", "--json", env={**elsewhere(fleet), **late})
    said(waiting, "waiting for ")
    assert fleet.run("install", env=early).code == 0
    assert fleet.run("publish", env=early).code == 0
    result = finished(waiting)
    assert (result.code, result.json["lease"]) == (0, "awaited")

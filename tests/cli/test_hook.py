"""The start-up hook as containers run it: restore, else install and publish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cachepod.environment.config import load_settings
from cachepod.environment.identity import identify
from cachepod.environment.restoration import restore_environment
from cachepod.snapshot.catalog import summaries
from cachepod.snapshot.stamp import State, read_stamp
from cachepod.snapshot.uses import install_seconds, read_uses
from cachepod.stores.local import LocalStore
from tests.support.cli import COMMAND, environment, wait_until
from tests.support.imports import imported_by
from tests.support.project import Project, make_slow_package, make_wheel

HOOK = "cachepod restore || cachepod install && cachepod publish"


def hook(project: Project) -> subprocess.CompletedProcess[str]:
    """Run the hook in a shell, with the command on its PATH."""
    binaries = project.root / "bin"
    binaries.mkdir(exist_ok=True)
    script = binaries / "cachepod"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m cachepod "$@"\n')
    script.chmod(0o755)
    env = environment(project.root, project.env)
    env["PATH"] = f"{binaries}:{env['PATH']}"
    return subprocess.run(
        ["sh", "-c", HOOK], cwd=project.root, env=env, capture_output=True, text=True, check=False
    )


def test_the_first_container_installs_and_the_next_one_restores(project: Project) -> None:
    cold = hook(project)
    assert cold.returncode == 0
    assert "cachepod: miss: " in cold.stderr
    assert "cachepod: installed " in cold.stderr
    assert " stored in " in cold.stderr
    project.wipe()
    warm = hook(project)
    assert warm.returncode == 0
    assert "cachepod: restored " in warm.stderr
    assert " present in " in warm.stderr
    assert "installed" not in warm.stderr
    assert project.version_of("alpha") == "1.0"


def test_the_hook_notes_what_it_did_in_the_store(project: Project) -> None:
    hook(project)
    project.wipe()
    hook(project)
    hook(project)  # only confirms, and asks no store
    project.configure('["alpha==2.0"]')
    hook(project)
    store = LocalStore(project.store)
    uses = read_uses(store)
    total = uses.total
    assert (total.hits, total.partials, total.misses, total.publishes) == (1, 1, 1, 2)
    assert total.restored > 300_000
    assert total.published > 600_000
    (first, second) = sorted(uses.tallies.values(), key=lambda tally: tally.hits, reverse=True)
    assert first.hits == first.partials == first.misses == first.publishes == 1
    assert second.publishes == 1
    # Both took about as long, here; what was saved is known and may be negative.
    assert total.saved != 0
    (summary,) = (each for each in summaries(store) if uses.tallies[each.key].hits)
    assert install_seconds(summary) > 0


def test_a_store_that_takes_no_notes_keeps_no_container_from_starting(project: Project) -> None:
    hook(project)
    uses = project.store / "uses"
    shutil.rmtree(uses)
    uses.write_text("in the way")
    project.wipe()
    result = project.run("restore", "-v")
    assert result.code == 0
    assert " is not noted: " in result.err
    project.wipe()
    result = project.run("restore")
    assert result.code == 0
    assert "noted" not in result.err


def test_a_miss_says_so_and_ends_with_three(project: Project) -> None:
    result = project.run("restore")
    assert result.code == 3
    assert "no snapshot of this key" in result.err
    assert result.out == ""
    document = project.run("restore", "--json").json
    assert document["exit_code"] == 3
    assert document["outcome"] == "miss"
    assert document["key"] == project.run("key", "-q").out.strip()


def test_what_is_there_already_is_only_confirmed(project: Project) -> None:
    key = project.ready()
    document = project.run("restore", "--json").json
    assert document["outcome"] == "confirmed"
    assert document["key"] == key
    assert document["exit_code"] == 0


def test_a_confirmed_prefix_needs_no_store(project: Project) -> None:
    project.ready()
    shutil.rmtree(project.store)
    result = project.run("restore")
    assert result.code == 0
    assert "confirmed" in result.err


def test_force_restores_what_is_confirmed(project: Project) -> None:
    project.ready()
    document = project.run("restore", "--force", "--json").json
    assert document["outcome"] == "restored"
    assert project.version_of("alpha") == "1.0"


def test_every_command_of_the_hook_ends_with_time_and_rate(project: Project) -> None:
    installed = project.run("install").err.splitlines()[-1]
    assert installed.startswith(f"cachepod: installed {project.prefix}: 1 package, ")
    published = project.run("publish").err.splitlines()[-1]
    project.wipe()
    restored = project.run("restore").err.splitlines()[-1]
    for line in (installed, published, restored):
        assert "B/s)" in line
        assert " in 0." in line or " s (" in line


def test_publish_is_a_no_op_where_the_snapshot_is_stored(project: Project) -> None:
    project.ready()
    before = {path: path.stat().st_mtime_ns for path in project.store.rglob("*")}
    document = project.run("publish", "--json").json
    assert document["outcome"] == "present"
    assert {path: path.stat().st_mtime_ns for path in project.store.rglob("*")} == before


def test_a_no_op_publish_imports_neither_engine_nor_libraries(project: Project) -> None:
    project.ready()
    result, names = imported_by("publish", cwd=project.root)
    assert result.code == 0
    assert " present in " in result.err
    assert "cachepod.environment.hook" in names
    heavy = {"boto3", "uv", "blake3", "zstandard", "tqdm", "xxhash", "filelock", "packaging"}
    assert not names & heavy
    assert not names & {
        "cachepod.snapshot.engine",
        "cachepod.snapshot.publish",
        "cachepod.snapshot.restore",
        "cachepod.model.manifest",
        "cachepod.environment.install",
    }


def test_without_apt_packages_a_start_imports_nothing_of_theirs(project: Project) -> None:
    project.ready()
    imported = set()
    for command in ("restore", "publish"):
        result, names = imported_by(command, cwd=project.root)
        assert result.code == 0
        imported |= names
    assert "cachepod.environment.restoration" in imported
    assert not imported & {
        "cachepod.environment.layer",
        "cachepod.environment.merging",
        *(f"cachepod.system.{name}" for name in ("apply", "base", "install", "layer", "record")),
    }


def test_a_publish_after_a_hit_does_not_even_need_the_environment(project: Project) -> None:
    project.ready()
    project.wipe()
    assert project.run("publish").code == 0


def test_publish_with_force_stores_it_anew(project: Project) -> None:
    project.ready()
    before = project.manifests()[0].read_bytes()
    document = project.run("publish", "--force", "--json").json
    assert document["outcome"] == "stored"
    assert project.manifests()[0].read_bytes() != before
    project.wipe()
    assert project.run("restore").code == 0


def test_a_relative_is_brought_and_topped_up(project: Project) -> None:
    project.ready()
    project.wipe()
    project.configure('["alpha==1.0", "beta"]')
    result = project.run("restore", "--json")
    assert result.code == 4
    assert result.json["outcome"] == "partial"
    assert [each["input"] for each in result.json["nearest"]["differences"]] == ["requirement:beta"]
    assert "requirement beta" in result.err
    stamp = read_stamp(project.prefix)
    assert stamp is not None
    assert stamp.state is State.PARTIAL
    assert "topped up" in project.run("install").err
    assert project.version_of("alpha") == "1.0"
    assert project.version_of("beta") == "1.0"
    assert project.run("publish", "--json").json["outcome"] == "stored"
    project.wipe()
    assert project.run("restore").code == 0
    assert project.version_of("beta") == "1.0"


def test_a_partial_environment_is_neither_published_nor_run(project: Project) -> None:
    project.ready()
    project.wipe()
    project.configure('["alpha==1.0", "beta"]')
    assert project.run("restore").code == 4
    refused = project.run("publish")
    assert refused.code == 2
    assert "not complete" in refused.err
    assert len(project.manifests()) == 1
    assert "not complete" in project.run("run", "--", "python", "-V").err


def test_a_miss_names_the_nearest_snapshot_even_if_it_is_of_no_use(project: Project) -> None:
    key = project.ready()
    # Made for another prefix: an environment holds absolute paths.
    result = project.run("restore", "--prefix", "elsewhere")
    assert result.code == 3
    assert f"nearest: {key}" in result.err
    assert "prefix is " in result.err
    assert not (project.root / "elsewhere").exists()


def test_what_differs_from_a_stored_snapshot_is_shown(project: Project) -> None:
    key = project.ready()
    project.configure('["alpha==2.0"]')
    result = project.run("key", "--against", key)
    assert result.code == 0
    assert "requirement:alpha" in result.out
    assert "==2.0" in result.out
    assert "==1.0" in result.out
    document = project.run("key", "--against", key, "--json").json
    assert document["differences"] == [
        {"input": "requirement:alpha", "ours": "==2.0", "theirs": "==1.0"}
    ]
    missing = project.run("key", "--against", "no-such-key")
    assert missing.code == 3
    assert "no-such-key" in missing.err


def test_what_was_installed_for_another_configuration_is_not_published(project: Project) -> None:
    assert project.run("install").code == 0
    project.configure('["alpha==2.0"]')
    result = project.run("publish")
    assert result.code == 2
    assert "run cachepod install first" in result.err
    assert not project.manifests()


def test_without_an_environment_there_is_nothing_to_publish(project: Project) -> None:
    result = project.run("publish")
    assert result.code == 1
    assert "there is no environment" in result.err
    assert "run cachepod install" in result.err


def test_an_environment_of_unknown_origin_is_published_on_request_only(project: Project) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project.prefix], check=True)
    result = project.run("publish")
    assert result.code == 1
    assert "not made by cachepod" in result.err
    assert project.run("publish", "--force").code == 0


def test_a_foreign_directory_is_left_alone(project: Project) -> None:
    project.ready()
    project.wipe()
    project.prefix.mkdir()
    (project.prefix / "thesis.tex").write_text("ten years of work")
    for command in ("restore", "install"):
        result = project.run(command)
        assert result.code == 1
        assert "--force" in result.err
        assert (project.prefix / "thesis.tex").exists()
    assert project.run("restore", "--force").code == 0
    assert project.version_of("alpha") == "1.0"


def test_the_nearest_store_that_has_it_is_used(project: Project) -> None:
    key = project.ready("--store", "far")
    project.wipe()
    stores = ("--store", "near", "--store", "far", "--fill", "after")
    document = project.run("restore", "--json", *stores).json
    assert document["outcome"] == "restored"
    assert document["store"].endswith("/far")
    published = project.run("publish", "--json", *stores).json
    assert [each["outcome"] for each in published["stores"]] == ["copied", "present"]
    project.wipe()
    again = project.run("restore", "--json", *stores).json
    assert (again["key"], again["outcome"]) == (key, "restored")
    assert again["store"].endswith("/near")


def test_a_tree_is_captured_and_brought_back_under_a_name(project: Project) -> None:
    (project.root / "cachepod.toml").unlink()
    data = project.root / "data"
    data.mkdir()
    (data / "weights.bin").write_bytes(os.urandom(100_000))
    (data / "link").symlink_to("weights.bin")
    held = (data / "weights.bin").read_bytes()
    words = ("--tree", f"data={data}", "--key", "my-weights", "--store", "store")
    assert project.run("restore", *words).code == 3
    assert project.run("install", *words).code == 0
    assert project.run("publish", *words).code == 0
    shutil.rmtree(data)
    result = project.run("restore", "--json", *words)
    assert result.json["outcome"] == "restored"
    assert result.json["source"] == "my-weights"
    assert (data / "weights.bin").read_bytes() == held
    assert os.readlink(data / "link") == "weights.bin"


def test_what_is_published_anew_under_a_name_reaches_those_who_hold_the_old(
    project: Project,
) -> None:
    (project.root / "cachepod.toml").unlink()
    source, there = project.root / "source", project.root / "there"
    source.mkdir()
    options = ("--key", "my-weights", "--store", "store")
    for version in ("one", "two"):
        (source / "weights").write_text(version)
        assert project.run("publish", "--force", "--tree", f"data={source}", *options).code == 0
        result = project.run("restore", "--json", "--tree", f"data={there}", *options)
        assert result.json["outcome"] in ("restored", "updated")
        assert (there / "weights").read_text() == version
        result = project.run("restore", "--json", "--tree", f"data={there}", *options)
        assert result.json["outcome"] == "confirmed"
    shutil.rmtree(project.root / "store")
    result = project.run("restore", "--json", "--tree", f"data={there}", *options)
    assert result.json["outcome"] == "confirmed", "what is held is good where no store has it"


def test_a_tree_goes_along_with_the_environment(project: Project) -> None:
    models = project.root / "models"
    models.mkdir()
    (models / "voice").write_text("hum")
    words = ("--tree", f"models={models}")
    project.ready(*words)
    project.wipe()
    shutil.rmtree(models)
    assert project.run("restore", *words).code == 0
    assert (models / "voice").read_text() == "hum"
    assert project.version_of("alpha") == "1.0"


def test_a_tree_that_is_missing_is_named_before_anything_is_stored(project: Project) -> None:
    result = project.run("publish", "--tree", "data=nowhere", "--key", "x", "--config", "/dev/null")
    assert result.code in (1, 2)
    project.run("install")
    result = project.run("publish", "--tree", "data=nowhere")
    assert result.code == 1
    assert "nowhere" in result.err
    assert not project.packs()


def test_a_snapshot_that_cannot_import_what_it_must_is_no_hit(project: Project) -> None:
    project.ready()
    project.wipe()
    project.configure(more="")
    config = project.root / "cachepod.toml"
    config.write_text(config.read_text().replace('check = ["alpha"]', 'check = ["gamma"]'))
    result = project.run("restore")
    assert result.code == 3
    assert "gamma" in result.err
    stamp = read_stamp(project.prefix)
    assert stamp is not None
    assert stamp.state is State.INSTALLING


def test_a_damaged_prefix_is_mended_by_the_next_restore(project: Project) -> None:
    project.ready()
    (project.prefix / "bin/python").unlink()
    (project.prefix / "bin/python").symlink_to("/nonexistent/python3")
    document = project.run("restore", "--json").json
    assert document["outcome"] == "updated"
    assert project.version_of("alpha") == "1.0"


@pytest.mark.parametrize("there", [True, False])
def test_an_interpreter_that_changed_is_a_miss_and_install_makes_it_anew(
    project: Project, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.ready()
    if not there:
        project.wipe()
    settings = load_settings({}, {"HOME": str(project.root)}, project.root)
    identity = identify(settings)
    store = LocalStore(project.store)
    with monkeypatch.context() as patch:
        # The same version at the same path, and yet it does not start: another image.
        patch.setattr("cachepod.environment.check.interpreter_works", lambda *words: False)
        result = restore_environment(settings, identity, [store])
    assert (result.outcome, result.exit_code) == ("miss", 3)
    found = read_stamp(settings.prefix)
    assert found is not None
    assert found.spoils
    assert "interpreter" in str(result.problem)
    stamp = read_stamp(project.prefix)
    assert stamp is not None
    assert stamp.state is State.INSTALLING
    assert "installed" in project.run("install").err
    assert project.version_of("alpha") == "1.0"


def test_two_hooks_for_one_prefix_take_turns(project: Project) -> None:
    both = [project.start("install") for _ in range(2)]
    told = [each.communicate(timeout=120)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], told
    assert project.version_of("alpha") == "1.0"
    assert sorted("installed" in each for each in told) == [False, True]


@pytest.mark.parametrize("trap", ["link", "file", "open"])
def test_a_lock_that_cannot_be_had_does_not_keep_an_install_back(
    project: Project, trap: str
) -> None:
    shared = project.root / "tmp"
    shared.mkdir()
    precious = project.root / "precious"
    precious.mkdir()
    place = shared / f"cachepod-{os.getuid()}"
    if trap == "link":
        place.symlink_to(precious)
    elif trap == "file":
        place.write_text("x")
    else:
        place.mkdir()
        place.chmod(0o777)
    result = project.run("install", env={"TMPDIR": str(shared)})
    assert result.code == 0
    assert "would not be noticed" in result.err
    assert not list(precious.iterdir())
    assert project.version_of("alpha") == "1.0"


def test_two_publishers_of_one_key_both_succeed(project: Project) -> None:
    project.run("install")
    both = [project.start("publish") for _ in range(2)]
    told = [each.communicate(timeout=120)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], told
    assert len(project.manifests()) == 1
    project.wipe()
    assert project.run("restore").code == 0


@pytest.mark.parametrize("command", ["restore", "install", "publish", "key", "up"])
def test_nothing_to_do_is_a_usage_error(command: str, tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "cachepod.toml").unlink()
    result = project.run(command)
    assert result.code == 2
    assert "no requirements and no tree" in result.err
    assert project.run(command, "--json").json["exit_code"] == 2


def test_a_package_that_does_not_exist_is_a_failure_with_the_installer_s_words(
    project: Project,
) -> None:
    project.configure('["no-such-package-anywhere==9"]')
    result = project.run("install")
    assert result.code == 1
    assert "no-such-package-anywhere" in result.err
    assert "Traceback" not in result.err
    assert project.run("publish").code != 0
    project.configure()
    assert project.run("install").code == 0
    assert project.version_of("alpha") == "1.0"


def test_completion_offers_the_keys_of_the_store(project: Project) -> None:
    key = project.ready()
    env = environment(
        project.root,
        {
            "_CACHEPOD_COMPLETE": "bash_complete",
            "COMP_WORDS": "cachepod show ",
            "COMP_CWORD": "2",
        },
    )
    done = subprocess.run(
        COMMAND, cwd=project.root, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [f"plain,{key}"]


def test_signals_end_an_install_and_what_it_started(project: Project) -> None:
    # A build that takes its time, in a process that the installer starts.
    mark = project.root / "pid"
    package = make_slow_package(
        project.root / "slow",
        "import os, time",
        "def build_wheel(*words, **more):",
        f"    open({str(mark)!r}, 'w').write(str(os.getpid()))",
        "    time.sleep(300)",
        "def prepare_metadata_for_build_wheel(*words, **more):",
        "    return build_wheel()",
    )
    make_wheel(project.wheels, "gamma", "1.0")
    project.configure(f'["{package}"]')
    running = project.start("install")
    wait_until(lambda: mark.exists() and mark.read_text(), message="the build never began")
    builder = int(mark.read_text())
    running.terminate()
    _, told = running.communicate(timeout=30)
    assert running.returncode == 143, told
    assert "Traceback" not in told
    wait_until(lambda: not Path(f"/proc/{builder}").exists(), message="the build goes on")
    project.configure()
    assert project.run("install").code == 0
    assert project.version_of("alpha") == "1.0"
